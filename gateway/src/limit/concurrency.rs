//! Counts calls in flight.

/// Calls in flight of one caller.
#[derive(Debug, Default)]
pub(super) struct AtOnce(u32);

impl AtOnce {
    /// Whether one more fits.
    pub(super) fn fits(&self, limit: u32) -> bool {
        self.0 < limit
    }

    /// Counts one more.
    pub(super) fn take(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    /// Counts one less.
    pub(super) fn release(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.0 == 0
    }
}
