//! Tries instances one after the other until one answers or the call is given up.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use protocol::ids::InvocationId;
use protocol::usage::{Admission, Outcome, Strike};
use tokio::task::spawn_blocking;

use super::answer::{content_type, whole};
use super::downstream::{Downstream, Gone};
use super::line::Line;
use super::opening::{Opening, Said, Unopened, open};
use super::place::Place;
use super::running::Running;
use super::upstream::Instances;
use super::{Calls, HEAVY, Job};
use crate::auth::Via;
use crate::directory::Target;
use crate::instance::request::{Outgoing, outgoing};
use crate::instance::verdict::{Attempts, Failure, Next, Verdict};
use crate::refusal::{Refusal, Scarce};
use crate::usage::LogUnwritable;
use crate::usage::meter::Meter;

/// What became of one attempt.
enum Attempt<'a> {
    /// The instance had an answer; the client has it, whole or broken off, or nothing of it.
    Over(Option<Outcome>),
    /// The client went away before there was an answer.
    Left,
    /// Nothing went to the client; the attempt has still to be recorded.
    Failed {
        /// What came instead of an answer.
        unopened: Unopened,
        /// The attempt.
        running: Box<Running>,
        /// Who takes the call over, if that is known already.
        successor: Option<Place<'a>>,
    },
    /// It could not even begin.
    Refused(Refusal),
}

/// What waiting for an answer came to.
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made, once per attempt")]
enum Waited<'a, A> {
    /// The instance has an answer, or none that the client should get.
    Opened(Result<Opening<A>, Unopened>),
    /// The instance's time is over, and another takes the call.
    Overtaken(Place<'a>),
    /// The call's time is over; whether the instance had its own.
    TooLate(bool),
}

impl<I: Instances> Calls<I> {
    /// Answers a call that was let in; how the attempt ended whose answer reached the client, if one did.
    pub(super) async fn attempt(&self, mut job: Job, client: &mut impl Downstream) -> Option<Outcome> {
        let route = job.entry.route.clone();
        let until = Instant::now() + self.patience.first_chunk;
        let mut attempts = Attempts::default();
        let mut next = self.places.first(&route).await;
        let mut line = self.line(&job, client);
        let refusal = loop {
            let mut place = match next {
                Ok(place) => place,
                Err(shortage) => break attempts.refusal(route.chute.id, shortage),
            };
            let (unopened, running, successor) =
                match self.try_once(&mut job, &mut place, &attempts, until, &mut line).await {
                    Attempt::Failed { unopened, running, successor } => (unopened, running, successor),
                    Attempt::Refused(refusal) => break refusal,
                    Attempt::Left => {
                        self.metrics.requests.left.inc();
                        return None;
                    }
                    Attempt::Over(outcome) => {
                        // Another instance had an answer to the same request, so the empty ones were at fault.
                        attempts.empty_ones().for_each(|instance| self.places.failed(instance));
                        if let (Some(prompt), Some(Outcome::Finished | Outcome::Aborted)) = (job.prompt, outcome) {
                            self.rerolls.answered(prompt, Instant::now());
                        }
                        return outcome;
                    }
                };
            let verdict = attempts.failed(place.instance, &unopened.failure);
            job.entry.quota = running.finish(Outcome::Failed, Some(verdict.reason.as_str()));
            self.draw_conclusions(&job, &mut place, &verdict);
            match verdict.next {
                Next::Another => {}
                Next::GiveUp(refusal) => break refusal,
                Next::Relay(status) => {
                    self.relay_error(&job, status, unopened.said, &mut line).await;
                    return None;
                }
            }
            // The next pick, of whichever call, has to know of this failure.
            drop(place);
            next = match successor {
                Some(successor) => Ok(successor),
                None if Instant::now() >= until => break Refusal::UpstreamTimeout,
                None => self.places.another(&route, &attempts.tried(), attempts.are_orphaned()).await,
            };
            if next.is_ok() {
                self.metrics.instances.count_failover(verdict.reason);
            }
        };
        self.give_up(&refusal, &job, &mut line).await;
        None
    }

    async fn try_once<'a>(
        &'a self,
        job: &mut Job,
        place: &mut Place<'_>,
        attempts: &Attempts,
        until: Instant,
        line: &mut Line<'_, impl Downstream>,
    ) -> Attempt<'a> {
        let Some(target) = job.entry.target(place.instance) else { return Attempt::Refused(Refusal::Internal) };
        let admission = self.admission(job, &target, place.mean_connections);
        let begun = Running::begin(&self.log, admission, &mut job.entry.quota);
        let running = match begun {
            Ok(running) => running,
            Err(LogUnwritable::Busy) => return Attempt::Refused(Refusal::Overloaded(Scarce::Places)),
            Err(error) => {
                tracing::error!(%error, "an attempt cannot be recorded");
                return Attempt::Refused(Refusal::LogUnwritable);
            }
        };
        let waited = line.wait(self.wait(job, &target, running.started(), attempts, until)).await;
        let failed = |unopened, running, successor| Attempt::Failed { unopened, running, successor };
        match waited {
            Err(Gone) => {
                running.finish(Outcome::Aborted, None);
                Attempt::Left
            }
            Ok(Waited::Overtaken(successor)) => failed(Failure::Timeout.into(), Box::new(running), Some(successor)),
            Ok(Waited::TooLate(true)) => failed(Failure::Timeout.into(), Box::new(running), None),
            Ok(Waited::TooLate(false)) => failed(Failure::Patience.into(), Box::new(running), None),
            Ok(Waited::Opened(Err(unopened))) => failed(unopened, Box::new(running), None),
            Ok(Waited::Opened(Ok(opening))) => {
                place.answered(opening.work(job.prepared.prompt_estimate), running.started().elapsed());
                Attempt::Over(self.reply(job, place, opening, running, line).await)
            }
        }
    }

    /// Waits until there is an answer, or until waiting for this instance makes no more sense.
    async fn wait(
        &self,
        job: &Job,
        target: &Arc<Target>,
        started: Instant,
        attempts: &Attempts,
        until: Instant,
    ) -> Waited<'_, I::Answer> {
        let mut opening = pin!(self.open(job, target, started));
        let own = started + self.patience.attempt;
        // An answer in one piece is no sooner there than all of it: who is late with it is not known.
        let mut deadline = if job.cord.stream && attempts.may_go_on() { own.min(until) } else { until };
        loop {
            if let Ok(opened) = tokio::time::timeout_at(deadline.into(), &mut opening).await {
                return Waited::Opened(opened);
            }
            if deadline >= until {
                return Waited::TooLate(own <= until);
            }
            let tried = [attempts.tried(), vec![target.instance.id]].concat();
            match self.places.another(&job.entry.route, &tried, false).await {
                Ok(successor) => return Waited::Overtaken(successor),
                // Nobody else takes the call: the longer this one may take.
                Err(_) => deadline = (deadline + self.patience.attempt).min(until),
            }
        }
    }

    async fn open(&self, job: &Job, target: &Arc<Target>, started: Instant) -> Result<Opening<I::Answer>, Unopened> {
        let request = self.seal(job, target).await.map_err(|error| {
            tracing::error!(%error, instance.id = %target.instance.id, "a request cannot be sealed");
            Failure::Edge
        })?;
        let meter = Meter::new(job.prepared.kind, job.prepared.hide_usage);
        open(&self.instances, target, request, meter, started, job.cord.stream, self.patience.largest).await
    }

    /// Seals and signs the request; a large one off the threads that relay streams.
    async fn seal(&self, job: &Job, target: &Arc<Target>) -> anyhow::Result<Outgoing> {
        let now = self.clock.now().timestamp();
        let body = &job.prepared.body;
        if body.len() < HEAVY {
            return Ok(outgoing(target, &job.cord, body, &job.query, &self.signer, now)?);
        }
        let (target, cord, body) = (target.clone(), job.cord.clone(), body.clone());
        let (query, signer) = (job.query.clone(), self.signer.clone());
        let sealing = spawn_blocking(move || outgoing(&target, &cord, &body, &query, &signer, now));
        Ok(sealing.await??)
    }

    /// Counts a failure, remembers what it showed of the instance and tells control, as the verdict says.
    pub(super) fn draw_conclusions(&self, job: &Job, place: &mut Place<'_>, verdict: &Verdict) {
        let reason = verdict.reason.as_str();
        place.showed(verdict.outcome);
        self.metrics.attempts.count_failure(verdict);
        if verdict.report {
            let chute = job.entry.route.chute.id;
            self.strikes.report(Strike { chute, instance: place.instance, reason: reason.to_owned() });
        }
        tracing::info!(chute.id = %job.entry.route.chute.id, instance.id = %place.instance, reason, "an attempt failed");
    }

    /// Gives the client an instance's own words about what is wrong with the request, or ours if they did not all come.
    async fn relay_error(
        &self,
        job: &Job,
        status: StatusCode,
        said: Option<Said>,
        line: &mut Line<'_, impl Downstream>,
    ) {
        let said = match said {
            Some(said) if !line.is_begun() => said,
            said => {
                let words = said.and_then(|said| said.message());
                let refusal = words.map_or(Refusal::RefusedByInstance(status), Refusal::BadRequest);
                return self.give_up(&refusal, job, line).await;
            }
        };
        self.metrics.requests.count_relayed(status);
        let mut fields = job.stamp.fields();
        fields.push(content_type(&said.content_type));
        // A client that is gone needs no answer.
        let _ = whole(line.client, status, fields, said.body).await;
    }

    fn admission(&self, job: &Job, target: &Target, mean_connections: f64) -> Admission {
        let chute = &job.entry.route.chute;
        let key = match &job.caller.via {
            Via::Key { id, .. } => Some(*id),
            Via::Session | Via::Hotkey(_) => None,
        };
        let (quota, started_at) = (job.entry.quota.as_ref(), self.clock.now());
        Admission {
            call: job.stamp.call,
            invocation: InvocationId::random(),
            chute: chute.id,
            chute_owner: chute.owner,
            function: job.cord.function.clone(),
            image: chute.image,
            image_owner: chute.image_owner,
            user: job.caller.user.id,
            key,
            instance: target.instance.id,
            miner_uid: target.instance.miner_uid,
            hotkey: target.instance.hotkey.clone(),
            started_at,
            multiplier: chute.multiplier,
            bucket: quota.map(|quota| quota.bucket()),
            bucket_day: quota.map(|quota| quota.day()).filter(|day| *day != started_at.date_naive()),
            kind: job.prepared.kind,
            estimate: job.prepared.prompt_estimate,
            mean_connections,
            steps: job.prepared.steps,
            reroll: job.prompt.is_some_and(|prompt| self.rerolls.is_known(prompt, Instant::now())),
        }
    }
}
