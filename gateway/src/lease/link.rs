//! Whether Redis is there: heard within the time of a lease, and settled.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use protocol::lease::Redis;
use tokio::sync::watch;

/// What the desk heard of Redis last. Times are durations since the start of the process.
pub(super) struct Link {
    lifetime: Duration,
    /// When the last beat that was answered was sent, in microseconds; 0 before the first.
    heard: AtomicU64,
    settled: AtomicBool,
    gateways: AtomicU32,
    there: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            heard: AtomicU64::new(0),
            settled: AtomicBool::new(false),
            gateways: AtomicU32::new(1),
            there: watch::Sender::new(false),
        }
    }

    /// How long leases hold without a word from Redis.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// How much of the lease is left, so that a call does not wait longer than it lives.
    pub(super) fn left(&self, now: Duration) -> Duration {
        let heard = Duration::from_micros(self.heard.load(Ordering::Acquire));
        (heard + self.lifetime).saturating_sub(now)
    }

    /// Whether Redis is there.
    pub(super) fn redis(&self, now: Duration) -> Redis {
        if self.settled.load(Ordering::Acquire) && self.is_fresh(now) { Redis::There } else { Redis::Away }
    }

    /// Whether Redis was ever heard: before, nobody knows how many share the limits.
    pub(super) fn is_known(&self) -> bool {
        self.heard.load(Ordering::Acquire) > 0
    }

    /// Gateways alive when Redis was last heard.
    pub(super) fn gateways(&self) -> u32 {
        self.gateways.load(Ordering::Relaxed)
    }

    /// Whether Redis answers but does not give out anything yet; also so early that it may not have been asked.
    pub(super) fn is_settling(&self, now: Duration) -> bool {
        !self.settled.load(Ordering::Acquire) && (self.is_fresh(now) || now < self.lifetime)
    }

    /// Waits until Redis is there; whether it is in the end.
    pub(super) async fn wait(&self, longest: Duration) -> bool {
        let mut there = self.there.subscribe();
        let waiting = tokio::time::timeout(longest, there.wait_for(|there| *there));
        waiting.await.is_ok_and(|there| there.is_ok())
    }

    /// A beat that was sent then was answered.
    pub(super) fn hear(&self, sent: Duration, gateways: u32) {
        let micros = u64::try_from(sent.as_micros()).unwrap_or(u64::MAX);
        self.heard.store(micros.max(1), Ordering::Release);
        self.gateways.store(gateways.max(1), Ordering::Relaxed);
    }

    /// Whether everything held is claimed in a Redis that gives out slots.
    pub(super) fn settle(&self, settled: bool) {
        self.settled.store(settled, Ordering::Release);
        self.there.send_replace(settled);
    }

    fn is_fresh(&self, now: Duration) -> bool {
        let heard = self.heard.load(Ordering::Acquire);
        heard > 0 && now.saturating_sub(Duration::from_micros(heard)) < self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_holds_for_its_lifetime_from_the_sending_of_the_last_beat() {
        let link = Link::new(LIFETIME);
        assert!(!link.is_known());
        let sent = Duration::from_secs(7);
        assert_eq!(link.redis(sent), Redis::Away);
        link.hear(sent, 4);
        assert_eq!((link.redis(sent), link.gateways()), (Redis::Away, 4));
        assert!(link.is_settling(sent));
        assert!(link.is_known());
        link.settle(true);
        assert_eq!(link.redis(sent + LIFETIME - Duration::from_millis(1)), Redis::There);
        assert_eq!(link.redis(sent + LIFETIME), Redis::Away);
        assert_eq!(link.left(sent + LIFETIME / 4), LIFETIME * 3 / 4);
        assert_eq!(link.left(sent + 2 * LIFETIME), Duration::ZERO);
        assert!(!link.is_settling(sent + LIFETIME));
    }
}
