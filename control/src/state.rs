//! The handles that the routes and duties of a process share.

use std::sync::Arc;

use sqlx::PgPool;

use crate::clock::Clock;
use crate::metrics::Metrics;

/// What every role owns; cheap to clone.
#[derive(Clone)]
pub struct State {
    /// Postgres.
    pub db: PgPool,
    /// Time.
    pub clock: Clock,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}
