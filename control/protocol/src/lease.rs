//! Limits that hold across gateways: what Redis keeps of them, and what a gateway decides alone.
//!
//! Every limit is a number of *slots*. A call at once holds a slot until it ends, a call per minute until 60 to 61 s
//! after it began, a call of a daily allowance until control has counted it, a call on an instance until its attempt
//! ends. Redis keeps per limit one *claim* per gateway: how many slots that gateway uses or keeps ready. It gives out
//! a slot only while all claims together stay below the limit. So limits hold exactly, whatever the clocks of the
//! gateways say: calls let in within any 60 s hold different slots at the end of them.
//!
//! A gateway takes and gives back slots of its claim without asking ([`holding`]), and asks for more before it runs
//! out. A claim is a whole state with a sequence, not a change, so that an answer that was lost, a question that was
//! delayed and a Redis that lost everything are all healed by the next question. Claims live as long as their gateway
//! is heard: each beats in one sorted set.
//!
//! # The bound
//! * While Redis is there: no call over any limit.
//! * What is refused too early: other gateways keep at most half of what is left ready (each one of [`parts`] of it), and
//!   give that back within [`REFRESH`] of the moment it was too much; a minute lasts up to 61 s.
//! * Redis away: a gateway that did not hear it for the time of its lease uses up what it holds ready, and from then on
//!   lets in at most [`share`] of a limit. All together at most `limit + (gateways - 1) × share` in the minute in which
//!   Redis left, `gateways × share` afterwards. An allowance that is worth money has no share: only what is ready.
//! * Redis emptied, restarted on what it had saved, or without a word from any gateway for [`SILENT_AFTER`]: it gives out
//!   nothing for [`SETTLE`], in which gateways claim again what they hold and otherwise keep to their share. What takes
//!   longer to claim, of very many limits at once, may be given out twice.
//! * A gateway that died leaves its part of an allowance, with what it kept ready, unused until [`Terms::linger`] is over;
//!   what of its calls is not counted by then, or by the time at which Redis loses its contents, comes on top.
//! * A gateway that Redis does not hear for [`DEAD_AFTER`], while it hears others, loses its claims, those per minute a
//!   minute later: if it lives, the calls that it still has in flight come on top of a limit of calls at once.

pub mod allowance;
pub mod claims;
pub mod holding;
pub mod rate;
pub mod script;
pub mod slots;
mod window;

use std::time::Duration;

/// After this time without a beat a gateway counts as gone.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);
/// How long a Redis that cannot know what is held gives out nothing, so that gateways can claim it: longer than they take
/// to connect.
pub const SETTLE: Duration = Duration::from_secs(2);
/// After this time without a beat of any gateway Redis settles anew. Of two gateways that come back from a shorter
/// silence, one within [`SETTLE`] of the other, none has lost its claims.
pub const SILENT_AFTER: Duration = DEAD_AFTER.saturating_sub(SETTLE);
/// How long beats are remembered, longer than any claim outlives its gateway.
pub const FORGET: Duration = Duration::from_hours(2);
/// How old an answer may be while slots are kept ready.
pub const REFRESH: Duration = Duration::from_millis(500);
/// How old an answer may be while slots are used: well below the life of a claim that nobody renews.
pub const RENEW: Duration = Duration::from_mins(2);
/// How long Redis keeps claims of which nobody speaks, beyond what [`Terms::linger`] asks for.
pub const LIFE: Duration = Duration::from_mins(10);

/// The rules of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Slots there are.
    pub limit: u64,
    /// How long claims outlive a gateway that is gone.
    pub linger: Duration,
    /// How long "none is left" is believed; it is asked again, ahead of the next call, after half of that.
    pub recheck: Duration,
    /// For how long after a call found no slot they are asked for ahead, as they come free elsewhere.
    pub keen: Duration,
    /// Slots kept ready, as a multiple of what the busiest second of the last ones took.
    pub ready: u32,
    /// Whether a gateway that cannot reach Redis may use its share of the limit.
    pub shared: bool,
}

/// What a gateway asks of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Slots it uses or keeps; granted whatever the others hold.
    pub must: u64,
    /// Slots it wants for calls that wait.
    pub need: u64,
    /// Slots it wants to keep ready beyond that.
    pub spare: u64,
    /// Slots there are.
    pub limit: u64,
    /// Slots that are used up for good and belong to nobody.
    pub base: u64,
    /// In how many milliseconds the first of the used slots comes free, if that is known.
    pub next: Option<u64>,
    /// How long the claim outlives its gateway, in milliseconds.
    pub linger: u64,
}

/// What Redis answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Slots that the gateway now holds.
    pub held: u64,
    /// Slots that nobody holds; negative when more are held than there are.
    pub left: i64,
    /// In how many milliseconds the first used slot of another gateway comes free, if one said so.
    pub next: Option<u64>,
}

/// Whether a gateway can speak for its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redis {
    /// It heard Redis within the time of its lease.
    There,
    /// It did not, or Redis is empty and settling.
    Away,
}

/// A gateway's part of a limit while it cannot ask: rounded up, so that a small limit leaves nobody without.
#[must_use]
pub fn share(limit: u64, gateways: u32) -> u64 {
    limit.div_ceil(u64::from(gateways.max(1)))
}

/// One of so many parts of what is left is what a gateway may keep ready. A lone one may keep all.
#[must_use]
pub fn parts(gateways: u32) -> u64 {
    if gateways > 1 { 2 * u64::from(gateways) } else { 1 }
}

#[cfg(test)]
mod tests;
