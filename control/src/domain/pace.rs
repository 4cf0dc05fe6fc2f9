//! How fast a chute works: the metrics of an attempt, measured against moving averages of earlier ones.

use chrono::{DateTime, Utc};
use protocol::usage::{Kind, Outcome, Record};
use serde::{Deserialize, Serialize};

/// Time constant of the averages, in seconds.
const WINDOW: f64 = 600.0;
/// Weight of a new sample: after a burst at least this, after a silence at most that.
const ALPHA: (f64, f64) = (0.000_1, 0.1);
/// Samples an average needs before anybody is measured by it.
const USABLE_AFTER: u64 = 25;

/// An exponential moving average whose weights follow the time between samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// Its value.
    pub value: f64,
    /// Samples so far.
    pub samples: u64,
    /// When the newest sample was taken.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub at: DateTime<Utc>,
}

/// The memory of one chute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Prompt tokens per second.
    pub ptps: Option<Average>,
    /// Completion tokens per second.
    pub otps: Option<Average>,
    /// Seconds per token, prompt and completion alike.
    pub spt: Option<Average>,
    /// Seconds per diffusion step.
    pub sps: Option<Average>,
}

/// What an invocation row says in `metrics`; attempts that are measured by time alone have none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    /// Of an attempt measured in tokens.
    Tokens(TokenMetrics),
    /// Of an attempt measured in diffusion steps.
    Steps(StepMetrics),
}

/// Numbers of an attempt measured in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenMetrics {
    /// Prompt tokens.
    pub it: u64,
    /// Completion tokens.
    pub ot: u64,
    /// Content chunks of a stream, completion tokens otherwise.
    pub tokens: u64,
    /// Seconds to the first content chunk; streams only.
    pub ttft: Option<f64>,
    /// Seconds in all.
    pub tt: f64,
    /// Completion tokens per second.
    pub tps: Option<f64>,
    /// Tokens of both kinds per second.
    pub ctps: Option<f64>,
    /// Mean calls in flight over the chute's instances when routed.
    pub mc: f64,
    /// Moving average of seconds per token.
    pub maspt: Option<f64>,
    /// Moving average of prompt tokens per second.
    pub ptps: Option<f64>,
    /// Moving average of completion tokens per second.
    pub otps: Option<f64>,
    /// Normalised compute seconds: what the attempt takes at the chute's average pace.
    pub nc: Option<f64>,
}

/// Numbers of an attempt measured in diffusion steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps asked for.
    pub steps: u64,
    /// Seconds in all.
    pub tt: f64,
    /// Steps per second.
    pub sps: Option<f64>,
    /// Mean calls in flight over the chute's instances when routed.
    pub mc: f64,
    /// Moving average of seconds per step.
    pub masps: Option<f64>,
}

impl Average {
    /// The average after one more sample, taken at `at`.
    fn after(held: Option<Self>, sample: f64, at: DateTime<Utc>) -> Self {
        let Some(held) = held else { return Self { value: sample, samples: 1, at } };
        let elapsed = (at - held.at).as_seconds_f64().max(0.0);
        let alpha = (1.0 - (-elapsed / WINDOW).exp()).clamp(ALPHA.0, ALPHA.1);
        let value = held.value + alpha * (sample - held.value);
        Self { value, samples: held.samples + 1, at: held.at.max(at) }
    }
}

impl Pace {
    /// Measures an attempt by what was known before it, then learns from it; only a whole answer teaches.
    pub fn measure(&mut self, record: &Record) -> Option<Metrics> {
        let metrics = self.metrics(record);
        match record.outcome {
            Outcome::Finished if record.delivered => self.learn(record),
            Outcome::Finished | Outcome::Failed | Outcome::Aborted | Outcome::Lost => {}
        }
        metrics
    }

    fn metrics(&self, record: &Record) -> Option<Metrics> {
        let (facts, admission) = (record.facts, &record.admission);
        let mc = admission.mean_connections;
        match admission.kind {
            Kind::Stream | Kind::Complete => Some(Metrics::Tokens(TokenMetrics {
                it: facts.it,
                ot: facts.ot,
                tokens: facts.tokens,
                ttft: facts.ttft,
                tt: facts.tt,
                tps: ratio(count(facts.ot), facts.tt),
                ctps: ratio(count(facts.it) + count(facts.ot), facts.tt),
                mc,
                maspt: usable(self.spt),
                ptps: usable(self.ptps),
                otps: usable(self.otps),
                nc: self.normalised(facts.it, facts.ot),
            })),
            Kind::Steps => Some(Metrics::Steps(StepMetrics {
                steps: admission.steps,
                tt: facts.tt,
                sps: ratio(count(admission.steps), facts.tt),
                mc,
                masps: usable(self.sps),
            })),
            Kind::Time => None,
        }
    }

    fn normalised(&self, it: u64, ot: u64) -> Option<f64> {
        let prompt = ratio(count(it), usable(self.ptps)?)?;
        let output = ratio(count(ot), usable(self.otps)?)?;
        Some(prompt + output)
    }

    fn learn(&mut self, record: &Record) {
        let (facts, at) = (record.facts, record.completed_at);
        let learn = |average: &mut Option<Average>, sample: Option<f64>| {
            if let Some(sample) = sample.filter(|sample| *sample > 0.0) {
                *average = Some(Average::after(*average, sample, at));
            }
        };
        match record.admission.kind {
            Kind::Stream => {
                let prefill = facts.ttft;
                learn(&mut self.ptps, prefill.and_then(|prefill| ratio(count(facts.it), prefill)));
                learn(&mut self.otps, prefill.and_then(|prefill| ratio(count(facts.ot), facts.tt - prefill)));
                learn(&mut self.spt, ratio(facts.tt, count(facts.it) + count(facts.ot)));
            }
            Kind::Complete => learn(&mut self.spt, ratio(facts.tt, count(facts.it) + count(facts.ot))),
            Kind::Steps => learn(&mut self.sps, ratio(facts.tt, count(record.admission.steps))),
            Kind::Time => {}
        }
    }
}

fn usable(average: Option<Average>) -> Option<f64> {
    average.filter(|average| average.samples >= USABLE_AFTER).map(|average| average.value)
}

/// A quotient that a reader of the export can use: of a positive divisor, finite.
fn ratio(dividend: f64, divisor: f64) -> Option<f64> {
    let quotient = dividend / divisor;
    (divisor > 0.0 && quotient.is_finite()).then_some(quotient)
}

#[expect(clippy::cast_precision_loss, reason = "token and step counts stay far below 2^53")]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
