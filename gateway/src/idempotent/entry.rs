//! What is known of a call that must not be made twice, and what it means for whoever asks again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use protocol::sealing::AnswerDigest;
use protocol::usage::Outcome;
use serde::{Deserialize, Serialize};

use super::Again;

/// An answer as its client got it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Its body, without comments of ours.
    pub body: Bytes,
}

/// A call that was made, or is being made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Of the whole request.
    pub(super) fingerprint: AnswerDigest,
    /// How far it is.
    pub(super) state: State,
}

/// How far a call is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// It runs, and its client has nothing of it.
    Running,
    /// It runs, and will be billed whatever becomes of its gateway.
    Begun,
    /// It has this answer.
    Answered(Answer),
    /// It was billed, and its answer is not here.
    NotKept,
}

/// What is written before the body.
#[derive(Serialize, Deserialize)]
struct Head {
    fingerprint: String,
    state: Word,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Running,
    Begun,
    Answered(u16),
    NotKept,
}

impl Entry {
    /// What a request with this fingerprint is told: the answer of before, or why there is none. `silent` is how long
    /// nobody has said that the call runs, `claim` how long it is believed to.
    pub(super) fn tell(self, fingerprint: &AnswerDigest, silent: Duration, claim: Duration) -> Result<Answer, Again> {
        if self.fingerprint != *fingerprint {
            return Err(Again::OtherRequest);
        }
        match self.state {
            State::Begun if silent >= claim => Err(Again::NotKept),
            State::Running | State::Begun => Err(Again::InFlight),
            State::Answered(answer) => Ok(answer),
            State::NotKept => Err(Again::NotKept),
        }
    }

    /// The entry as text: a line of JSON, then the body.
    pub(super) fn to_text(&self) -> Vec<u8> {
        let (state, fields, body) = match &self.state {
            State::Running => (Word::Running, vec![], Bytes::new()),
            State::Begun => (Word::Begun, vec![], Bytes::new()),
            State::NotKept => (Word::NotKept, vec![], Bytes::new()),
            State::Answered(answer) => {
                // A field that is no text was not set by us and is none that a client needs.
                let text = |(name, value): &(HeaderName, HeaderValue)| {
                    Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
                };
                let fields = answer.fields.iter().filter_map(text).collect();
                (Word::Answered(answer.status.as_u16()), fields, answer.body.clone())
            }
        };
        let head = Head { fingerprint: hex::encode(self.fingerprint.0), state, fields };
        let mut text = serde_json::to_vec(&head).expect("texts and numbers serialise");
        text.push(b'\n');
        text.extend_from_slice(&body);
        text
    }

    /// Reads what [`Entry::to_text`] wrote; none for anything else.
    pub(super) fn from_text(text: Vec<u8>) -> Option<Self> {
        let text = Bytes::from(text);
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&text[..end]).ok()?;
        let mut fingerprint = AnswerDigest([0; 32]);
        hex::decode_to_slice(&head.fingerprint, &mut fingerprint.0).ok()?;
        let field = |(name, value): &(String, String)| Some((name.parse().ok()?, value.parse().ok()?));
        let state = match head.state {
            Word::Running => State::Running,
            Word::Begun => State::Begun,
            Word::NotKept => State::NotKept,
            Word::Answered(status) => State::Answered(Answer {
                status: StatusCode::from_u16(status).ok()?,
                fields: head.fields.iter().map(field).collect::<Option<_>>()?,
                body: text.slice(end + 1..),
            }),
        };
        Some(Self { fingerprint, state })
    }
}

/// What stays of a call that is over: none if nothing was billed, so that it may be made anew.
///
/// `outcome` is that of the attempt whose answer reached the client, if one did; `kept` the answer, if it is all here.
pub(super) fn remains(outcome: Option<Outcome>, kept: Option<Answer>) -> Option<State> {
    match outcome {
        None | Some(Outcome::Failed) => None,
        Some(Outcome::Finished) => Some(kept.map_or(State::NotKept, State::Answered)),
        Some(Outcome::Aborted | Outcome::Lost) => Some(State::NotKept),
    }
}
