//! Deployed applications.

use chrono::{DateTime, Utc};
use protocol::directory::{Cord, Template, TokenPrice};
use protocol::ids::{ChuteId, ImageId, UserId};
use protocol::slug::Slug;
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use super::stored;

/// A deployed application.
#[derive(Clone, Debug, PartialEq)]
pub struct Chute {
    /// Its identifier.
    pub id: ChuteId,
    /// Its owner.
    pub owner: UserId,
    /// Its name.
    pub name: String,
    /// Its label in host names.
    pub slug: Slug,
    /// The image it runs.
    pub image: ImageId,
    /// The owner of that image.
    pub image_owner: UserId,
    /// The façade it serves, if any.
    pub template: Option<Template>,
    /// Whether everybody may call it.
    pub public: bool,
    /// Its entry points.
    pub cords: Vec<Cord>,
    /// The model object its engine reported.
    pub model: Option<serde_json::Value>,
    /// Prices, once set.
    pub price: Option<TokenPrice>,
    /// Calls one instance serves at once.
    pub concurrency: u32,
    /// Compute multiplier × boost.
    pub multiplier: f64,
    /// Calls per minute and user, instead of the default.
    pub rate_per_minute: Option<u32>,
    /// Calls at once per user, instead of the default.
    pub max_concurrent: Option<u32>,
    /// Whether it is under maintenance.
    pub maintenance: bool,
}

/// A row of the table, with the owner of the image.
struct Row {
    chute_id: Uuid,
    user_id: Uuid,
    name: String,
    slug: String,
    image_id: Uuid,
    image_owner: Uuid,
    template: Option<String>,
    public: bool,
    cords: Json<Vec<Cord>>,
    model: Option<serde_json::Value>,
    price_input: Option<i64>,
    price_output: Option<i64>,
    concurrency: i32,
    multiplier: f64,
    rate_per_minute: Option<i32>,
    max_concurrent: Option<i32>,
    maintenance: bool,
}

impl TryFrom<Row> for Chute {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let template = row.template.as_deref().map(parse_template).transpose()?;
        let price = match (row.price_input, row.price_output) {
            (Some(input), Some(output)) => {
                Some(TokenPrice { input: stored(input.try_into())?, output: stored(output.try_into())? })
            }
            (None, _) | (_, None) => None,
        };
        Ok(Self {
            id: ChuteId(row.chute_id),
            owner: UserId(row.user_id),
            name: row.name,
            slug: stored(Slug::parse(&row.slug))?,
            image: ImageId(row.image_id),
            image_owner: UserId(row.image_owner),
            template,
            public: row.public,
            cords: row.cords.0,
            model: row.model,
            price,
            concurrency: stored(row.concurrency.try_into())?,
            multiplier: row.multiplier,
            rate_per_minute: stored(row.rate_per_minute.map(u32::try_from).transpose())?,
            max_concurrent: stored(row.max_concurrent.map(u32::try_from).transpose())?,
            maintenance: row.maintenance,
        })
    }
}

/// Adds a chute; `false` when its slug is taken.
///
/// # Errors
/// When the user has one of this name, a value breaks its rule, or Postgres is away.
pub async fn insert(db: impl PgExecutor<'_>, chute: &Chute, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let (price_input, price_output) = price_columns(chute.price)?;
    let done = sqlx::query!(
        "insert into chutes (chute_id, user_id, name, slug, image_id, template, public, cords, model,
            price_input, price_output, concurrency, multiplier, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        on conflict on constraint chutes_slug_unique do nothing",
        chute.id.0,
        chute.owner.0,
        chute.name,
        chute.slug.as_str(),
        chute.image.0,
        chute.template.map(template_text),
        chute.public,
        Json(&chute.cords) as _,
        chute.model,
        price_input,
        price_output,
        stored(i32::try_from(chute.concurrency))?,
        chute.multiplier,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The chute with this identifier, locked until the transaction ends.
///
/// # Errors
/// When Postgres is away.
pub async fn find_for_update(db: impl PgExecutor<'_>, id: ChuteId) -> sqlx::Result<Option<Chute>> {
    let row = sqlx::query_as!(
        Row,
        r#"select chute_id, chutes.user_id, chutes.name, slug, image_id, images.user_id as image_owner, template,
            public, cords as "cords: Json<Vec<Cord>>", model, price_input, price_output, concurrency, multiplier,
            rate_per_minute, max_concurrent, maintenance
        from chutes join images using (image_id) where chute_id = $1 for update of chutes"#,
        id.0,
    )
    .fetch_optional(db)
    .await?;
    row.map(Chute::try_from).transpose()
}

/// The chute with this slug.
///
/// # Errors
/// When Postgres is away.
pub async fn find_by_slug(db: impl PgExecutor<'_>, slug: &Slug) -> sqlx::Result<Option<ChuteId>> {
    let id =
        sqlx::query_scalar!("select chute_id from chutes where slug = $1", slug.as_str()).fetch_optional(db).await?;
    Ok(id.map(ChuteId))
}

/// All chutes of accounts that were not deleted, by identifier.
///
/// # Errors
/// When Postgres is away.
pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Chute>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select chute_id, chutes.user_id, chutes.name, slug, image_id, images.user_id as image_owner, template,
            public, cords as "cords: Json<Vec<Cord>>", model, price_input, price_output, concurrency, multiplier,
            chutes.rate_per_minute, chutes.max_concurrent, maintenance
        from chutes join images using (image_id) join users on users.user_id = chutes.user_id
        where users.deleted_at is null order by chute_id"#,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Chute::try_from).collect()
}

/// Stores what an operator may change of a chute.
///
/// # Errors
/// When a value breaks its rule or Postgres is away.
pub async fn update(db: impl PgExecutor<'_>, chute: &Chute) -> sqlx::Result<()> {
    let (price_input, price_output) = price_columns(chute.price)?;
    sqlx::query!(
        "update chutes set public = $2, maintenance = $3, rate_per_minute = $4, max_concurrent = $5,
            concurrency = $6, multiplier = $7, price_input = $8, price_output = $9, model = $10, version = version + 1
        where chute_id = $1",
        chute.id.0,
        chute.public,
        chute.maintenance,
        stored(chute.rate_per_minute.map(i32::try_from).transpose())?,
        stored(chute.max_concurrent.map(i32::try_from).transpose())?,
        stored(i32::try_from(chute.concurrency))?,
        chute.multiplier,
        price_input,
        price_output,
        chute.model,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Removes a chute with its shares and instances; `false` when there was none.
///
/// # Errors
/// When Postgres is away.
pub async fn delete(db: impl PgExecutor<'_>, id: ChuteId) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from chutes where chute_id = $1", id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

fn price_columns(price: Option<TokenPrice>) -> sqlx::Result<(Option<i64>, Option<i64>)> {
    let Some(price) = price else { return Ok((None, None)) };
    Ok((Some(stored(price.input.try_into())?), Some(stored(price.output.try_into())?)))
}

fn template_text(template: Template) -> &'static str {
    match template {
        Template::Vllm => "vllm",
        Template::Embedding => "embedding",
        Template::Diffusion => "diffusion",
    }
}

fn parse_template(text: &str) -> sqlx::Result<Template> {
    match text {
        "vllm" => Ok(Template::Vllm),
        "embedding" => Ok(Template::Embedding),
        "diffusion" => Ok(Template::Diffusion),
        _ => Err(sqlx::Error::Decode(format!("unknown template {text}").into())),
    }
}
