//! The usage stream in Redis: entries come in, marks go out, what is safe is cut off.

use std::time::Duration;

use anyhow::Context;
use protocol::ids::WriterId;
use protocol::keys::{Key, USAGE_GROUP};
use protocol::record::batch::RawEntry;
use protocol::record::ingest::Wanted;
use redis::aio::ConnectionManager;
use redis::{Cmd, RedisError, RedisResult, Value, cmd, pipe};

/// Name of the one consumer; the duty's lock keeps it alone.
const CONSUMER: &str = "ingest_usage";
/// Most entries of one read. Gateways write no entry over 8 KiB.
const COUNT: usize = 4000;
/// How long a read waits for new entries.
const BLOCK: Duration = Duration::from_millis(250);

/// The consumer's end of the stream.
#[derive(Clone)]
pub struct UsageStream {
    /// Blocked while a read waits.
    reads: ConnectionManager,
    /// For what must not wait behind a read.
    writes: ConnectionManager,
}

impl UsageStream {
    /// A stream on two connections of its own, because reads block one.
    #[must_use]
    pub fn new(reads: ConnectionManager, writes: ConnectionManager) -> Self {
        Self { reads, writes }
    }

    /// The next entries, at most 4,000; a Redis that lost the group gets it again, and with it all entries it has.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn read(&self, wanted: Wanted) -> anyhow::Result<Vec<RawEntry>> {
        match self.request(wanted).await {
            Err(error) if lost_group(&error) => {
                self.create_group().await.context("creating the consumer group")?;
                let reply = self.request(wanted).await.context("reading the usage stream")?;
                entries(reply)
            }
            reply => entries(reply.context("reading the usage stream")?),
        }
    }

    /// Takes entries off the list of pending ones, then cuts off all that is neither pending nor to come.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn acknowledge(&self, entries: &[RawEntry]) -> anyhow::Result<()> {
        let Some(last) = entries.last() else { return Ok(()) };
        let mut acknowledge = command("XACK");
        for entry in entries {
            acknowledge.arg(&entry.id);
        }
        acknowledge.exec_async(&mut self.writes.clone()).await.context("acknowledging usage entries")?;
        let pending: RedisResult<(u64, Option<String>, Value, Value)> =
            command("XPENDING").query_async(&mut self.writes.clone()).await;
        let keep_from = match pending {
            Ok((_, Some(oldest), ..)) => oldest,
            Ok((_, None, ..)) => following(&last.id).context("reading an entry's id")?,
            Err(error) if lost_group(&error) => return Ok(()),
            Err(error) => return Err(error).context("asking for pending usage entries"),
        };
        cmd("XTRIM")
            .arg(Key::usage().as_str())
            .arg("MINID")
            .arg(keep_from)
            .exec_async(&mut self.writes.clone())
            .await
            .context("trimming the usage stream")
    }

    /// Publishes marks in place of all that were published before, in one step.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn replace_marks(&self, marks: &[(WriterId, u64)]) -> anyhow::Result<()> {
        let key = Key::usage_marks();
        let mut publish = pipe();
        publish.atomic().del(key.as_str()).ignore();
        if !marks.is_empty() {
            publish.hset_multiple(key.as_str(), &fields(marks)).ignore();
        }
        publish.exec_async(&mut self.writes.clone()).await.context("publishing marks")
    }

    /// Publishes some writers' marks.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn publish_marks(&self, marks: &[(WriterId, u64)]) -> anyhow::Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        let mut publish = cmd("HSET");
        publish.arg(Key::usage_marks().as_str()).arg(fields(marks));
        publish.exec_async(&mut self.writes.clone()).await.context("publishing marks")
    }

    async fn request(&self, wanted: Wanted) -> RedisResult<Value> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(USAGE_GROUP).arg(CONSUMER).arg("COUNT").arg(COUNT);
        match wanted {
            Wanted::Pending => read.arg("STREAMS").arg(Key::usage().as_str()).arg("0"),
            Wanted::New => read.arg("BLOCK").arg(BLOCK.as_millis()).arg("STREAMS").arg(Key::usage().as_str()).arg(">"),
        };
        read.query_async(&mut self.reads.clone()).await
    }

    async fn create_group(&self) -> RedisResult<()> {
        let created = cmd("XGROUP")
            .arg("CREATE")
            .arg(Key::usage().as_str())
            .arg(USAGE_GROUP)
            .arg("0")
            .arg("MKSTREAM")
            .exec_async(&mut self.writes.clone())
            .await;
        match created {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            created => created,
        }
    }
}

/// A command on the stream and its group.
fn command(name: &str) -> Cmd {
    let mut command = cmd(name);
    command.arg(Key::usage().as_str()).arg(USAGE_GROUP);
    command
}

fn fields(marks: &[(WriterId, u64)]) -> Vec<(String, u64)> {
    marks.iter().map(|(writer, mark)| (writer.to_string(), *mark)).collect()
}

fn lost_group(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP")
}

/// The smallest id above this one.
fn following(id: &str) -> Option<String> {
    let (millis, place) = id.split_once('-')?;
    let place: u64 = place.parse().ok()?;
    match place.checked_add(1) {
        Some(next) => Some(format!("{millis}-{next}")),
        None => Some(format!("{}-0", millis.parse::<u64>().ok()?.checked_add(1)?)),
    }
}

/// Reads the reply by hand, because the fields of a broken entry may be any bytes, or gone.
fn entries(reply: Value) -> anyhow::Result<Vec<RawEntry>> {
    let streams = match reply {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(streams) => streams.into_iter().map(|(_, entries)| entries).collect(),
        Value::Array(streams) => streams.into_iter().filter_map(second).collect::<Vec<_>>(),
        other => anyhow::bail!("the usage stream answered {other:?}"),
    };
    let mut found = Vec::new();
    for stream in streams {
        let Value::Array(entries) = stream else { anyhow::bail!("the usage stream answered without entries") };
        for entry in entries {
            found.push(raw_entry(entry).context("the usage stream answered with an entry without id")?);
        }
    }
    Ok(found)
}

fn second(value: Value) -> Option<Value> {
    let Value::Array(parts) = value else { return None };
    parts.into_iter().nth(1)
}

fn raw_entry(value: Value) -> Option<RawEntry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = String::from_utf8(bytes(parts.next()?)).ok()?;
    let fields = match parts.next() {
        Some(Value::Array(flat)) => {
            let mut flat = flat.into_iter().map(bytes);
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
        }
        Some(Value::Map(fields)) => fields.into_iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        _ => Vec::new(),
    };
    Some(RawEntry { id, fields })
}

fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.into_bytes(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_each_other() {
        assert_eq!(following("17-3").as_deref(), Some("17-4"));
        assert_eq!(following("17-18446744073709551615").as_deref(), Some("18-0"));
        assert_eq!(following("17"), None);
    }

    #[test]
    fn entries_are_read_in_both_protocols_whatever_their_fields_hold() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let listed = || {
            Value::Array(vec![
                Value::Array(vec![text("1-0"), Value::Array(vec![text("w"), Value::BulkString(vec![0xff])])]),
                Value::Array(vec![text("2-0"), Value::Nil]),
            ])
        };
        let expected = vec![
            RawEntry { id: "1-0".into(), fields: vec![(b"w".to_vec(), vec![0xff])] },
            RawEntry { id: "2-0".into(), fields: Vec::new() },
        ];
        let resp2 = Value::Array(vec![Value::Array(vec![text("usage"), listed()])]);
        let resp3 = Value::Map(vec![(text("usage"), listed())]);
        assert_eq!(entries(resp2).unwrap(), expected);
        assert_eq!(entries(resp3).unwrap(), expected);
        assert_eq!(entries(Value::Nil).unwrap(), Vec::new());
    }
}
