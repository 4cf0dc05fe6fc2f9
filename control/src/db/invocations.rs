//! The record of attempts: one row per attempt, written once.

use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt as _};
use protocol::ids::{CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId};
use protocol::record::batch::AttemptKey;
use protocol::signing::Hotkey;
use protocol::usage::{Outcome, Record};
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::export::Invocation;
use crate::domain::export_hour::ExportHour;
use crate::domain::pace::Metrics;

/// An attempt on its way into the table.
#[derive(Clone, Debug)]
pub struct NewInvocation<'a> {
    /// The record as it arrived.
    pub record: &'a Record,
    /// Of the record.
    pub content_hash: [u8; 32],
    /// Why it is not paid; none for one that is.
    pub error: Option<String>,
    /// What was measured.
    pub metrics: Option<Metrics>,
    /// The hour whose file holds it.
    pub export_hour: ExportHour,
}

/// Which of these attempts are in the table, with the hash of their records.
///
/// # Errors
/// When Postgres is away.
pub async fn hashes(db: impl PgExecutor<'_>, keys: &[AttemptKey]) -> sqlx::Result<Vec<(AttemptKey, Vec<u8>)>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = keys.iter().map(|(id, at)| (id.0, *at)).unzip();
    // The offset keeps the planner from reading whole partitions, as it would for a plain join.
    let rows = sqlx::query!(
        r#"select asked.invocation_id as "invocation_id!", asked.started_at as "started_at!", held.content_hash
        from unnest($1::uuid[], $2::timestamptz[]) as asked (invocation_id, started_at), lateral (
            select content_hash from invocations
            where invocations.invocation_id = asked.invocation_id and invocations.started_at = asked.started_at
            offset 0
        ) as held"#,
        &ids,
        &times,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| ((InvocationId(row.invocation_id), row.started_at), row.content_hash)).collect())
}

/// Writes attempts that were not found in the table; false if one of them is there all the same, after which the
/// transaction can only be undone.
///
/// To let conflicts pass would make every row cost Postgres half as much again: it writes each tentatively then.
///
/// # Errors
/// When Postgres is away or refuses a value.
pub async fn insert(db: impl PgExecutor<'_>, rows: &[NewInvocation<'_>]) -> sqlx::Result<bool> {
    if rows.is_empty() {
        return Ok(true);
    }
    let inserted = sqlx::query_file!(
        "queries/insert_invocations.sql",
        &column(rows, |row| row.record.admission.invocation.0),
        &column(rows, |row| row.record.admission.call.0),
        &column(rows, |row| row.record.admission.chute.0),
        &column(rows, |row| row.record.admission.chute_owner.0),
        &column(rows, |row| row.record.admission.function.as_str()) as &[&str],
        &column(rows, |row| row.record.admission.user.0),
        &column(rows, |row| row.record.admission.key.map(|key| key.0)) as &[Option<Uuid>],
        &column(rows, |row| row.record.admission.image.0),
        &column(rows, |row| row.record.admission.image_owner.0),
        &column(rows, |row| row.record.admission.instance.0),
        &column(rows, |row| row.record.admission.miner_uid),
        &column(rows, |row| row.record.admission.hotkey.as_str()) as &[&str],
        &column(rows, |row| row.record.admission.started_at),
        &column(rows, |row| row.record.completed_at),
        &column(rows, |row| row.error.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.record.admission.multiplier),
        &column(rows, |row| row.metrics.as_ref().map(Json)) as &[Option<Json<&Metrics>>],
        &column(rows, |row| outcome(row.record.outcome)) as &[&str],
        &column(rows, |row| row.record.delivered),
        &column(rows, |row| row.export_hour.end()),
        &column(rows, |row| row.content_hash.as_slice()) as &[&[u8]],
    )
    .execute(db)
    .await;
    match inserted {
        Ok(_) => Ok(true),
        // The key of attempts is all that is unique in this table.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The rows of one hour's file, in the order of the file; read as they are consumed.
pub fn of_hour<'db>(db: impl PgExecutor<'db> + 'db, hour: ExportHour) -> BoxStream<'db, sqlx::Result<Invocation>> {
    sqlx::query_file_as!(Row, "queries/invocations_of_hour.sql", hour.end())
        .fetch(db)
        .map(|row| row.and_then(Row::into_invocation))
        .boxed()
}

/// Paid attempts that started after `since`, newest first; of one miner if asked.
///
/// # Errors
/// When Postgres is away.
pub async fn list_recent(
    db: impl PgExecutor<'_>,
    since: DateTime<Utc>,
    hotkey: Option<&Hotkey>,
    limit: u16,
) -> sqlx::Result<Vec<Invocation>> {
    let rows = match hotkey {
        Some(hotkey) => {
            sqlx::query_file_as!(
                Row,
                "queries/recent_invocations_of_miner.sql",
                since,
                i64::from(limit),
                hotkey.to_string()
            )
            .fetch_all(db)
            .await?
        }
        None => {
            sqlx::query_file_as!(Row, "queries/recent_invocations.sql", since, i64::from(limit)).fetch_all(db).await?
        }
    };
    rows.into_iter().map(Row::into_invocation).collect()
}

/// A row as Postgres gives it.
struct Row {
    invocation_id: Uuid,
    parent_invocation_id: Uuid,
    chute_id: Uuid,
    chute_user_id: Uuid,
    function_name: String,
    image_id: Uuid,
    image_user_id: Uuid,
    instance_id: Uuid,
    miner_uid: i32,
    miner_hotkey: String,
    started_at: DateTime<Utc>,
    completed_at: DateTime<Utc>,
    error_message: Option<String>,
    compute_multiplier: f64,
    bounty: i32,
    metrics: Option<Json<Metrics>>,
}

impl Row {
    fn into_invocation(self) -> sqlx::Result<Invocation> {
        let hotkey = Hotkey::parse(&self.miner_hotkey).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Invocation {
            call: CallId(self.parent_invocation_id),
            invocation: InvocationId(self.invocation_id),
            chute: ChuteId(self.chute_id),
            chute_owner: UserId(self.chute_user_id),
            function: self.function_name,
            image: ImageId(self.image_id),
            image_owner: UserId(self.image_user_id),
            instance: InstanceId(self.instance_id),
            miner_uid: self.miner_uid,
            hotkey,
            started_at: self.started_at,
            completed_at: self.completed_at,
            error: self.error_message,
            multiplier: self.compute_multiplier,
            bounty: self.bounty,
            metrics: self.metrics.map(|metrics| metrics.0),
        })
    }
}

fn column<'a, T>(rows: &'a [NewInvocation<'a>], value: impl Fn(&'a NewInvocation<'a>) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::Failed => "failed",
        Outcome::Aborted => "aborted",
        Outcome::Lost => "lost",
    }
}
