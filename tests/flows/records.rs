//! The record of a call, as Postgres holds it in the end.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use sqlx::types::Uuid;
use tokio::time::{Instant, sleep};

const LONGEST: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
/// Time in which a second row would come, if there was one.
pub(crate) const SETTLED: Duration = Duration::from_millis(1500);

/// One attempt of a call.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Attempt {
    pub(crate) chute_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) function_name: String,
    pub(crate) outcome: String,
    pub(crate) delivered: bool,
    pub(crate) error_message: Option<String>,
    pub(crate) metrics: Option<Value>,
}

impl Attempt {
    /// A whole number of its metrics.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let number = self.metrics.as_ref().and_then(|metrics| metrics.get(name)?.as_f64());
        let number = number.unwrap_or_else(|| panic!("{name} is missing in {self:?}"));
        assert_eq!(number.fract(), 0.0);
        number as u64
    }
}

/// All attempts of the call with this `X-Chutes-InvocationID`, in their order, once they stopped coming.
pub(crate) async fn attempts(db: &PgPool, invocation: &Value) -> Vec<Attempt> {
    let call: Uuid = invocation.as_str().unwrap().parse().unwrap();
    let deadline = Instant::now() + LONGEST;
    while read(db, call).await.is_empty() {
        assert!(Instant::now() < deadline, "the call {call} is not in Postgres");
        sleep(POLL).await;
    }
    sleep(SETTLED).await;
    read(db, call).await
}

/// The only attempt of a call.
pub(crate) async fn only_attempt(db: &PgPool, invocation: &Value) -> Attempt {
    let mut attempts = attempts(db, invocation).await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    attempts.remove(0)
}

/// All attempts of a user's calls, in their order.
pub(crate) async fn of_user(db: &PgPool, user: Uuid) -> Vec<Attempt> {
    let text = "select chute_id, user_id, function_name, outcome, delivered, error_message, metrics \
                from invocations where user_id = $1 order by started_at";
    sqlx::query_as(text).bind(user).fetch_all(db).await.unwrap()
}

async fn read(db: &PgPool, call: Uuid) -> Vec<Attempt> {
    let text = "select chute_id, user_id, function_name, outcome, delivered, error_message, metrics \
                from invocations where parent_invocation_id = $1 order by started_at";
    sqlx::query_as(text).bind(call).fetch_all(db).await.unwrap()
}
