//! Asks control about one principal, while Redis does not hold all of them.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use protocol::principal::Versioned;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::Unavailable;
use crate::config::Secret;

/// Longest answer in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Questions in flight; those above wait, so that control is not run over when Redis was lost.
const MAX_AT_ONCE: usize = 32;
/// Longest wait for a turn and the answer together.
const PATIENCE: Duration = Duration::from_secs(2);

/// Control's internal look-up.
pub(super) struct Lookup {
    client: reqwest::Client,
    base: String,
    credential: Secret,
    turns: Semaphore,
}

/// The entry with its version, as in Redis.
#[derive(Deserialize)]
struct Answer<T> {
    v: u64,
    d: T,
}

impl Lookup {
    pub(super) fn new(base: &str, credential: Secret) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(1))
            .timeout(PATIENCE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("building the client of control's look-up")?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, credential, turns: Semaphore::new(MAX_AT_ONCE) })
    }

    /// The entry of a Redis key, from the source.
    pub(super) async fn find<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Versioned<T>>, Unavailable> {
        let answer = tokio::time::timeout(PATIENCE, self.ask(key)).await;
        let body = answer.map_err(|_| anyhow::anyhow!("no answer in {PATIENCE:?}")).flatten().and_then(|body| {
            let Some(body) = body else { return Ok(None) };
            let Answer { v, d } = serde_json::from_slice(&body).context("reading the answer")?;
            Ok(Some(Versioned { version: v, entry: d }))
        });
        body.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "cannot look up a principal at control");
            Unavailable
        })
    }

    async fn ask(&self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let _turn = self.turns.acquire().await.context("waiting for a turn")?;
        let (kind, id) = key.split_once(':').context("a principal's key has a kind")?;
        let url = format!("{}/internal/principals/{kind}/{id}", self.base);
        let request = self.client.get(url).bearer_auth(self.credential.reveal());
        let mut response = request.send().await.map_err(reqwest::Error::without_url).context("asking")?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => anyhow::bail!("status {status}"),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            anyhow::ensure!(body.len() + chunk.len() <= MAX_ANSWER, "answer is larger than {MAX_ANSWER} bytes");
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }
}
