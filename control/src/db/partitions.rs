//! Weekly partitions of `invocations`, made before rows need them.
//!
//! Partition names and bounds cannot be parameters: this is the one place where statements are put together, from
//! dates alone.

use chrono::{DateTime, Days, NaiveDate, Utc, Weekday};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Weeks made beyond the current one.
const AHEAD: u64 = 4;
/// Bounds of each statement: attaching locks the default partition for everybody else and reads all of it.
const LIMITS: &str = "set local lock_timeout = '1s'; set local statement_timeout = '5s'";

/// Makes the partitions of last week, of this one and of the next four.
///
/// Rows of such a week that already fell into the default partition move into it. So far ahead they are the few of
/// a clock that is weeks fast; should they ever be too many to move in time, the week stays in the default partition,
/// where nothing is lost. A week that fails does not keep the others from being made.
///
/// # Errors
/// The last failure, when Postgres is away or a partition could not be made; the connection remains of use.
pub async fn ensure(db: &mut PgConnection, now: DateTime<Utc>) -> sqlx::Result<()> {
    let this_week = now.date_naive().week(Weekday::Mon).first_day();
    let mut outcome = Ok(());
    for monday in this_week
        .checked_sub_days(Days::new(7))
        .into_iter()
        .flat_map(|first| first.iter_weeks())
        .take(AHEAD as usize + 2)
    {
        if !exists(db, &name(monday)).await?
            && let Err(error) = create(db, monday).await
        {
            outcome = Err(error);
        }
    }
    outcome
}

fn name(monday: NaiveDate) -> String {
    monday.format("invocations_%Y%m%d").to_string()
}

async fn exists(db: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select to_regclass($1) is not null as "exists!""#, name).fetch_one(db).await
}

async fn create(db: &mut PgConnection, monday: NaiveDate) -> sqlx::Result<()> {
    let (name, next) = (name(monday), monday + Days::new(7));
    let bounds = format!("'{monday} 00:00:00+00'");
    let end = format!("'{next} 00:00:00+00'");
    let statements = format!(
        "create table {name} (like invocations including defaults including constraints);
        with moved as (
            delete from invocations_default where started_at >= {bounds} and started_at < {end} returning *
        ) insert into {name} select * from moved;
        alter table invocations attach partition {name} for values from ({bounds}) to ({end});"
    );
    let mut transaction = db.begin().await?;
    sqlx::raw_sql(LIMITS).execute(&mut *transaction).await?;
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *transaction).await?;
    transaction.commit().await
}
