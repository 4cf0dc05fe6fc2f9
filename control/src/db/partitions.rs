//! Weekly partitions of `invocations`, made before rows need them.
//!
//! Partition names and bounds cannot be parameters: this is the one place where statements are put together, from
//! dates alone.

use chrono::{DateTime, Days, NaiveDate, Utc, Weekday};
use sqlx::{AssertSqlSafe, PgConnection};

/// Weeks made beyond the current one.
const AHEAD: u64 = 4;

/// Makes the partitions of last week, of this one and of the next four.
///
/// Rows of such a week that already fell into the default partition move into it.
///
/// # Errors
/// When Postgres is away.
pub async fn ensure(db: &mut PgConnection, now: DateTime<Utc>) -> sqlx::Result<()> {
    let this_week = now.date_naive().week(Weekday::Mon).first_day();
    for monday in this_week
        .checked_sub_days(Days::new(7))
        .into_iter()
        .flat_map(|first| first.iter_weeks())
        .take(AHEAD as usize + 2)
    {
        if !exists(db, &name(monday)).await? {
            create(db, monday).await?;
        }
    }
    Ok(())
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
        "begin;
        create table {name} (like invocations including defaults including constraints);
        with moved as (
            delete from invocations_default where started_at >= {bounds} and started_at < {end} returning *
        ) insert into {name} select * from moved;
        alter table invocations attach partition {name} for values from ({bounds}) to ({end});
        commit;"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(db).await.map(drop)
}
