//! Each way an attempt can end.

use super::*;
use crate::domain::sample::{at, record};
use protocol::usage::{Facts, Kind};

fn ended(outcome: Outcome, delivered: bool, error: Option<&str>) -> Record {
    let facts = Facts { tt: 7200.0, ..Facts::default() };
    Record { outcome, delivered, error: error.map(str::to_owned), ..record(Kind::Time, 0.0, facts) }
}

#[test]
fn c1_a_client_that_hangs_up_pays_for_what_it_got_and_an_undelivered_answer_is_not_paid() {
    let ends = [
        (Outcome::Finished, true, None, None),
        (Outcome::Aborted, true, None, None),
        (Outcome::Lost, true, Some("LOST"), None),
        (Outcome::Failed, true, Some("CLOSED"), Some("CLOSED")),
        (Outcome::Failed, false, None, Some("FAILED")),
        (Outcome::Failed, false, Some(""), Some("FAILED")),
        (Outcome::Finished, false, None, Some("EMPTY")),
        (Outcome::Aborted, false, None, Some("ABORTED")),
        (Outcome::Lost, false, None, Some("LOST")),
    ];
    for (outcome, delivered, error, reason) in ends {
        let record = ended(outcome, delivered, error);
        assert_eq!(unpaid_reason(&record).as_deref(), reason, "{outcome:?} {delivered}");
        assert_eq!(allowance(&record).is_some(), reason.is_none());
    }
}

#[test]
fn a_call_counts_on_the_day_it_was_let_in_and_only_if_its_user_has_an_allowance() {
    let mut record = ended(Outcome::Finished, true, None);
    record.admission.started_at = at(-4.0 * 3600.0);
    let (user, day, bucket) = allowance(&record).unwrap();
    assert_eq!((user, bucket), (record.admission.user, Bucket::Default));
    assert_eq!(day.to_string(), "2026-01-01");
    record.admission.bucket_day = day.pred_opt();
    assert_eq!(allowance(&record).unwrap().1.to_string(), "2025-12-31");
    record.admission.bucket = None;
    assert_eq!(allowance(&record), None);
}
