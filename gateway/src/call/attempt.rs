//! Tries instances one after the other until one answers or the call is given up.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use protocol::ids::InvocationId;
use protocol::usage::{Admission, Outcome, Strike};
use tokio::task::spawn_blocking;

use super::answer::{content_type, whole};
use super::downstream::Downstream;
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
enum Attempt {
    /// The instance had an answer; the client has it, whole or broken off.
    Over,
    /// The client went away before there was an answer.
    Left,
    /// Nothing went to the client; the attempt has still to be recorded.
    Failed(Unopened, Box<Running>),
    /// It could not even begin.
    Refused(Refusal),
}

impl<I: Instances> Calls<I> {
    /// Answers a call that was let in.
    pub(super) async fn attempt(&self, mut job: Job, client: &mut impl Downstream) {
        let route = job.entry.route.clone();
        let mut attempts = Attempts::default();
        let refusal = loop {
            let mut place = match self.places.take(&route, &attempts.tried()) {
                Ok(place) => place,
                Err(shortage) => break attempts.refusal(route.chute.id, shortage),
            };
            let (unopened, running) = match self.try_once(&mut job, &mut place, client).await {
                Attempt::Failed(unopened, running) => (unopened, running),
                Attempt::Refused(refusal) => break refusal,
                Attempt::Left => return,
                Attempt::Over => {
                    // Another instance had an answer to the same request, so the empty ones were at fault.
                    return attempts.empty_ones().for_each(|instance| self.places.strike(instance));
                }
            };
            let verdict = attempts.failed(place.instance, &unopened.failure);
            job.entry.quota = running.finish(Outcome::Failed, Some(verdict.reason.as_str()));
            self.draw_conclusions(&job, &mut place, &verdict);
            match verdict.next {
                Next::Another => {}
                Next::GiveUp(refusal) => break refusal,
                Next::Relay(status) => return self.relay_error(&job, status, unopened.said, client).await,
            }
        };
        self.turn_away(&refusal, job.stamp, client).await;
    }

    async fn try_once(&self, job: &mut Job, place: &mut Place<'_>, client: &mut impl Downstream) -> Attempt {
        let Some(target) = job.entry.target(place.instance) else { return Attempt::Refused(Refusal::Internal) };
        let admission = self.admission(job, &target, place.mean_connections);
        let begun = Running::begin(&self.log, admission, &mut job.entry.quota, self.clock, &self.metrics);
        let running = match begun {
            Ok(running) => running,
            Err(LogUnwritable::Busy) => return Attempt::Refused(Refusal::Overloaded(Scarce::Places)),
            Err(error) => {
                tracing::error!(%error, "an attempt cannot be recorded");
                return Attempt::Refused(Refusal::LogUnwritable);
            }
        };
        let opening = tokio::time::timeout(self.patience.first_chunk, self.open(job, &target, running.started()));
        let opened = tokio::select! {
            biased;
            () = client.gone() => None,
            opened = opening => Some(opened),
        };
        match opened {
            None => {
                running.finish(Outcome::Aborted, None);
                Attempt::Left
            }
            Some(Err(_)) => Attempt::Failed(Failure::Timeout.into(), Box::new(running)),
            Some(Ok(Err(unopened))) => Attempt::Failed(unopened, Box::new(running)),
            Some(Ok(Ok(opening))) => {
                place.answered();
                self.reply(job, place, opening, running, client).await;
                Attempt::Over
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

    /// Counts a failure, strikes the instance out and tells control, as the verdict says.
    pub(super) fn draw_conclusions(&self, job: &Job, place: &mut Place<'_>, verdict: &Verdict) {
        let reason = verdict.reason.as_str();
        place.showed(verdict.outcome);
        self.metrics.calls.failures.with_label_values(&[reason]).inc();
        if verdict.report {
            let chute = job.entry.route.chute.id;
            self.strikes.report(Strike { chute, instance: place.instance, reason: reason.to_owned() });
        }
        tracing::info!(chute.id = %job.entry.route.chute.id, instance.id = %place.instance, reason, "an attempt failed");
    }

    /// Gives the client an instance's own words about what is wrong with the request, or ours if they did not all come.
    async fn relay_error(&self, job: &Job, status: StatusCode, said: Option<Said>, client: &mut impl Downstream) {
        let Some(said) = said else {
            return self.turn_away(&Refusal::RefusedByInstance(status), job.stamp, client).await;
        };
        self.metrics.calls.count_answer(status, "none");
        let mut fields = job.stamp.fields();
        fields.push(content_type(&said.content_type));
        // A client that is gone needs no answer.
        let _ = whole(client, status, fields, said.body).await;
    }

    fn admission(&self, job: &Job, target: &Target, mean_connections: f64) -> Admission {
        let chute = &job.entry.route.chute;
        let key = match &job.caller.via {
            Via::Key { id, .. } => Some(*id),
            Via::Session | Via::Hotkey(_) => None,
        };
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
            started_at: self.clock.now(),
            multiplier: chute.multiplier,
            bucket: job.entry.quota.as_ref().map(|quota| quota.bucket()),
            kind: job.prepared.kind,
            estimate: job.prepared.prompt_estimate,
            mean_connections,
            steps: job.prepared.steps,
        }
    }
}
