//! Gives the client what an instance answers, to its end, and records how that went.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use protocol::directory::Template;
use protocol::envelope::Reply;
use protocol::usage::Outcome;
use tokio::task::spawn_blocking;

use super::answer::{content_type, finish_whole, relayed};
use super::downstream::{Downstream, Gone, Head, Reach};
use super::line::Line;
use super::opening::Opening;
use super::place::Place;
use super::relay::{Ended, Relay};
use super::running::Running;
use super::upstream::Instances;
use super::{Calls, HEAVY, Job};
use crate::body::{Form, openai_image};
use crate::instance::verdict::{Attempts, Failure};
use crate::refusal::Refusal;
use crate::usage::meter::Meter;

/// What a stream is unless its cord says otherwise.
const EVENTS: &str = "text/event-stream";

impl<I: Instances> Calls<I> {
    /// The way to the client for the answer to a job; if that is an event stream, it is kept alive.
    pub(super) fn line<'a, D: Downstream>(&self, job: &Job, client: &'a mut D) -> Line<'a, D> {
        let kind = stream_type(job);
        let mut fields = job.stamp.fields();
        fields.push(content_type(kind));
        fields.push((CACHE_CONTROL, HeaderValue::from_static("no-cache")));
        let head = Head { status: StatusCode::OK, fields, length: None };
        let pulse = self.patience.keepalive.filter(|_| job.cord.stream && is_events(kind));
        Line::new(client, head, pulse)
    }

    /// Tells the client why no instance answered its call: in a stream that has begun as an event.
    pub(super) async fn give_up(&self, refusal: &Refusal, job: &Job, line: &mut Line<'_, impl Downstream>) {
        if !line.is_begun() {
            return self.turn_away(refusal, job.stamp, line.client).await;
        }
        self.metrics.requests.count_late_refusal(refusal);
        if line.break_off(refusal).await.is_err() {
            line.client.cut().await;
        }
    }

    /// Answers with what an instance has begun to give; how that ended, unless the client has nothing of it.
    pub(super) async fn reply(
        &self,
        job: &Job,
        place: &mut Place<'_>,
        opening: Opening<I::Answer>,
        running: Running,
        line: &mut Line<'_, impl Downstream>,
    ) -> Option<Outcome> {
        match opening {
            Opening::Whole { reply, meter } => self.reply_whole(job, reply, &meter, running, line.client).await,
            Opening::Stream { relay, first } => self.reply_stream(job, place, relay, first, running, line).await,
        }
    }

    async fn reply_whole(
        &self,
        job: &Job,
        reply: Reply,
        meter: &Meter,
        mut running: Running,
        client: &mut impl Downstream,
    ) -> Option<Outcome> {
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
        self.metrics.requests.count_relayed(status);
        let mut fields = job.stamp.fields();
        let body = match job.form {
            Form::OpenAiImage if status.is_success() => {
                fields.push(content_type("application/json"));
                self.openai_image(reply.body).await
            }
            Form::OpenAiImage | Form::Own => {
                fields.push(content_type(&reply.content_type));
                fields.extend(relayed(reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
                reply.body
            }
        };
        let sent = async {
            client.begin(Head { status, fields, length: Some(body.len()) }).await?;
            running.delivers(meter, client.has_left());
            finish_whole(client, body).await?;
            client.sent().await
        };
        if sent.await == Err(Gone) {
            // It is of no use in part: some of it counts as all of it.
            if client.reach() == Reach::None {
                running.takes_back();
            }
            return abort(running);
        }
        running.finish(Outcome::Finished, None);
        Some(Outcome::Finished)
    }

    /// An image as OpenAI's clients read it; a large one is written off the threads that relay streams.
    async fn openai_image(&self, image: Bytes) -> Bytes {
        let created = self.clock.now().timestamp();
        if image.len() < HEAVY {
            return openai_image::answer(&image, created);
        }
        let writing = spawn_blocking(move || openai_image::answer(&image, created));
        writing.await.expect("base64 of an image does not panic")
    }

    async fn reply_stream(
        &self,
        job: &Job,
        place: &mut Place<'_>,
        mut relay: Relay<I::Answer>,
        first: Bytes,
        mut running: Running,
        line: &mut Line<'_, impl Downstream>,
    ) -> Option<Outcome> {
        self.metrics.calls.count_first_chunk(job.entry.route.chute.template, job.arrived.elapsed());
        // A stream is counted when it is over: only then is it known whether somebody spoilt it.
        let relayed = || self.metrics.requests.count_relayed(StatusCode::OK);
        if line.begin().await.is_err() {
            relayed();
            return abort(running);
        }
        let mut note = |meter: &Meter, has_left: bool, pace: Option<Duration>| {
            running.delivers(meter, has_left);
            if let Some(pace) = pace {
                place.flows(pace);
            }
        };
        let ended = relay.run(line, first, self.patience.idle, &mut note).await;
        let failure = match ended {
            Ended::Gone => {
                // The connection to the instance closes here, before anything else is done.
                drop(relay);
                relayed();
                if line.client.reach() != Reach::All {
                    running.takes_back();
                }
                let outcome = abort(running);
                // One that only ended its own side must not take what it has for all of the answer.
                line.client.cut().await;
                return outcome;
            }
            Ended::Whole => match relay.meter().error() {
                Some(error) => Failure::ErrorEvent { code: error.code },
                None => {
                    relayed();
                    running.finish(Outcome::Finished, None);
                    relay.keep().await;
                    return Some(Outcome::Finished);
                }
            },
            Ended::Failed(failure) => failure,
        };
        let verdict = Attempts::interrupted(&failure);
        let refusal = verdict.reason.refusal();
        self.metrics.requests.count_late_refusal(&refusal);
        running.finish(Outcome::Failed, Some(verdict.reason.as_str()));
        self.draw_conclusions(job, place, &verdict);
        let breaks_off = !relay.is_ended();
        // The instance need not wait until its client has been told.
        drop(relay);
        if breaks_off {
            break_off(line, stream_type(job), &refusal).await;
        }
        Some(Outcome::Failed)
    }
}

/// Ends an attempt whose client went away; none if that has nothing of it.
fn abort(running: Running) -> Option<Outcome> {
    let delivered = running.has_delivered();
    running.finish(Outcome::Aborted, None);
    delivered.then_some(Outcome::Aborted)
}

/// Tells the client that the rest will not come: in the stream's own words where it has words, else by a cut.
async fn break_off(line: &mut Line<'_, impl Downstream>, kind: &str, refusal: &Refusal) {
    if !is_events(kind) || line.break_off(refusal).await.is_err() {
        line.client.cut().await;
    }
}

/// Whether it is an event stream, whatever its parameters say.
fn is_events(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(EVENTS))
}

/// What a stream of a cord is: instances do not say it.
fn stream_type(job: &Job) -> &str {
    match (job.entry.route.chute.template, job.cord.content_type.as_deref()) {
        (Some(Template::Vllm), _) | (_, None) => EVENTS,
        (_, Some(kind)) => kind,
    }
}
