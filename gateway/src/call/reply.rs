//! Gives the client what an instance answers, to its end, and records how that went.

use std::time::Duration;

use http::HeaderValue;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use protocol::directory::{Cord, Template};
use protocol::envelope::Reply;
use protocol::usage::Outcome;

use super::answer::{Fields, content_type, relayed, whole};
use super::downstream::{Downstream, Head};
use super::opening::Opening;
use super::place::Place;
use super::relay::{Ended, Relay};
use super::running::Running;
use super::upstream::Instances;
use super::{Calls, Job};
use crate::instance::verdict::{Attempts, Failure, Next, Verdict};
use crate::refusal::Refusal;
use crate::usage::meter::Meter;

/// What a stream is unless its cord says otherwise.
const EVENTS: &str = "text/event-stream";

impl<I: Instances> Calls<I> {
    /// Answers with what an instance has begun to give.
    pub(super) async fn reply(
        &self,
        job: &Job,
        place: &mut Place<'_>,
        opening: Opening<I::Answer>,
        running: Running,
        client: &mut impl Downstream,
    ) {
        self.metrics.calls.count_first_chunk(job.entry.route.chute.template, running.started().elapsed());
        match opening {
            Opening::Whole { reply, meter } => self.reply_whole(job, reply, &meter, running, client).await,
            Opening::Stream { relay, first } => self.reply_stream(job, place, relay, first, running, client).await,
        }
    }

    async fn reply_whole(
        &self,
        job: &Job,
        reply: Reply,
        meter: &Meter,
        mut running: Running,
        client: &mut impl Downstream,
    ) {
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
        self.metrics.calls.count_answer(status, "none");
        let mut fields = job.stamp.fields();
        fields.push(content_type(&reply.content_type));
        fields.extend(relayed(reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
        running.delivers(meter);
        let outcome = match whole(client, status, fields, reply.body).await {
            Ok(()) => Outcome::Finished,
            Err(_) => Outcome::Aborted,
        };
        running.finish(outcome, None);
    }

    async fn reply_stream(
        &self,
        job: &Job,
        place: &mut Place<'_>,
        mut relay: Relay<I::Answer>,
        first: bytes::Bytes,
        mut running: Running,
        client: &mut impl Downstream,
    ) {
        self.metrics.calls.count_answer(StatusCode::OK, "none");
        let kind = stream_type(&job.cord, job.entry.route.chute.template);
        let head = Head { status: StatusCode::OK, fields: stream_fields(job, kind), length: None };
        if client.begin(head).await.is_err() {
            running.finish(Outcome::Aborted, None);
            return;
        }
        let mut note = |meter: &Meter, pace: Option<Duration>| {
            running.delivers(meter);
            if let Some(pace) = pace {
                place.flows(pace);
            }
        };
        let ended = relay.run(client, first, self.patience.idle, &mut note).await;
        let failure = match ended {
            Ended::Gone => {
                // The connection to the instance closes here, before anything else is done.
                drop(relay);
                running.finish(Outcome::Aborted, None);
                return;
            }
            Ended::Whole => match relay.meter().error() {
                Some(error) => Failure::ErrorEvent { code: error.code },
                None => {
                    running.finish(Outcome::Finished, None);
                    return relay.keep().await;
                }
            },
            Ended::Failed(failure) => failure,
        };
        let verdict = Attempts::interrupted(&failure);
        running.finish(Outcome::Failed, Some(verdict.reason.as_str()));
        self.draw_conclusions(job, place, &verdict);
        if !relay.is_ended() {
            break_off(client, kind, relay.is_between_events(), &verdict).await;
        }
    }
}

/// Tells the client that the rest will not come: in the stream's own words where it has words, else by a cut.
async fn break_off(client: &mut impl Downstream, kind: &str, between_events: bool, verdict: &Verdict) {
    let refusal = match &verdict.next {
        Next::GiveUp(refusal) => refusal.clone(),
        Next::Another | Next::Relay(_) => Refusal::BadAnswer,
    };
    if kind != EVENTS {
        return client.cut().await;
    }
    let separator = if between_events { "" } else { "\n\n" };
    let event = format!("{separator}{}", refusal.body().to_stream_event());
    if client.write(event.into()).await.is_err() || client.end().await.is_err() {
        client.cut().await;
    }
}

/// What a stream of a cord is: instances do not say it.
fn stream_type(cord: &Cord, template: Option<Template>) -> &str {
    match (template, cord.content_type.as_deref()) {
        (Some(Template::Vllm), _) | (_, None) => EVENTS,
        (_, Some(kind)) => kind,
    }
}

fn stream_fields(job: &Job, kind: &str) -> Fields {
    let mut fields = job.stamp.fields();
    fields.push(content_type(kind));
    fields.push((CACHE_CONTROL, HeaderValue::from_static("no-cache")));
    fields
}
