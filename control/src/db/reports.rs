//! Reports that users made of calls.

use futures::stream::{BoxStream, StreamExt as _};
use protocol::ids::{CallId, UserId};
use sqlx::PgExecutor;

use crate::domain::export::Report;
use crate::domain::export_hour::ExportHour;

/// Reports made or confirmed in one hour's window, in the order of the file; read as they are consumed.
pub fn of_hour<'db>(db: impl PgExecutor<'db> + 'db, hour: ExportHour) -> BoxStream<'db, sqlx::Result<Report>> {
    sqlx::query!(
        "select invocation_id, user_id, timestamp, confirmed_at, confirmed_by, reason from reports
        where export_hour = $1 or confirmed_export_hour = $1
        order by timestamp, invocation_id",
        hour.end()
    )
    .fetch(db)
    .map(|row| {
        row.map(|row| Report {
            call: CallId(row.invocation_id),
            user: UserId(row.user_id),
            reported_at: row.timestamp,
            confirmed_at: row.confirmed_at,
            confirmed_by: row.confirmed_by.map(UserId),
            reason: row.reason,
        })
    })
    .boxed()
}
