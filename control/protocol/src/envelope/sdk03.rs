//! The envelope of SDK 0.3: how a call is written, and how its answer is read.

use std::collections::BTreeMap;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::cipher::{self, Iv};
use super::{EnvelopeError, Generation, Opener, Reply, SealedRequest, pickle};
use crate::sealing::InstanceKey;

/// A sealed path is at least this long before it is sealed, so that its length says little.
const PATH_LENGTH: usize = 24;
/// What fills a path up; the instance takes it off again.
pub(super) const PATH_FILLER: char = '?';

/// A call before it is sealed.
pub(super) struct Call<'a> {
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
    pub(super) passthrough: bool,
    pub(super) query: &'a [(String, String)],
}

/// Seals a call with an IV for its body and one for its path.
pub(super) fn seal(
    key: &InstanceKey,
    call: &Call<'_>,
    [body_iv, path_iv]: [Iv; 2],
) -> Result<SealedRequest, EnvelopeError> {
    let serialized = call.needs_pickle();
    let body = if serialized {
        cipher::encrypt_base64(key, &body_iv, call.pickled()?.as_bytes())
    } else {
        cipher::encrypt_base64(key, &body_iv, call.body)
    };
    let path = format!("{:?<PATH_LENGTH$}", call.path);
    Ok(SealedRequest {
        path: format!("/{}{}", hex::encode(path_iv), hex::encode(cipher::encrypt(key, &path_iv, path.as_bytes()))),
        body: (hex::encode(body_iv) + &body).into(),
        serialized,
        opener: Opener { generation: Generation::Sdk03, key: key.clone(), iv: body_iv },
    })
}

impl Call<'_> {
    /// Plain JSON has no place for a query, and an instance takes JSON that Python holds for false as no argument.
    fn needs_pickle(&self) -> bool {
        (self.passthrough && !self.query.is_empty()) || is_falsy(self.body)
    }

    /// `{"args":…,"kwargs":…}`, each base64 of a gzipped pickle. An absent body is `{}` to an engine, no argument to
    /// a function.
    fn pickled(&self) -> Result<String, EnvelopeError> {
        let absent = self.body.trim_ascii().is_empty();
        let body = if absent {
            Value::Object(Map::new())
        } else {
            serde_json::from_slice(self.body).map_err(EnvelopeError::Request)?
        };
        let (argument, keywords) = if self.passthrough {
            let params: Map<_, _> =
                self.query.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            (None, Map::from_iter([("json".to_owned(), body), ("params".to_owned(), params.into())]))
        } else {
            ((!absent).then_some(body), Map::new())
        };
        let args = compressed(&pickle::arguments(argument.as_ref()));
        let kwargs = compressed(&pickle::keywords(&keywords));
        Ok(format!(r#"{{"args":"{args}","kwargs":"{kwargs}"}}"#))
    }
}

pub(super) fn open_line(key: &InstanceKey, iv: &Iv, line: &[u8]) -> Result<Bytes, EnvelopeError> {
    cipher::decrypt_base64(key, iv, line.trim_ascii())
}

pub(super) fn open_reply(key: &InstanceKey, iv: &Iv, body: &[u8]) -> Result<Reply, EnvelopeError> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(EnvelopeError::Reply)?;
    match envelope {
        Envelope::Json { json } => Ok(Reply {
            status: 200,
            content_type: "application/json".into(),
            headers: Vec::new(),
            body: cipher::decrypt_base64(key, iv, json.as_bytes())?,
        }),
        Envelope::Typed { status_code, headers, media_type, body } => {
            let status = u16::try_from(status_code).ok().filter(|status| (200..600).contains(status));
            let status = status.ok_or(EnvelopeError::Status(status_code))?;
            let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            let content_type = named.map(|(_, value)| value.clone()).or(media_type);
            Ok(Reply {
                status,
                content_type: content_type.unwrap_or_else(|| "application/octet-stream".into()),
                headers: headers.into_iter().collect(),
                body: cipher::decrypt_base64(key, iv, body.as_bytes())?,
            })
        }
    }
}

/// The two forms of an answer; the base64 in them has nothing to escape, but who knows what a miner writes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Envelope {
    Json {
        json: String,
    },
    Typed {
        status_code: u64,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        media_type: Option<String>,
        body: String,
    },
}

/// Whether Python holds this JSON for false: nothing, `{}`, `[]`, `""`, `null`, `false`, or a zero.
fn is_falsy(json: &[u8]) -> bool {
    let json = json.trim_ascii();
    match json.first() {
        None | Some(b'n' | b'f') => true,
        Some(b'{' | b'[') => matches!(json[1..].trim_ascii_start().first(), Some(b'}' | b']')),
        Some(b'"') => json == b"\"\"",
        Some(b'-' | b'0'..=b'9') => {
            std::str::from_utf8(json).is_ok_and(|text| text.parse::<f64>().is_ok_and(|number| number == 0.0))
        }
        Some(_) => false,
    }
}

fn compressed(bytes: &[u8]) -> String {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("writing to memory does not fail");
    STANDARD.encode(encoder.finish().expect("writing to memory does not fail"))
}
