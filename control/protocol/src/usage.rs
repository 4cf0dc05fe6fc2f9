//! The record of one attempt, as it travels from a gateway's log to Postgres.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{ApiKeyId, CallId, ChuteId, ImageId, InstanceId, InvocationId, UserId, WriterId};
use crate::principal::Bucket;
use crate::signing::Hotkey;

/// What is known of an attempt before it is sent; times are whole microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Admission {
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
    /// The image it runs.
    pub image: ImageId,
    /// The owner of that image.
    pub image_owner: UserId,
    /// Who called.
    pub user: UserId,
    /// With which key, if with one.
    pub key: Option<ApiKeyId>,
    /// The instance chosen.
    pub instance: InstanceId,
    /// The miner's place on the subnet.
    pub miner_uid: i32,
    /// The miner's hotkey.
    pub hotkey: Hotkey,
    /// When the attempt was admitted; fixed for good.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub started_at: DateTime<Utc>,
    /// Compute multiplier × boost.
    pub multiplier: f64,
    /// The allowance it counts against if it returns a chunk; none for free accounts.
    pub bucket: Option<Bucket>,
    /// The day of that allowance, where it is not the one on which the attempt began: its call was let in before midnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_day: Option<NaiveDate>,
    /// What kind of numbers it has.
    pub kind: Kind,
    /// Estimated prompt tokens: ⌈UTF-8 bytes of the prompt text / 4⌉; 0 where there is no prompt.
    pub estimate: u64,
    /// Mean calls in flight over the chute's instances when routed.
    pub mean_connections: f64,
    /// Diffusion steps asked for; 0 elsewhere.
    pub steps: u64,
    /// Whether this gateway had answered the same user the same prompt shortly before. Left out where it had not, so
    /// that the text of such a record is what it was before there was this field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reroll: bool,
}

/// Which numbers an attempt is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Tokens, answer relayed as a stream.
    Stream,
    /// Tokens, answer in one piece.
    Complete,
    /// Diffusion steps.
    Steps,
    /// Only time; metrics are null.
    Time,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The client has the whole answer.
    Finished,
    /// The instance or the way to it failed.
    Failed,
    /// The client went away.
    Aborted,
    /// The gateway died; written by whoever found its log.
    Lost,
}

/// Counted facts of an attempt; everything that needs memory of other calls is added by control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Prompt tokens.
    pub it: u64,
    /// Completion tokens.
    pub ot: u64,
    /// Content chunks relayed (streams), completion tokens otherwise.
    pub tokens: u64,
    /// Seconds to the first content chunk; streams only.
    pub ttft: Option<f64>,
    /// Seconds in all.
    pub tt: f64,
}

/// The final entry of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was known before it was sent.
    #[serde(flatten)]
    pub admission: Admission,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub completed_at: DateTime<Utc>,
    /// Why it failed, in the words of the closed list of reasons; none for an attempt that is paid.
    pub error: Option<String>,
    /// Whether the client got at least one chunk, so that the call counts against the quota.
    pub delivered: bool,
    /// What was counted.
    pub facts: Facts,
}

/// A sign of life of a writer without records: everything completed before `clock` has a sequence up to `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The writer's clock; attempts still in flight complete after it.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub clock: DateTime<Utc>,
    /// Highest sequence the writer has given out.
    pub sequence: u64,
    /// Whether the writer will write no more.
    pub closed: bool,
}

/// Fields of a final in the usage stream: its writer, its sequence, its record as JSON.
pub const FINAL_FIELDS: [&str; 3] = ["w", "s", "r"];

/// A record as its writer wrote it down. Who passes it on changes no byte of it: one that comes twice says the same
/// twice, whichever versions of this program it came through.
pub type Written = Box<RawValue>;

/// An entry of the usage stream; its record read, or as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<R = Box<Record>> {
    /// A finished attempt and its place in the writer's sequence (from 1, without gaps).
    Final {
        /// Whose sequence.
        writer: WriterId,
        /// Its place.
        sequence: u64,
        /// The attempt.
        record: R,
    },
    /// No final of the writer has a sequence from here through there.
    Gap {
        /// Whose sequence.
        writer: WriterId,
        /// The first one without a final.
        from: u64,
        /// The last one without.
        through: u64,
        /// Whether there were finals that damage to the log has destroyed; else none was ever given one of these.
        damaged: bool,
    },
    /// A sign of life.
    Beat {
        /// Whose.
        writer: WriterId,
        /// What it says.
        beat: Beat,
    },
}

/// The end of a gap, in the stream.
#[derive(Serialize, Deserialize)]
struct GapEnd {
    through: u64,
    damaged: bool,
}

/// An entry of the usage stream that nobody can read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A field is missing.
    #[error("usage entry has no field {0}")]
    Missing(&'static str),
    /// A field is not what it should be.
    #[error("usage entry has a bad field {0}")]
    Bad(&'static str),
    /// The record or beat is not JSON of the type.
    #[error("usage entry cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl<R: Serialize> Entry<R> {
    /// The fields of the stream entry: `w` writer, then `s` sequence and `r` record or `g` end of a gap, or `b` beat.
    ///
    /// # Panics
    /// Never: the types here always serialise.
    #[must_use]
    pub fn to_fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Final { writer, sequence, record } => {
                let [of, place, text] = FINAL_FIELDS;
                vec![
                    (of, writer.to_string()),
                    (place, sequence.to_string()),
                    (text, serde_json::to_string(record).expect("a record serialises")),
                ]
            }
            Self::Gap { writer, from, through, damaged } => vec![
                ("w", writer.to_string()),
                ("s", from.to_string()),
                (
                    "g",
                    serde_json::to_string(&GapEnd { through: *through, damaged: *damaged }).expect("a gap serialises"),
                ),
            ],
            Self::Beat { writer, beat } => {
                vec![("w", writer.to_string()), ("b", serde_json::to_string(beat).expect("a beat serialises"))]
            }
        }
    }
}

impl Entry {
    /// Reads a stream entry, field by field.
    ///
    /// # Errors
    /// When a field is missing or unreadable.
    pub fn read<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, Unreadable> {
        let wanted = |name| field(name).ok_or(Unreadable::Missing(name));
        let writer = parsed(wanted("w")?).ok_or(Unreadable::Bad("w"))?;
        if let Some(beat) = field("b") {
            return Ok(Self::Beat { writer, beat: serde_json::from_slice(beat)? });
        }
        let sequence = parsed(wanted("s")?).ok_or(Unreadable::Bad("s"))?;
        if let Some(end) = field("g") {
            let GapEnd { through, damaged } = serde_json::from_slice(end)?;
            return Ok(Self::Gap { writer, from: sequence, through, damaged });
        }
        Ok(Self::Final { writer, sequence, record: serde_json::from_slice(wanted("r")?)? })
    }
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A gateway's report that an instance does not answer as it should; an entry of the strikes stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// The chute.
    pub chute: ChuteId,
    /// The instance.
    pub instance: InstanceId,
    /// The reason, from the gateway's closed list.
    pub reason: String,
}
