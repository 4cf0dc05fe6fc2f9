//! Reads request bodies within their bounds: each one, and all of them together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::downstream::{Downstream, Unread};
use crate::refusal::{Refusal, Scarce};

/// Memory is counted in steps of this many bytes.
const STEP: usize = 16 << 10;
/// Room that a body gets with its first bytes, if it is not announced smaller.
const FIRST_ROOM: usize = 64 << 10;

/// The memory that request bodies may take.
pub struct Intake {
    limit: usize,
    within: Duration,
    steps: Arc<Semaphore>,
}

/// A body and the memory it holds.
pub struct Body {
    /// What the client sent.
    pub bytes: Bytes,
    /// The memory, to be kept as long as anything made from the bytes.
    pub memory: Memory,
}

/// Reserved memory; none for an empty body.
pub struct Memory {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Why there is no body to work on.
#[derive(Debug, PartialEq)]
pub enum NoBody {
    /// The client must be told.
    Refused(Refusal),
    /// The client went away.
    Gone,
}

impl Intake {
    /// At most `limit` bytes each and `total` together; each has to be there `within` this time.
    #[must_use]
    pub fn new(limit: usize, total: usize, within: Duration) -> Self {
        let steps = (total / STEP).clamp(1, Semaphore::MAX_PERMITS);
        Self { limit, within, steps: Arc::new(Semaphore::new(steps)) }
    }

    /// Reads the whole body; `announced` is its length as the head says, if it does.
    ///
    /// # Errors
    /// When it is too large, too slow, or there is no memory for it.
    pub async fn read(&self, client: &mut impl Downstream, announced: Option<u64>) -> Result<Body, NoBody> {
        let expected = match announced.map(usize::try_from) {
            Some(Ok(length)) if length <= self.limit => length,
            Some(_) => return Err(self.too_large()),
            None => self.limit,
        };
        let reading = tokio::time::timeout(self.within, self.collect(client, expected));
        reading.await.unwrap_or(Err(NoBody::Refused(Refusal::BodyTimeout)))
    }

    /// Takes memory as bytes arrive: whoever only announces them holds none.
    async fn collect(&self, client: &mut impl Downstream, expected: usize) -> Result<Body, NoBody> {
        if client.waits_for_continue() {
            client.ask().await.map_err(|_| NoBody::Gone)?;
        }
        let mut memory = None;
        let mut bytes = Vec::new();
        while let Some(piece) = client.piece().await? {
            let needed = bytes.len() + piece.len();
            if needed > self.limit {
                return Err(self.too_large());
            }
            if needed > bytes.capacity() {
                let room = room(bytes.capacity(), expected).max(needed);
                self.reserve(&mut memory, room)?;
                bytes.reserve_exact(room - bytes.len());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Body { bytes: bytes.into(), memory: Memory { _permit: memory } })
    }

    fn too_large(&self) -> NoBody {
        NoBody::Refused(Refusal::BodyTooLarge { limit: self.limit })
    }

    /// Grows the reservation to cover so many bytes.
    fn reserve(&self, memory: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), NoBody> {
        let held = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(STEP).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let overloaded = NoBody::Refused(Refusal::Overloaded(Scarce::Bodies));
        let Ok(more) = u32::try_from(more) else { return Err(overloaded) };
        let Ok(grown) = self.steps.clone().try_acquire_many_owned(more) else { return Err(overloaded) };
        match memory {
            Some(memory) => memory.merge(grown),
            None => *memory = Some(grown),
        }
        Ok(())
    }
}

/// The room after the one that is full: twice as much, so that a body is copied few times, but no more than expected.
fn room(full: usize, expected: usize) -> usize {
    full.saturating_mul(2).max(FIRST_ROOM).min(expected)
}

impl From<Unread> for NoBody {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gone => Self::Gone,
            Unread::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

#[cfg(test)]
mod tests;
