//! Measures how fast a stream comes out of its instance, apart from how fast its client takes it.

use std::time::{Duration, Instant};

/// How long a stream is watched for one measurement, and how many chunks that must be.
const SPAN: Duration = Duration::from_millis(500);
const CHUNKS: u64 = 4;
/// The part of that time that may pass while the client takes what it gets: beyond it the client is what is measured.
const CLIENTS_PART: u32 = 10;

/// One stream's measurements.
#[derive(Debug, Default)]
pub(super) struct Flow {
    span: Option<Span>,
    /// When the last piece was handed on to the client; none while more is waited for.
    handed_on: Option<Instant>,
    pace: Option<Duration>,
}

#[derive(Debug)]
struct Span {
    since: Instant,
    /// Chunks that had come by then.
    chunks: u64,
    with_client: Duration,
}

impl Flow {
    /// More is waited for from now on, again or still.
    pub(super) fn waits(&mut self, now: Instant) {
        if let (Some(handed_on), Some(span)) = (self.handed_on.take(), &mut self.span) {
            span.with_client += now.saturating_duration_since(handed_on);
        }
    }

    /// A piece came, after which so many chunks have come in all.
    pub(super) fn came(&mut self, chunks: u64, now: Instant) {
        self.handed_on = Some(now);
        let Some(span) = &self.span else {
            self.span = (chunks > 0).then_some(Span { since: now, chunks, with_client: Duration::ZERO });
            return;
        };
        let (time, count) = (now.saturating_duration_since(span.since), chunks.saturating_sub(span.chunks));
        if time < SPAN || count < CHUNKS {
            return;
        }
        if span.with_client * CLIENTS_PART <= time {
            self.pace = Some(time.div_f64(count as f64));
        }
        self.span = Some(Span { since: now, chunks, with_client: Duration::ZERO });
    }

    /// The time of a chunk, if one was measured since this was last asked.
    pub(super) fn pace(&mut self) -> Option<Duration> {
        self.pace.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks that come at this pace, each of which the client takes so long for; what is measured.
    fn measured(chunks: u64, pace: u64, client: u64) -> Vec<Duration> {
        let (mut flow, mut now, mut paces) = (Flow::default(), Instant::now(), Vec::new());
        for number in 1..=chunks {
            flow.waits(now);
            now += Duration::from_millis(pace);
            flow.came(number, now);
            paces.extend(flow.pace());
            now += Duration::from_millis(client);
        }
        paces
    }

    #[test]
    fn a_steady_stream_is_measured_twice_a_second() {
        assert_eq!(measured(121, 10, 0), [Duration::from_millis(10); 2]);
    }

    #[test]
    fn a_slow_stream_is_measured_every_four_chunks() {
        assert_eq!(measured(13, 300, 0), [Duration::from_millis(300); 3]);
    }

    #[test]
    fn a_slow_client_is_not_taken_for_a_slow_instance() {
        assert!(measured(100, 10, 40).is_empty());
    }

    #[test]
    fn waiting_twice_counts_the_clients_time_once() {
        let (mut flow, start) = (Flow::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        flow.came(1, at(0));
        flow.waits(at(40));
        flow.waits(at(400));
        flow.came(6, at(500));
        assert_eq!(flow.pace(), Some(Duration::from_millis(100)));
        assert_eq!(flow.pace(), None);
    }

    #[test]
    fn time_before_the_first_chunk_counts_for_nothing() {
        let (mut flow, start) = (Flow::default(), Instant::now());
        flow.came(0, start);
        flow.came(1, start + Duration::from_secs(5));
        flow.came(9, start + Duration::from_secs(6));
        assert_eq!(flow.pace(), Some(Duration::from_millis(125)));
    }
}
