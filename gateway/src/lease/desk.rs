//! The duty that speaks with Redis for all leases: beats, questions, loads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use anyhow::Context;
use pingora::server::ShutdownWatch;
use protocol::ids::WriterId;
use protocol::lease::{Ask, DEAD_AFTER, Redis, SETTLE};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::store::{Heard, Store};
use super::{Book, Instances, Leases, Loads, Moment, Question, Questions, Subject, Survey};
use crate::limit::{Limits, Quota};
use crate::metrics::Limit;

/// Between two beats, and between two looks at what is due.
const BEAT: Duration = Duration::from_millis(250);
/// Before another connection is tried.
const RETRY: Duration = Duration::from_millis(100);
/// Limits in one question.
const BATCH: usize = 128;

/// Speaks with Redis.
pub struct Desk {
    leases: Arc<Leases>,
    questions: tokio::sync::Mutex<Questions>,
    limits: Arc<Limits>,
    quota: Arc<Quota>,
    instances: Arc<Instances>,
    loads: Arc<Loads>,
    client: redis::Client,
    gateway: WriterId,
}

/// What one time at the desk remembers.
struct Shift<'a> {
    desk: &'a Desk,
    store: Store,
    /// Of the last question; the first of a process is 1.
    sequence: &'a mut u64,
    /// When the last beat was answered.
    heard: &'a mut Option<Duration>,
    /// For how long Redis had been settling or settled then.
    age: &'a mut Duration,
    /// Whether Redis gave out slots when it was last heard.
    is_settled: bool,
    /// Limits to ask about when nothing is more urgent.
    due: VecDeque<Subject>,
    /// Whether everything held was asked for on this connection, or is due: questions may have been lost with the one
    /// before.
    is_surveyed: bool,
}

/// Limits to ask about, with the number of calls that wait for each.
type Batch = HashMap<Subject, u64, RandomState>;

impl Desk {
    /// A desk that serves these.
    #[must_use]
    pub fn new(
        leases: Arc<Leases>,
        questions: Questions,
        (limits, quota, instances): (Arc<Limits>, Arc<Quota>, Arc<Instances>),
        loads: Arc<Loads>,
        client: redis::Client,
        gateway: WriterId,
    ) -> Arc<Self> {
        let questions = tokio::sync::Mutex::new(questions);
        Arc::new(Self { leases, questions, limits, quota, instances, loads, client, gateway })
    }

    /// Serves until told to stop; then gives back what is kept ready.
    pub async fn run(self: Arc<Self>, mut stop: ShutdownWatch) {
        let mut questions = self.questions.lock().await;
        let (mut sequence, mut heard, mut age) = (0, None, Duration::ZERO);
        let mut told_of = None;
        loop {
            let serving = async {
                let store = Store::connect(&self.client, self.gateway).await?;
                let (sequence, heard, age) = (&mut sequence, &mut heard, &mut age);
                let mut shift = Shift {
                    desk: &self,
                    store,
                    sequence,
                    heard,
                    age,
                    is_settled: false,
                    due: VecDeque::new(),
                    is_surveyed: false,
                };
                shift.serve(&mut questions, &mut stop).await
            };
            match serving.await {
                Ok(()) => return,
                // Once until it is heard again.
                Err(error) if told_of != Some(heard) => {
                    tracing::warn!(error = format!("{error:#}"), "leases cannot be renewed");
                    told_of = Some(heard);
                }
                Err(_) => {}
            }
            tokio::select! {
                () = told(&mut stop) => return,
                () = sleep(RETRY) => {}
            }
            self.publish_state();
            if self.leases.moment().redis == Redis::Away {
                self.loads.hear(&[]);
            }
        }
    }

    fn books(&self) -> [(Limit, &dyn Book); 3] {
        [(Limit::Caller, &*self.limits), (Limit::Quota, &*self.quota), (Limit::Instance, &*self.instances)]
    }

    fn book(&self, subject: &Subject) -> &dyn Book {
        match subject {
            Subject::Rate(..) | Subject::AtOnce(..) => &*self.limits,
            Subject::Quota(..) => &*self.quota,
            Subject::Instance(_) => &*self.instances,
        }
    }

    /// What is due, or with `all` everything that is held.
    fn survey(&self, all: bool, moment: Moment) -> Vec<Subject> {
        let mut due = Vec::new();
        for (limit, book) in self.books() {
            let mut survey = Survey::default();
            book.survey(all, moment, &mut survey);
            self.leases.metrics.limits.set_slots(limit, survey.used, survey.ready);
            due.append(&mut survey.due);
        }
        due
    }

    fn publish_state(&self) {
        let moment = self.leases.moment();
        self.leases.metrics.limits.set_state(moment.redis == Redis::There, moment.gateways);
    }
}

impl Shift<'_> {
    async fn serve(&mut self, questions: &mut Questions, stop: &mut ShutdownWatch) -> anyhow::Result<()> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        loop {
            // However much is due, a beat waits for a few questions at most.
            tokio::select! {
                biased;
                () = told(stop) => return self.close().await,
                _ = beat.tick() => self.beat().await?,
                // The sender lives as long as the desk does.
                _ = questions.0.recv_many(&mut waiting, BATCH) => {
                    self.answer(waiting.drain(..)).await?;
                    self.ask_due().await?;
                }
                () = std::future::ready(()), if !self.due.is_empty() => self.ask_due().await?,
            }
        }
    }

    /// Says that we are there, looks what is due, and exchanges loads.
    async fn beat(&mut self) -> anyhow::Result<()> {
        let leases = &self.desk.leases;
        let sent = leases.since.elapsed();
        let Heard { known, age, alive } = self.store.beat().await?;
        let missed = self.heard.is_none_or(|heard| sent.saturating_sub(heard) > leases.link.lifetime().min(DEAD_AFTER));
        if missed {
            self.desk.books().into_iter().for_each(|(_, book)| book.lapse());
        }
        let counted = u32::try_from(alive.len()).unwrap_or(u32::MAX);
        // In a Redis that was emptied the others may not have been heard yet.
        let gateways = if age < DEAD_AFTER { counted.max(leases.link.gateways()) } else { counted };
        leases.link.hear(sent, gateways);
        // Redis may have lost our claims or given them to others.
        let doubtful = !known || missed || age <= *self.age;
        if doubtful {
            leases.link.settle(false);
            tracing::info!(gateways = alive.len(), settled = age >= SETTLE, "leases are renewed");
        }
        if doubtful || !self.is_surveyed {
            self.due = self.desk.survey(true, leases.moment()).into();
            self.is_surveyed = true;
        } else if self.due.is_empty() {
            self.due = self.desk.survey(false, leases.moment()).into();
        }
        (*self.heard, *self.age, self.is_settled) = (Some(sent), age, age >= SETTLE);
        self.settle_if_asked();
        self.desk.publish_state();
        let others: Vec<WriterId> = alive.into_iter().filter(|gateway| *gateway != self.desk.gateway).collect();
        let loads = self.store.exchange(&self.desk.loads.tell(), &others).await?;
        self.desk.loads.hear(&loads);
        Ok(())
    }

    /// Asks what calls wait for, and what they found to be due.
    async fn answer(&mut self, questions: impl Iterator<Item = Question>) -> anyhow::Result<()> {
        let mut batch = Batch::default();
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        for question in questions {
            for subject in question.subjects {
                *batch.entry(subject).or_default() += u64::from(question.answered.is_some());
            }
            waiting.extend(question.answered);
        }
        let batch: Vec<(Subject, u64)> = batch.into_iter().collect();
        for part in batch.chunks(BATCH) {
            self.ask(part).await?;
        }
        for call in waiting {
            // A call that does not wait any more needs no answer.
            let _ = call.send(());
        }
        Ok(())
    }

    /// Asks some of what is due.
    async fn ask_due(&mut self) -> anyhow::Result<()> {
        if self.due.is_empty() {
            return Ok(());
        }
        let some = self.due.len().min(BATCH);
        let batch: Vec<(Subject, u64)> = self.due.drain(..some).map(|subject| (subject, 0)).collect();
        self.ask(&batch).await?;
        self.settle_if_asked();
        Ok(())
    }

    /// Slots are given out here once everything held is claimed in a Redis that gives them out.
    fn settle_if_asked(&self) {
        if self.due.is_empty() {
            self.desk.leases.link.settle(self.is_settled);
        }
    }

    async fn ask(&mut self, batch: &[(Subject, u64)]) -> anyhow::Result<()> {
        let (desk, leases) = (self.desk, &self.desk.leases);
        let moment = leases.moment();
        let (mut subjects, mut asks) = (Vec::new(), Vec::<Ask>::new());
        for (subject, waiting) in batch {
            if let Some(ask) = desk.book(subject).ask(subject, *waiting, moment) {
                subjects.push(*subject);
                asks.push(ask);
            }
        }
        if asks.is_empty() {
            return Ok(());
        }
        *self.sequence += 1;
        let answered = self.store.ask(*self.sequence, moment.gateways, &subjects, &asks).await;
        let took = leases.since.elapsed().saturating_sub(moment.time);
        leases.metrics.limits.count_asked(answered.is_ok(), took);
        let answers = answered.as_ref().ok().map(|(_, answers)| answers);
        for (number, (subject, ask)) in subjects.iter().zip(&asks).enumerate() {
            let answer = answers.and_then(|answers| answers.get(number));
            desk.book(subject).answer(subject, ask, answer, leases.moment());
        }
        let (settled, _) = answered?;
        if !settled {
            self.is_settled = false;
            leases.link.settle(false);
        }
        Ok(())
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        for (_, book) in self.desk.books() {
            book.close();
        }
        self.due = self.desk.survey(true, self.desk.leases.moment()).into();
        while !self.due.is_empty() {
            self.ask_due().await.context("giving back slots")?;
        }
        Ok(())
    }
}

/// Waits until told to stop.
async fn told(stop: &mut ShutdownWatch) {
    // An error means that nobody is left to tell us.
    let _ = stop.wait_for(|stop| *stop).await;
}
