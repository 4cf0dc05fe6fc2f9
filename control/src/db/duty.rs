//! Locks that let one replica at a time do a duty, with the channel that nudges it.

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{PgExecutor, PgPool};

/// The lock of a duty: an advisory lock on a connection of its own, which also hears the nudges.
pub struct DutyLock {
    connection: PgListener,
}

impl DutyLock {
    /// Opens the connection and hears nudges from now on; the lock is not held yet.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn connect(db: &PgPool, duty: &str) -> sqlx::Result<Self> {
        let options = db.connect_options().as_ref().clone();
        let dedicated = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut connection = PgListener::connect_with(&dedicated).await?;
        connection.eager_reconnect(false);
        connection.listen(duty).await?;
        Ok(Self { connection })
    }

    /// Takes the lock; `false` while another replica has it.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn try_take(&mut self, duty: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar!(r#"select pg_try_advisory_lock(hashtextextended($1, 0)) as "taken!""#, duty)
            .fetch_one(&mut self.connection)
            .await
    }

    /// Waits for a nudge.
    ///
    /// # Errors
    /// When the connection, and with it the lock, is lost.
    pub async fn nudged(&mut self) -> sqlx::Result<()> {
        self.connection.try_recv().await?.map(drop).ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Makes sure that the lock is still held.
    ///
    /// # Errors
    /// When it is not.
    pub async fn check(&mut self) -> sqlx::Result<()> {
        let held = sqlx::query_scalar!(
            r#"select exists (
                select from pg_locks where locktype = 'advisory' and granted and pid = pg_backend_pid()
            ) as "held!""#
        )
        .fetch_one(&mut self.connection)
        .await?;
        if held { Ok(()) } else { Err(sqlx::Error::WorkerCrashed) }
    }
}

/// Nudges a duty once the transaction commits; a lost nudge costs only delay.
///
/// # Errors
/// When Postgres is away.
pub async fn nudge(db: impl PgExecutor<'_>, duty: &str) -> sqlx::Result<()> {
    sqlx::query!("select pg_notify($1, '')", duty).execute(db).await.map(drop)
}
