//! Places on instances that all gateways share: an instance's concurrency, in slots.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::InstanceId;
use protocol::lease::holding::Verdict;
use protocol::lease::slots::Slots;
use protocol::lease::{Answer, Ask, Terms};

use super::{Book, Leases, Moment, Subject, Survey};
use crate::metrics::Limit;
use crate::sync::Map;

/// How long an instance is believed to be full without asking again.
const RECHECK: Duration = Duration::from_millis(50);

/// The places that this gateway holds on instances.
pub struct Instances {
    leases: Arc<Leases>,
    held: Map<InstanceId, Held>,
}

struct Held {
    slots: Slots,
    concurrency: u32,
}

/// A slot of an instance; given back when dropped.
pub struct Slot {
    instances: Arc<Instances>,
    instance: InstanceId,
}

impl Instances {
    /// No places.
    #[must_use]
    pub fn new(leases: Arc<Leases>) -> Self {
        Self { leases, held: Map::default() }
    }

    /// How many calls this gateway may have on an instance, as far as is known without asking.
    #[must_use]
    pub fn places(&self, instance: InstanceId, concurrency: u32) -> u32 {
        let now = self.leases.moment().with(terms(concurrency));
        let Some(held) = self.held.get(&instance) else { return concurrency };
        match held.slots.test(now) {
            Verdict::Full => u32::try_from(held.slots.used()).unwrap_or(u32::MAX),
            Verdict::Fits | Verdict::Ask | Verdict::Unknown => concurrency,
        }
    }

    /// Takes a slot, asking for one if need be; none when the instance is full.
    pub async fn take(self: &Arc<Self>, instance: InstanceId, concurrency: u32) -> Option<Slot> {
        let mut patience = self.leases.patience();
        let mut verdict = self.try_take(instance, concurrency, self.leases.moment());
        while verdict == Verdict::Ask && patience.ask(vec![Subject::Instance(instance)]).await {
            verdict = self.try_take(instance, concurrency, self.leases.moment());
        }
        self.leases.count(Limit::Instance, patience.has_asked());
        (verdict == Verdict::Fits).then(|| Slot { instances: Arc::clone(self), instance })
    }

    fn try_take(&self, instance: InstanceId, concurrency: u32, moment: Moment) -> Verdict {
        let now = moment.with(terms(concurrency));
        let mut held = self.held.entry(instance).or_insert_with(|| Held { slots: Slots::default(), concurrency });
        held.concurrency = concurrency;
        let verdict = held.slots.test(now);
        match verdict {
            Verdict::Fits => held.slots.take(now),
            Verdict::Full | Verdict::Ask | Verdict::Unknown => held.slots.missed(now),
        }
        self.nudge_if_due(instance, &mut held, moment);
        verdict
    }

    fn release(&self, instance: InstanceId) {
        let moment = self.leases.moment();
        if let Some(mut held) = self.held.get_mut(&instance) {
            let now = moment.with(terms(held.concurrency));
            held.slots.release(now);
            self.nudge_if_due(instance, &mut held, moment);
        }
    }

    fn nudge_if_due(&self, instance: InstanceId, held: &mut Held, moment: Moment) {
        let now = moment.with(terms(held.concurrency));
        if held.slots.is_due(now) && !self.leases.nudge(Subject::Instance(instance)) {
            held.slots.unanswered();
        }
    }

    /// Forgets instances of which nothing is held.
    pub fn sweep(&self) {
        self.held.retain(|_, held| !held.slots.is_idle());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.instances.release(self.instance);
    }
}

impl Book for Instances {
    fn ask(&self, subject: &Subject, waiting: u64, moment: Moment) -> Option<Ask> {
        let Subject::Instance(instance) = subject else { return None };
        let mut held = self.held.get_mut(instance)?;
        let now = moment.with(terms(held.concurrency));
        Some(held.slots.ask(waiting, now))
    }

    fn answer(&self, subject: &Subject, asked: &Ask, answer: Option<&Answer>, moment: Moment) {
        let Subject::Instance(instance) = subject else { return };
        let Some(mut held) = self.held.get_mut(instance) else { return };
        let now = moment.with(terms(held.concurrency));
        match answer {
            Some(answer) => held.slots.answer(asked, answer, now),
            None => held.slots.unanswered(),
        }
    }

    fn survey(&self, all: bool, moment: Moment, survey: &mut Survey) {
        for mut held in self.held.iter_mut() {
            let now = moment.with(terms(held.concurrency));
            survey.ready += held.slots.holding().free();
            survey.used += held.slots.used();
            if held.slots.is_due(now) || (all && !held.slots.is_idle()) {
                survey.due.push(Subject::Instance(*held.key()));
            }
        }
    }

    fn lapse(&self) {
        self.held.iter_mut().for_each(|mut held| held.slots.lapse());
    }

    fn close(&self) {
        self.held.iter_mut().for_each(|mut held| held.slots.close());
    }
}

fn terms(concurrency: u32) -> Terms {
    Terms { limit: concurrency.into(), linger: Duration::ZERO, recheck: RECHECK, keen: RECHECK, ready: 1, shared: true }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
