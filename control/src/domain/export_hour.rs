//! The hour of an export: named by the end of its window, as the files are.

use chrono::{DateTime, Datelike, Duration, NaiveDate, Timelike, Utc};
use protocol::record::hours;

/// The window `[end − 1 h, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportHour(DateTime<Utc>);

/// Which of the hourly files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportKind {
    /// Attempts.
    Invocations,
    /// Reports that users made of calls, and their confirmations.
    Reports,
    /// Long-running jobs.
    Jobs,
}

impl ExportHour {
    /// The hour whose window holds `at`.
    #[must_use]
    pub fn holding(at: DateTime<Utc>) -> Self {
        Self(hours::end_of(at))
    }

    /// The hour whose file holds a row that ended at `completed_at`: its own while that is open, else the oldest open.
    ///
    /// A clock that runs ahead puts it off by a day at most.
    #[must_use]
    pub fn of_row(completed_at: DateTime<Utc>, oldest_open: Self, now: DateTime<Utc>) -> Self {
        Self(hours::end_for_row(completed_at, oldest_open.0, now))
    }

    /// The hour that ends at `end`; nothing where that is not a whole hour.
    #[must_use]
    pub fn ending(end: DateTime<Utc>) -> Option<Self> {
        (Self::holding(end).0 - Duration::hours(1) == end).then_some(Self(end))
    }

    /// The hour of this name; nothing where there is no such date or hour.
    #[must_use]
    pub fn named(year: i32, month: u32, day: u32, hour: u32) -> Option<Self> {
        let end = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, 0, 0)?;
        Some(Self(end.and_utc()))
    }

    /// When it ends.
    #[must_use]
    pub fn end(self) -> DateTime<Utc> {
        self.0
    }

    /// The hour after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + Duration::hours(1))
    }

    /// The object that holds its file.
    #[must_use]
    pub fn key(self, kind: ExportKind) -> String {
        let end = self.0;
        let (year, month, day, hour) = (end.year(), end.month(), end.day(), end.hour());
        format!("invocations/{year:04}/{month:02}/{day:02}/{hour:02}{}.csv", kind.suffix())
    }

    /// The name a browser saves its file under.
    #[must_use]
    pub fn file_name(self, kind: ExportKind) -> String {
        format!("{}{}.csv", self.0.format("%Y-%m-%d-%H"), kind.suffix())
    }
}

impl std::fmt::Display for ExportHour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.format("%Y-%m-%dT%H").fmt(f)
    }
}

impl ExportKind {
    /// All kinds, in the order they are written.
    pub const ALL: [Self; 3] = [Self::Invocations, Self::Reports, Self::Jobs];

    /// Its name in the table of exports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invocations => "invocations",
            Self::Reports => "reports",
            Self::Jobs => "jobs",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Invocations => "",
            Self::Reports => "-reports",
            Self::Jobs => "-jobs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_file_is_named_by_the_end_of_its_window() {
        let hours = [
            ("2026-01-02T03:00:00Z", "invocations/2026/01/02/04.csv"),
            ("2026-01-02T03:59:59.999999Z", "invocations/2026/01/02/04.csv"),
            ("2026-01-02T04:00:00Z", "invocations/2026/01/02/05.csv"),
            ("2025-12-31T23:30:00Z", "invocations/2026/01/01/00.csv"),
        ];
        for (time, key) in hours {
            assert_eq!(ExportHour::holding(at(time)).key(ExportKind::Invocations), key);
        }
    }

    #[test]
    fn reports_and_jobs_lie_beside_the_invocations() {
        let hour = ExportHour::named(2026, 3, 4, 5).unwrap();
        assert_eq!(hour.key(ExportKind::Reports), "invocations/2026/03/04/05-reports.csv");
        assert_eq!(hour.key(ExportKind::Jobs), "invocations/2026/03/04/05-jobs.csv");
        assert_eq!(hour.file_name(ExportKind::Invocations), "2026-03-04-05.csv");
        assert_eq!(hour.file_name(ExportKind::Jobs), "2026-03-04-05-jobs.csv");
    }

    #[test]
    fn only_whole_hours_end_an_hour() {
        assert_eq!(ExportHour::ending(at("2026-03-04T05:00:00Z")), ExportHour::named(2026, 3, 4, 5));
        assert_eq!(ExportHour::ending(at("2026-03-04T05:00:00.000001Z")), None);
    }

    #[test]
    fn c19_dates_that_do_not_exist_name_no_hour() {
        for (year, month, day, hour) in
            [(2026, 2, 30, 1), (2026, 13, 1, 1), (2026, 0, 1, 1), (2026, 1, 1, 24), (2025, 2, 29, 0)]
        {
            assert_eq!(ExportHour::named(year, month, day, hour), None);
        }
    }
}
