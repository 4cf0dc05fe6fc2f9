//! Compares what is counted as calls come in with the rows of those calls.

use chrono::NaiveDate;
use protocol::principal::permission;
use sqlx::PgPool;
use uuid::Uuid;

/// An allowance with its calls, as they are counted and as they are recorded.
type Allowance = (Uuid, NaiveDate, String, Option<i64>, Option<i64>);

/// Fails unless each paid attempt is counted once for its chute, and once in the allowance of its user if he has one.
/// One statement sees one state of the database: counts and rows are written together.
pub(crate) async fn compare(db: &PgPool) {
    let chutes = "select chute_id, counted.calls, paid.calls
        from chute_calls counted
        full join (
            select chute_id, count(*) as calls from invocations where error_message is null group by chute_id
        ) paid using (chute_id)
        where counted.calls is distinct from paid.calls";
    let wrong: Vec<(Uuid, Option<i64>, Option<i64>)> = sqlx::query_as(chutes).fetch_all(db).await.unwrap();
    assert!(wrong.is_empty(), "calls of chutes counted and recorded: {wrong:?}");
    // Accounts that are free or billed have no allowance.
    let exempt = i64::try_from(permission::FREE_ACCOUNT | permission::INVOICE_BILLING).unwrap();
    let allowances = "select user_id, day, bucket, counted.calls, paid.calls
        from quota_usage counted
        full join (
            select user_id, (started_at at time zone 'utc')::date as day, coalesce(bucket, '*') as bucket,
                count(*) as calls
            from invocations
            join users using (user_id)
            left join (select user_id, bucket::uuid as chute_id, bucket from quotas where bucket <> '*') own
                using (user_id, chute_id)
            where error_message is null and permissions & $1 = 0
            group by 1, 2, 3
        ) paid using (user_id, day, bucket)
        where counted.calls is distinct from paid.calls";
    let wrong: Vec<Allowance> = sqlx::query_as(allowances).bind(exempt).fetch_all(db).await.unwrap();
    assert!(wrong.is_empty(), "calls of allowances counted and recorded: {wrong:?}");
}
