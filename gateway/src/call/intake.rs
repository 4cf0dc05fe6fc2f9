//! Reads request bodies within their bounds: each one, and all of them together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::downstream::{Downstream, Unread};
use crate::refusal::Refusal;

/// Memory is reserved in steps of this many bytes.
const STEP: usize = 16 << 10;

/// The memory that request bodies may take.
pub struct Intake {
    limit: usize,
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
    /// At most `limit` bytes each and `total` together.
    #[must_use]
    pub fn new(limit: usize, total: usize) -> Self {
        let steps = (total / STEP).clamp(1, Semaphore::MAX_PERMITS);
        Self { limit, steps: Arc::new(Semaphore::new(steps)) }
    }

    /// Reads the whole body; `announced` is its length as the head says, if it does.
    ///
    /// # Errors
    /// When it is too large, too slow, or there is no memory for it.
    pub async fn read(&self, client: &mut impl Downstream, announced: Option<u64>) -> Result<Body, NoBody> {
        let too_large = || NoBody::Refused(Refusal::BodyTooLarge { limit: self.limit });
        let announced = match announced.map(usize::try_from) {
            Some(Ok(length)) if length <= self.limit => length,
            Some(_) => return Err(too_large()),
            None => 0,
        };
        let mut memory = None;
        self.reserve(&mut memory, announced)?;
        if client.waits_for_continue() {
            client.ask().await.map_err(|_| NoBody::Gone)?;
        }
        let mut bytes = BytesMut::with_capacity(announced);
        while let Some(piece) = client.piece().await? {
            if bytes.len() + piece.len() > self.limit {
                return Err(too_large());
            }
            self.reserve(&mut memory, bytes.len() + piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        Ok(Body { bytes: bytes.freeze(), memory: Memory { _permit: memory } })
    }

    /// Grows the reservation to cover so many bytes.
    fn reserve(&self, memory: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), NoBody> {
        let held = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(STEP).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let overloaded = NoBody::Refused(Refusal::Overloaded);
        let Ok(more) = u32::try_from(more) else { return Err(overloaded) };
        let Ok(grown) = self.steps.clone().try_acquire_many_owned(more) else { return Err(overloaded) };
        match memory {
            Some(memory) => memory.merge(grown),
            None => *memory = Some(grown),
        }
        Ok(())
    }
}

impl From<Unread> for NoBody {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gone => Self::Gone,
            Unread::Timeout => Self::Refused(Refusal::BodyTimeout),
        }
    }
}

#[cfg(test)]
mod tests;
