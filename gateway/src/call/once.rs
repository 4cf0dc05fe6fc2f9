//! Makes a call that must not be made twice, or gives its answer again.

use bytes::Bytes;
use protocol::directory::Template;
use tokio::task::spawn_blocking;

use super::answer::{Stamp, whole};
use super::downstream::Downstream;
use super::recording::Recording;
use super::upstream::Instances;
use super::{Calls, HEAVY, Job, Request, Room};
use crate::auth::Caller;
use crate::idempotent::{Answer, Asked, Found, REPLAYED};
use crate::refusal::Refusal;

impl<I: Instances> Calls<I> {
    /// What a request asks under a key: all that it says, except by which credential.
    ///
    /// # Errors
    /// Never, as long as hashing does not panic.
    pub(super) async fn asked(
        &self,
        request: &Request,
        key: &str,
        caller: &Caller,
        body: &Bytes,
    ) -> Result<Asked, Refusal> {
        let host = match &request.room {
            Room::Chute(slug) => slug.as_str(),
            // No slug has a dot.
            Room::Facade(Template::Vllm) => ".llm",
            Room::Facade(Template::Embedding) => ".embed",
            Room::Facade(Template::Diffusion) => ".image",
        };
        let thinking = if request.asks_for_thinking() { "thinking" } else { "" };
        let texts = [host, &request.path, &request.query, thinking].map(str::to_owned);
        let (answers, user, key, body) = (self.answers.clone(), caller.user.id, key.to_owned(), body.clone());
        let heavy = body.len() >= HEAVY;
        let hash = move || {
            let [host, path, query, thinking] = texts.each_ref().map(|text| text.as_bytes());
            answers.asked(user, &key, &[host, path, query, thinking, &body])
        };
        if heavy { spawn_blocking(hash).await.map_err(|_| Refusal::Internal) } else { Ok(hash()) }
    }

    /// Makes a call unless it was made; then its answer is given again, and nothing is recorded.
    pub(super) async fn once(&self, mut job: Job, asked: Asked, client: &mut impl Downstream) {
        let claim = match self.answers.claim(asked).await {
            Ok(Found::Nothing(claim)) => claim,
            Ok(Found::Answered(answer, share)) => {
                self.replay(answer, job.stamp, client).await;
                return drop(share);
            }
            Err(refusal) => return self.turn_away(&refusal, job.stamp, client).await,
        };
        // Only now: an answer that is given again uses up none of the allowance, and needs none to be left.
        match self.quota.check(&job.caller.user, job.entry.route.chute.id, self.clock.now()).await {
            Ok(quota) => job.entry.quota = quota,
            Err(refusal) => {
                self.turn_away(&refusal, job.stamp, client).await;
                return self.answers.settle(claim, None, None);
            }
        }
        let settings = self.answers.settings;
        let begins = Box::pin(self.answers.begins(&claim));
        let room = self.answers.room(&claim);
        let mut recording = Recording::new(client, begins, settings.run_on, settings.largest, room);
        let outcome = self.answers.hold(&claim, Box::pin(self.attempt(job, &mut recording))).await;
        let answer = recording.into_answer();
        self.answers.settle(claim, outcome, answer);
    }

    async fn replay(&self, answer: Answer, stamp: Stamp, client: &mut impl Downstream) {
        self.metrics.requests.count_relayed(answer.status);
        let mut fields = answer.fields;
        // The answer carries the name of the call that was made; this one leaves no record.
        fields.extend(stamp.limits());
        fields.push(REPLAYED);
        if whole(client, answer.status, fields, answer.body).await.is_ok() {
            // Until then the answer takes memory. A client that is gone needs none.
            let _ = client.sent().await;
        }
    }
}
