//! Gateways that share a limit over one Redis, in many orders of their threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::ids::WriterId;
use protocol::lease::claims::Claims;
use shuttle::thread::{self, yield_now};

use super::{Book, Leases, Subject};
use crate::metrics::Metrics;
use crate::sync::{Mutex, explore};

pub(crate) const GATEWAYS: u32 = 2;
/// Orders that are tried.
const ORDERS: usize = 1000;
/// Calls of each of a gateway's two threads, one after the other.
const CALLS: usize = 8;
/// How often a gateway asks.
const QUESTIONS: u64 = 8;
/// On the clock of the model: it has settled, and nobody is silent for long.
const TIME: i64 = 2_000;
/// Longer than the test takes.
const LIFETIME: Duration = Duration::from_hours(1);

/// The most calls of all gateways.
#[derive(Clone, Copy)]
pub(crate) struct Most {
    /// Under way.
    pub(crate) at_once: u64,
    /// That count, under way or over.
    pub(crate) in_all: u64,
}

/// A limit that gateways share.
pub(crate) struct Shared<B, C, E> {
    /// What it consists of.
    pub(crate) subjects: Vec<Subject>,
    /// Who keeps it in a gateway.
    pub(crate) book: Box<dyn Fn(Arc<Leases>) -> B + Send + Sync>,
    /// Begins a call if there is room.
    pub(crate) call: C,
    /// Ends a call, which goes on counting by this number if it has one.
    pub(crate) end: E,
    /// Whether each second call stops counting when it ends.
    pub(crate) gives_back: bool,
}

#[derive(Default)]
struct Seen {
    under_way: AtomicU64,
    counting: AtomicU64,
    begun: AtomicU64,
}

impl<B, H, C, E> Shared<B, C, E>
where
    B: Book + 'static,
    C: Fn(&Arc<B>, &Leases) -> Option<H> + Send + Sync + 'static,
    E: Fn(H, Option<u64>) + Send + Sync + 'static,
{
    /// Fails if there are ever more calls; with doubts the desks take Redis for one that lost everything in the middle.
    pub(crate) fn lets_in_at_most(self, most: Most, doubts: bool) {
        let (all, metrics) = (Arc::new(AtomicU64::new(0)), Arc::new(Metrics::new().unwrap()));
        let (begun, shared) = (Arc::clone(&all), Arc::new(self));
        explore(ORDERS, move || {
            let seen = Arc::new(Seen::default());
            let gateways = [(); GATEWAYS as usize].map(|()| WriterId::random());
            let mut redis = Claims::default();
            for time in [0, TIME / 2, TIME] {
                gateways.iter().for_each(|gateway| drop(redis.beat(*gateway, time)));
            }
            let redis = Arc::new(Mutex::new(redis));
            let mut threads = Vec::new();
            for writer in gateways {
                let (leases, _questions) = Leases::new(LIFETIME, Arc::clone(&metrics));
                leases.link.hear(leases.since.elapsed(), GATEWAYS);
                leases.link.settle(true);
                let book = Arc::new((shared.book)(Arc::clone(&leases)));
                for _ in 0..2 {
                    let (shared, book, leases, seen) = (shared.clone(), book.clone(), leases.clone(), seen.clone());
                    threads.push(thread::spawn(move || shared.calls(&book, &leases, &seen, most)));
                }
                let (subjects, redis) = (shared.subjects.clone(), redis.clone());
                threads.push(thread::spawn(move || desk(&*book, &leases, &subjects, &redis, writer, doubts)));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            begun.fetch_add(seen.begun.load(Ordering::Relaxed), Ordering::Relaxed);
        });
        let begun = all.load(Ordering::Relaxed);
        assert!(begun > ORDERS as u64, "{begun} calls were let in: little was tried");
    }

    fn calls(&self, book: &Arc<B>, leases: &Leases, seen: &Seen, most: Most) {
        for _ in 0..CALLS {
            yield_now();
            let Some(held) = (self.call)(book, leases) else { continue };
            let under_way = seen.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            let counting = seen.counting.fetch_add(1, Ordering::Relaxed) + 1;
            assert!(under_way <= most.at_once, "{under_way} calls at once");
            assert!(counting <= most.in_all, "{counting} calls");
            let number = seen.begun.fetch_add(1, Ordering::Relaxed);
            yield_now();
            let counts = !self.gives_back || number.is_multiple_of(2);
            // From here on others may have its place.
            seen.under_way.fetch_sub(1, Ordering::Relaxed);
            seen.counting.fetch_sub(u64::from(!counts), Ordering::Relaxed);
            (self.end)(held, counts.then_some(number + 1));
        }
    }
}

/// Asks again and again; between a question and its answer anything may happen. A desk that doubts Redis in the middle
/// claims again what is held.
fn desk(
    book: &dyn Book,
    leases: &Leases,
    subjects: &[Subject],
    claims: &Mutex<Claims<usize>>,
    gateway: WriterId,
    doubts: bool,
) {
    for sequence in 1..=QUESTIONS {
        if doubts && sequence == QUESTIONS / 2 {
            leases.link.settle(false);
            book.lapse();
        }
        for (key, subject) in subjects.iter().enumerate() {
            yield_now();
            let Some(asked) = book.ask(subject, 0, leases.moment()) else { continue };
            let (_, answer) = claims.lock().unwrap().ask(key, gateway, sequence, GATEWAYS, &asked, TIME);
            yield_now();
            book.answer(subject, &asked, Some(&answer), leases.moment());
        }
        leases.link.settle(true);
    }
}
