//! A duty is done by one replica, which loses it together with its connection.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use control::db;
use control::task::{Task, drive};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, World, until};

/// Counts its runs, those that are running and those that were cancelled; a run ends only when told to.
#[derive(Clone, Default)]
struct Counted {
    begun: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    endless: bool,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Task for Counted {
    const NAME: &'static str = "counted";
    const EVERY: Duration = Duration::from_secs(3600);

    async fn run(&self, _now: DateTime<Utc>) -> anyhow::Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.running));
        if self.endless {
            pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_nudge_runs_a_duty_that_would_wait_an_hour() {
    let world = World::new().await;
    let duty = Counted::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(drive(duty.clone(), world.state.clone(), CancellationToken::new()));
    until(PATIENCE, || duty.begun.load(Ordering::SeqCst) == 1).await;
    db::duty::nudge(&world.state.db, Counted::NAME).await.unwrap();
    until(PATIENCE, || duty.begun.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn a_replica_that_loses_its_connection_is_cancelled_and_another_takes_over() {
    let world = World::new().await;
    let duty = Counted { endless: true, ..Counted::default() };
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        tasks.spawn(drive(duty.clone(), world.state.clone(), CancellationToken::new()));
    }
    for round in 1..=3 {
        until(PATIENCE, || duty.begun.load(Ordering::SeqCst) == round).await;
        let ended: i64 = sqlx::query_scalar(
            "select count(*) filter (where pg_terminate_backend(pid)) from pg_locks
            where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
        )
        .fetch_one(&world.state.db)
        .await
        .unwrap();
        assert_eq!(ended, 1);
        until(PATIENCE, || duty.begun.load(Ordering::SeqCst) == round + 1).await;
        // Postgres frees the lock before the old replica hears of its loss: for that moment there may be two.
        until(PATIENCE, || duty.running.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn a_stopping_replica_lets_the_duty_go() {
    let world = World::new().await;
    let duty = Counted::default();
    let stopping = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(drive(duty.clone(), world.state.clone(), stopping.clone()));
    until(PATIENCE, || duty.begun.load(Ordering::SeqCst) == 1).await;
    stopping.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    tasks.spawn(drive(duty.clone(), world.state.clone(), CancellationToken::new()));
    until(PATIENCE, || duty.begun.load(Ordering::SeqCst) == 2).await;
}
