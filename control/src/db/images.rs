//! Container images.

use chrono::{DateTime, Utc};
use protocol::ids::{ImageId, UserId};
use sqlx::PgExecutor;

/// Adds an image.
///
/// # Errors
/// When it exists, its name breaks a rule, or Postgres is away.
pub async fn insert(
    db: impl PgExecutor<'_>,
    id: ImageId,
    user: UserId,
    name: &str,
    tag: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into images (image_id, user_id, name, tag, created_at) values ($1, $2, $3, $4, $5)",
        id.0,
        user.0,
        name,
        tag,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Whether there is such an image.
///
/// # Errors
/// When Postgres is away.
pub async fn exists(db: impl PgExecutor<'_>, id: ImageId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select exists (select from images where image_id = $1) as "exists!""#, id.0)
        .fetch_one(db)
        .await
}
