//! The bytes of a file, and what Python reads in them.

use protocol::usage::{Facts, Kind};
use uuid::Uuid;

use super::*;
use crate::domain::pace::Pace;
use crate::domain::python;
use crate::domain::sample::{at, record};

const GOLDEN: &str = include_str!("golden.csv");

fn invocation(kind: Kind, end: f64, facts: Facts) -> Invocation {
    let record = record(kind, end, facts);
    let metrics = Pace::default().measure(&record);
    let admission = record.admission;
    Invocation {
        call: admission.call,
        invocation: admission.invocation,
        chute: admission.chute,
        chute_owner: admission.chute_owner,
        function: admission.function,
        image: admission.image,
        image_owner: admission.image_owner,
        instance: admission.instance,
        miner_uid: admission.miner_uid,
        hotkey: admission.hotkey,
        started_at: admission.started_at,
        completed_at: record.completed_at,
        error: None,
        multiplier: admission.multiplier,
        bounty: 0,
        metrics,
    }
}

fn rows() -> Vec<Invocation> {
    let stream = Facts { it: 12, ot: 3, tokens: 3, ttft: Some(0.000_05), tt: 2.0 };
    let odd = Invocation {
        function: "say \"hi\", twice\r\nplease".into(),
        error: Some("it's, \"broken\"\n".into()),
        multiplier: 1e16,
        miner_uid: -1,
        bounty: 86_400,
        ..invocation(Kind::Time, 3.25, Facts { tt: 0.123_456, ..Facts::default() })
    };
    vec![
        invocation(Kind::Stream, 2.0, stream),
        odd,
        Invocation { multiplier: 1e-7, ..invocation(Kind::Steps, 5.0, Facts { tt: 0.3, ..Facts::default() }) },
        invocation(Kind::Complete, 6.000_001, Facts { it: 1, ot: 0, tokens: 0, ttft: None, tt: 0.0 }),
    ]
}

fn file() -> Vec<u8> {
    let mut sheet = Sheet::with_columns(&INVOCATION_COLUMNS).unwrap();
    for row in rows() {
        sheet.push_invocation(&row).unwrap();
    }
    sheet.take().unwrap()
}

#[test]
fn a_file_of_invocations_is_golden_byte_for_byte() {
    assert_eq!(String::from_utf8(file()).unwrap(), GOLDEN);
}

#[test]
fn a_file_taken_in_parts_has_the_same_bytes() {
    let mut sheet = Sheet::with_columns(&INVOCATION_COLUMNS).unwrap();
    let mut bytes = Vec::new();
    for row in rows() {
        sheet.push_invocation(&row).unwrap();
        bytes.extend(sheet.take().unwrap());
    }
    bytes.extend(sheet.take().unwrap());
    assert_eq!(bytes, file());
}

#[test]
fn recent_attempts_are_listed_without_the_call() {
    let mut sheet = Sheet::with_columns(&INVOCATION_COLUMNS[1..]).unwrap();
    for row in rows() {
        sheet.push_attempt(&row).unwrap();
    }
    let text = String::from_utf8(sheet.take().unwrap()).unwrap();
    let call = "00000000-0000-0000-0000-000000000001,";
    assert_eq!(text, GOLDEN.replace("parent_invocation_id,", "").replace(call, ""));
}

#[test]
fn a_report_has_empty_fields_until_it_is_confirmed() {
    let mut sheet = Sheet::with_columns(&REPORT_COLUMNS).unwrap();
    let open = Report {
        call: CallId(Uuid::from_u128(1)),
        user: UserId(Uuid::from_u128(7)),
        reported_at: at(1.5),
        confirmed_at: None,
        confirmed_by: None,
        reason: "wrong, \"very\"".into(),
    };
    sheet.push_report(&open).unwrap();
    let confirmed = Report { confirmed_at: Some(at(60.0)), confirmed_by: Some(UserId(Uuid::from_u128(4))), ..open };
    sheet.push_report(&confirmed).unwrap();
    let (call, user, by) = (
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0000-0000-000000000007",
        "00000000-0000-0000-0000-000000000004",
    );
    let expected = format!(
        "invocation_id,user_id,timestamp,confirmed_at,confirmed_by,reason\r\n\
        {call},{user},2026-01-02 03:00:01.500000,,,\"wrong, \"\"very\"\"\"\r\n\
        {call},{user},2026-01-02 03:00:01.500000,2026-01-02 03:01:00,{by},\"wrong, \"\"very\"\"\"\r\n"
    );
    assert_eq!(String::from_utf8(sheet.take().unwrap()).unwrap(), expected);
}

#[test]
fn python_reads_the_file_as_an_auditor_does_and_would_write_the_same_bytes() {
    let program = r#"
import ast, csv, io, sys
from datetime import datetime
text = sys.stdin.buffer.read().decode()
rows = list(csv.DictReader(io.StringIO(text, newline="")))
assert len(rows) == 4, rows
metrics = [ast.literal_eval(row["metrics"]) if row["metrics"] else None for row in rows]
assert metrics[0]["it"] == 12 and metrics[0]["ttft"] == 5e-05 and metrics[0]["nc"] is None, metrics
assert metrics[1] is None and metrics[2]["steps"] == 20 and metrics[3]["tps"] is None, metrics
assert rows[1]["function_name"] == 'say "hi", twice\r\nplease' and rows[1]["error_message"] == 'it\'s, "broken"\n'
assert [int(row["miner_uid"]) for row in rows] == [7, -1, 7, 7] and int(rows[1]["bounty"]) == 86400
assert [float(row["compute_multiplier"]) for row in rows] == [1.5, 1e16, 1e-07, 1.5]
def when(text): return datetime.fromisoformat(text)
written = io.StringIO(newline="")
writer = csv.writer(written)
writer.writerow(rows[0].keys())
for row, metric in zip(rows, metrics):
    row = dict(row, miner_uid=int(row["miner_uid"]), bounty=int(row["bounty"]), metrics=metric,
        compute_multiplier=float(row["compute_multiplier"]), started_at=when(row["started_at"]),
        completed_at=when(row["completed_at"]), error_message=row["error_message"] or None)
    writer.writerow(row.values())
assert written.getvalue() == text, (written.getvalue(), text)
print("agreed")
"#;
    python::agrees(program, &file());
}

#[test]
fn a_number_that_nobody_can_parse_makes_no_file() {
    let row = Invocation { multiplier: f64::NAN, ..rows().remove(0) };
    let mut sheet = Sheet::with_columns(&INVOCATION_COLUMNS).unwrap();
    assert!(matches!(sheet.push_invocation(&row), Err(Unprintable::Multiplier(_))));
}
