//! The public record of attempts: hourly files and the list of recent ones.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use protocol::signing::Hotkey;
use serde::Deserialize;

use super::error::ApiError;
use crate::clients::store::Store;
use crate::db;
use crate::domain::export::{INVOCATION_COLUMNS, Sheet, Unprintable};
use crate::domain::export_hour::{ExportHour, ExportKind};
use crate::state;

/// No platform of this kind has older files.
const FIRST_HOUR: &str = "2024-12-14T00:00:00Z";
/// How far back the list of recent attempts goes.
const RECENT: TimeDelta = TimeDelta::days(1);
/// Lines of that list unless asked otherwise, and at most.
const LINES: (u16, u16) = (100, 10_000);

/// What these routes need.
#[derive(Clone)]
pub struct Exports {
    /// What every route has.
    pub state: state::State,
    /// Where the files lie.
    pub store: Store,
}

/// What the list of recent attempts may be asked for.
#[derive(Deserialize)]
pub struct RecentQuery {
    hotkey: Option<String>,
    limit: Option<String>,
}

/// Shows one hourly file: `{hour}.csv`, `{hour}-reports.csv` or `{hour}-jobs.csv`, named by the end of its window.
///
/// # Errors
/// When there is no such file, or the parts that keep it are away.
pub async fn show(
    State(exports): State<Exports>,
    Path((year, month, day, file)): Path<(String, String, String, String)>,
) -> Result<Response, ApiError> {
    let (hour, kind) = file_name(&file).ok_or_else(|| ApiError::BadRequest(format!("Invalid format: {file}")))?;
    let not_found =
        || ApiError::NotFound(format!("Invocations export not found year={year} month={month} day={day} hour={hour}"));
    let named = named(&year, &month, &day, hour).filter(|named| plausible(*named, exports.state.clock.now()));
    let named = named.ok_or_else(not_found)?;
    // A file counts from the moment it is recorded: until then its bytes may still be replaced.
    let sha256 = db::exports::find_sha256(&exports.state.db, named, kind).await?.ok_or_else(not_found)?;
    let object = exports.store.find(&named.key(kind)).await.map_err(ApiError::Store)?.ok_or_else(not_found)?;
    let headers = [
        (CONTENT_TYPE, "text/csv".to_owned()),
        (CONTENT_DISPOSITION, attachment(&named.file_name(kind))),
        (CONTENT_LENGTH, object.length.to_string()),
        (ETAG, format!("\"{sha256}\"")),
    ];
    Ok((headers, Body::from_stream(object.into_pieces())).into_response())
}

/// Lists paid attempts of the last day, newest first; of one miner if asked.
///
/// # Errors
/// When the question makes no sense or Postgres is away.
pub async fn recent(State(exports): State<Exports>, Query(query): Query<RecentQuery>) -> Result<Response, ApiError> {
    let limit = match query.limit {
        None => LINES.0,
        Some(text) => {
            text.parse::<u64>().map_err(|_| ApiError::BadRequest("Invalid limit".into()))?.clamp(1, u64::from(LINES.1))
                as u16
        }
    };
    let since = exports.state.clock.now() - RECENT;
    let rows = match query.hotkey.as_deref().map(Hotkey::parse) {
        // No miner has a hotkey that is none.
        Some(Err(_)) => Vec::new(),
        Some(Ok(hotkey)) => db::invocations::list_recent(&exports.state.db, since, Some(&hotkey), limit).await?,
        None => db::invocations::list_recent(&exports.state.db, since, None, limit).await?,
    };
    let bytes = sheet(&rows).map_err(|error| ApiError::Internal(error.into()))?;
    let headers = [(CONTENT_TYPE, "text/csv".to_owned()), (CONTENT_DISPOSITION, attachment("recent.csv"))];
    Ok((headers, bytes).into_response())
}

fn sheet(rows: &[crate::domain::export::Invocation]) -> Result<Vec<u8>, Unprintable> {
    let mut sheet = Sheet::with_columns(&INVOCATION_COLUMNS[1..])?;
    for row in rows {
        sheet.push_attempt(row)?;
    }
    sheet.take()
}

fn attachment(name: &str) -> String {
    format!("attachment; filename=\"{name}\"")
}

/// The hour's digits and the kind, from the last part of the path.
fn file_name(file: &str) -> Option<(&str, ExportKind)> {
    let stem = file.strip_suffix(".csv")?;
    let (hour, kind) = match stem.split_once('-') {
        None => (stem, ExportKind::Invocations),
        Some((hour, "reports")) => (hour, ExportKind::Reports),
        Some((hour, "jobs")) => (hour, ExportKind::Jobs),
        Some(_) => return None,
    };
    digits(hour).then_some((hour, kind))
}

fn named(year: &str, month: &str, day: &str, hour: &str) -> Option<ExportHour> {
    if ![year, month, day, hour].into_iter().all(digits) {
        return None;
    }
    ExportHour::named(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?, hour.parse().ok()?)
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn plausible(hour: ExportHour, now: DateTime<Utc>) -> bool {
    let first: DateTime<Utc> = FIRST_HOUR.parse().expect("the constant is a time");
    (first..=now).contains(&hour.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_the_path_names_the_hour_and_the_kind() {
        let names = [
            ("04.csv", Some(("04", ExportKind::Invocations))),
            ("4-reports.csv", Some(("4", ExportKind::Reports))),
            ("23-jobs.csv", Some(("23", ExportKind::Jobs))),
            ("04", None),
            (".csv", None),
            ("-4.csv", None),
            ("04-.csv", None),
            ("04-other.csv", None),
            ("04-reports-jobs.csv", None),
            ("x4.csv", None),
        ];
        for (file, expected) in names {
            assert_eq!(file_name(file), expected, "{file}");
        }
    }
}
