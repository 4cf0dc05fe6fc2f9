//! What an attempt is worth: whether it is paid, and which daily allowance it uses up.

use chrono::NaiveDate;
use protocol::ids::UserId;
use protocol::principal::Bucket;
use protocol::usage::{Admission, Outcome, Record};

/// Why an attempt is not paid, the row's `error_message`; none for one that is.
///
/// A client that hangs up has what it got, and so has the client of a gateway that died: their miners are paid.
#[must_use]
pub fn unpaid_reason(record: &Record) -> Option<String> {
    let default = match (record.outcome, record.delivered) {
        (Outcome::Finished | Outcome::Aborted | Outcome::Lost, true) => return None,
        (Outcome::Failed, _) => "FAILED",
        (Outcome::Finished, false) => "EMPTY",
        (Outcome::Aborted, false) => "ABORTED",
        (Outcome::Lost, false) => "LOST",
    };
    Some(record.error.clone().filter(|error| !error.is_empty()).unwrap_or_else(|| default.to_owned()))
}

/// The allowance an attempt uses up: that of the day on which its call was let in, if it is paid and its user has one.
#[must_use]
pub fn allowance(record: &Record) -> Option<(UserId, NaiveDate, Bucket)> {
    let bucket = record.admission.bucket.filter(|_| unpaid_reason(record).is_none())?;
    let Admission { user, bucket_day, started_at, .. } = &record.admission;
    Some((*user, bucket_day.unwrap_or(started_at.date_naive()), bucket))
}

#[cfg(test)]
mod tests;
