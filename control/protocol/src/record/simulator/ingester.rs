//! The production's ingester on stand-ins: what it waits for happens in an order of chance, and it can die between any
//! two.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use chrono::{DateTime, Utc};

use super::Bug;
use super::postgres::Postgres;
use super::redis::Redis;
use crate::record::batch::{Batch, RawEntry};
use crate::record::ingest::{self, Arrived, Ends, Marks, Unstored, Wanted};

/// Most entries of one read.
const COUNT: usize = 50;
/// How many reads of new entries a run has time for.
const READS: u32 = 20;

/// An end is gone; whether it did what was asked is not known.
#[derive(Debug)]
pub(crate) struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("gone")
    }
}

/// What an end is asked for.
#[derive(Debug)]
enum Request {
    Marks,
    Replace(Marks),
    Read(Wanted),
    Store(Batch),
    Publish(Marks),
    Acknowledge(Vec<RawEntry>),
    Trim(Vec<RawEntry>),
}

/// What it says.
#[derive(Debug)]
enum Reply {
    Done,
    Marks(Marks),
    Entries(Vec<RawEntry>),
}

/// What a run waits for, by number.
#[derive(Debug, Default)]
struct Waiting {
    asked: Cell<u64>,
    reads: Cell<u32>,
    requests: RefCell<BTreeMap<u64, Request>>,
    replies: RefCell<BTreeMap<u64, Result<Reply, Gone>>>,
}

impl Waiting {
    async fn ask(&self, request: Request) -> Result<Reply, Gone> {
        let number = self.asked.replace(self.asked.get() + 1);
        self.requests.borrow_mut().insert(number, request);
        poll_fn(|_| self.replies.borrow_mut().remove(&number).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// One of the requests; none while one part of a run has yet to hear of another.
    fn draw(&self, choice: usize) -> Option<(u64, Request)> {
        let mut requests = self.requests.borrow_mut();
        let number = *requests.keys().nth(choice.checked_rem(requests.len())?)?;
        requests.remove_entry(&number)
    }

    async fn ask_marks(&self, request: Request) -> Result<Marks, Gone> {
        match self.ask(request).await? {
            Reply::Marks(marks) => Ok(marks),
            reply => panic!("{reply:?} is no mark"),
        }
    }
}

impl Ends for Waiting {
    type Error = Gone;

    fn has_time(&self) -> bool {
        self.reads.get() < READS
    }

    async fn marks(&self) -> Result<Marks, Gone> {
        self.ask_marks(Request::Marks).await
    }

    async fn replace_marks(&self, marks: &Marks) -> Result<(), Gone> {
        self.ask(Request::Replace(marks.clone())).await.map(drop)
    }

    async fn read(&self, wanted: Wanted) -> Result<Option<Arrived>, Gone> {
        self.reads.set(self.reads.get() + 1);
        match self.ask(Request::Read(wanted)).await? {
            Reply::Entries(entries) => Ok((!entries.is_empty()).then(|| Arrived::new(entries))),
            reply => panic!("{reply:?} is no entry"),
        }
    }

    async fn store(&self, batch: &Batch) -> Result<Marks, Unstored<Gone>> {
        self.ask_marks(Request::Store(batch.clone())).await.map_err(Unstored::Failed)
    }

    async fn publish_marks(&self, marks: &Marks) -> Result<(), Gone> {
        self.ask(Request::Publish(marks.clone())).await.map(drop)
    }

    async fn let_go(&self, entries: &[RawEntry]) -> Result<(), Gone> {
        self.ask(Request::Acknowledge(entries.to_vec())).await?;
        self.ask(Request::Trim(entries.to_vec())).await.map(drop)
    }
}

/// An ingester in the middle of a run.
pub(crate) struct Ingester {
    waiting: Rc<Waiting>,
    run: Pin<Box<dyn Future<Output = Result<(), Gone>>>>,
}

impl Default for Ingester {
    fn default() -> Self {
        let waiting = Rc::new(Waiting::default());
        let ends = Rc::clone(&waiting);
        Self { waiting, run: Box::pin(async move { ingest::run(&*ends).await }) }
    }
}

impl Ingester {
    /// Does one of the things that it waits for, of which `choice` tells; a run that ended begins anew.
    pub(crate) fn step(
        &mut self,
        redis: &mut Redis,
        postgres: &mut Postgres,
        (now, choice): (DateTime<Utc>, usize),
        bug: Option<Bug>,
    ) -> Result<(), String> {
        if self.poll().is_ready() {
            *self = Self::default();
            return Ok(());
        }
        let Some((number, request)) = self.waiting.draw(choice) else { return Ok(()) };
        let reply = answer(request, redis, postgres, now, bug)?;
        self.waiting.replies.borrow_mut().insert(number, reply);
        Ok(())
    }

    fn poll(&mut self) -> Poll<Result<(), Gone>> {
        self.run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

fn answer(
    request: Request,
    redis: &mut Redis,
    postgres: &mut Postgres,
    now: DateTime<Utc>,
    bug: Option<Bug>,
) -> Result<Result<Reply, Gone>, String> {
    let done = |done: Result<(), _>| done.map(|()| Reply::Done).map_err(|_| Gone);
    Ok(match request {
        Request::Marks => postgres.marks().map(Reply::Marks).map_err(|_| Gone),
        Request::Replace(marks) => done(redis.publish(&marks, true)),
        Request::Read(wanted) => redis.read(wanted, COUNT).map(Reply::Entries).map_err(|_| Gone),
        Request::Store(batch) => match postgres.store(&batch, now) {
            Ok(marks) => Ok(Reply::Marks(marks?)),
            Err(_) => Err(Gone),
        },
        Request::Publish(mut marks) => {
            if bug == Some(Bug::PublishesTooMuch) {
                marks.iter_mut().for_each(|(_, mark)| *mark += 1);
            }
            done(redis.publish(&marks, false))
        }
        Request::Acknowledge(entries) => done(redis.acknowledge(&entries)),
        Request::Trim(entries) => done(redis.trim(&entries)),
    })
}
