//! The bytes of an export: columns and dialect that auditors read, in Python's way of writing CSV.

use chrono::{DateTime, Utc};
use csv::{QuoteStyle, Terminator, WriterBuilder};
use protocol::ids::{CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId};
use protocol::signing::Hotkey;

use super::literal::{float, literal};
use super::pace::Metrics;

/// Columns of the hourly file of invocations.
pub const INVOCATION_COLUMNS: [&str; 16] = [
    "parent_invocation_id",
    "invocation_id",
    "chute_id",
    "chute_user_id",
    "function_name",
    "image_id",
    "image_user_id",
    "instance_id",
    "miner_uid",
    "miner_hotkey",
    "started_at",
    "completed_at",
    "error_message",
    "compute_multiplier",
    "bounty",
    "metrics",
];

/// Columns of the hourly file of reports.
pub const REPORT_COLUMNS: [&str; 6] =
    ["invocation_id", "user_id", "timestamp", "confirmed_at", "confirmed_by", "reason"];

/// Columns of the hourly file of jobs.
pub const JOB_COLUMNS: [&str; 16] = [
    "job_id",
    "chute_id",
    "version",
    "chutes_version",
    "method",
    "miner_uid",
    "miner_hotkey",
    "miner_coldkey",
    "instance_id",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
    "status",
    "compute_multiplier",
    "miner_terminated",
];

/// An attempt as the public sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The client's call.
    pub call: CallId,
    /// This attempt of it.
    pub invocation: InvocationId,
    /// The chute called.
    pub chute: ChuteId,
    /// Its owner.
    pub chute_owner: UserId,
    /// The cord's function.
    pub function: String,
    /// The image it ran.
    pub image: ImageId,
    /// The owner of that image.
    pub image_owner: UserId,
    /// The instance chosen.
    pub instance: InstanceId,
    /// The miner's place on the subnet.
    pub miner_uid: i32,
    /// The miner's hotkey.
    pub hotkey: Hotkey,
    /// When the attempt was admitted.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub completed_at: DateTime<Utc>,
    /// Why it is not paid; none for one that is.
    pub error: Option<String>,
    /// Compute multiplier × boost.
    pub multiplier: f64,
    /// Bounty claimed with it.
    pub bounty: i32,
    /// What was measured.
    pub metrics: Option<Metrics>,
}

/// A user's report of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The call reported.
    pub call: CallId,
    /// Who reported it.
    pub user: UserId,
    /// When.
    pub reported_at: DateTime<Utc>,
    /// When it was confirmed.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Who confirmed it.
    pub confirmed_by: Option<UserId>,
    /// Why.
    pub reason: String,
}

/// A file in the making: comma, `\r\n`, quotes only where they are needed.
pub struct Sheet(csv::Writer<Vec<u8>>);

/// A number that no reader can parse, or a sheet that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Unprintable {
    /// The multiplier is not a finite number.
    #[error("the compute multiplier of attempt {0} is not a finite number")]
    Multiplier(InvocationId),
    /// The metrics do not serialise.
    #[error("the metrics of attempt {0} do not serialise")]
    Metrics(InvocationId, #[source] serde_json::Error),
    /// The writer refused a line.
    #[error("a line of the sheet cannot be written")]
    Line(#[from] csv::Error),
}

impl Sheet {
    /// A sheet with its line of column names.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn with_columns(columns: &[&str]) -> Result<Self, Unprintable> {
        let mut writer = lines();
        writer.write_record(columns)?;
        Ok(Self(writer))
    }

    /// Adds a line of the hourly file, that is with the call's identifier in front.
    ///
    /// # Errors
    /// When the row holds a number that cannot be printed.
    pub fn push_invocation(&mut self, row: &Invocation) -> Result<(), Unprintable> {
        self.0.write_field(row.call.to_string())?;
        self.push_attempt(row)
    }

    /// Adds a line of the list of recent attempts, that is without the call's identifier.
    ///
    /// # Errors
    /// When the row holds a number that cannot be printed.
    pub fn push_attempt(&mut self, row: &Invocation) -> Result<(), Unprintable> {
        let multiplier = float(row.multiplier).ok_or(Unprintable::Multiplier(row.invocation))?;
        let metrics = row.metrics.as_ref().map(serde_json::to_value).transpose();
        let metrics = metrics.map_err(|error| Unprintable::Metrics(row.invocation, error))?;
        self.0.write_record([
            row.invocation.to_string(),
            row.chute.to_string(),
            row.chute_owner.to_string(),
            row.function.clone(),
            row.image.to_string(),
            row.image_owner.to_string(),
            row.instance.to_string(),
            row.miner_uid.to_string(),
            row.hotkey.to_string(),
            time(row.started_at),
            time(row.completed_at),
            row.error.clone().unwrap_or_default(),
            multiplier,
            row.bounty.to_string(),
            metrics.as_ref().map(literal).unwrap_or_default(),
        ])?;
        Ok(())
    }

    /// Adds a line of the file of reports.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn push_report(&mut self, row: &Report) -> Result<(), Unprintable> {
        self.0.write_record([
            row.call.to_string(),
            row.user.to_string(),
            time(row.reported_at),
            row.confirmed_at.map(time).unwrap_or_default(),
            row.confirmed_by.map(|user| user.to_string()).unwrap_or_default(),
            row.reason.clone(),
        ])?;
        Ok(())
    }

    /// Takes the bytes written so far, so that a long file need not be held as a whole.
    ///
    /// # Errors
    /// When the writer cannot hand its lines over.
    pub fn take(&mut self) -> Result<Vec<u8>, Unprintable> {
        let written = std::mem::replace(&mut self.0, lines());
        written.into_inner().map_err(|error| csv::Error::from(error.into_error()).into())
    }
}

fn lines() -> csv::Writer<Vec<u8>> {
    let mut dialect = WriterBuilder::new();
    dialect.terminator(Terminator::CRLF).quote_style(QuoteStyle::Necessary).from_writer(Vec::new())
}

/// A time as Python prints a naive `datetime`: the fraction is left out when it is zero.
fn time(at: DateTime<Utc>) -> String {
    if at.timestamp_subsec_micros() == 0 {
        at.format("%Y-%m-%d %H:%M:%S").to_string()
    } else {
        at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
    }
}

#[cfg(test)]
mod tests;
