//! Leases for tests: what is asked is answered by the model of Redis.

use std::pin::pin;

use protocol::ids::WriterId;
use protocol::lease::claims::Claims;

use super::{Arc, Ask, Book, Duration, Leases, Metrics, Question, Questions, Subject, mpsc};

/// Long enough for any test.
const LIFETIME: Duration = Duration::from_hours(1);
/// The time of the model, in milliseconds: it has settled, and nobody is silent for long.
const NOW: i64 = 2_000;

/// Leases of a gateway that hears a Redis of its own.
pub(crate) struct StandIn {
    pub(crate) leases: Arc<Leases>,
    pub(crate) metrics: Arc<Metrics>,
    questions: mpsc::Receiver<Question>,
    claims: Claims<String>,
    gateway: WriterId,
    sequence: u64,
}

impl StandIn {
    /// A Redis that is there.
    pub(crate) fn new() -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (leases, Questions(questions)) = Leases::new(LIFETIME, Arc::clone(&metrics));
        let gateway = WriterId::random();
        let mut claims = Claims::default();
        for time in [0, NOW / 2] {
            claims.beat(gateway, time);
        }
        let stand_in = Self { leases, metrics, questions, claims, gateway, sequence: 0 };
        stand_in.settle(true);
        stand_in
    }

    /// Redis is there from now on, or has lost everything and settles.
    pub(crate) fn settle(&self, settled: bool) {
        self.leases.link.hear(self.leases.since.elapsed(), 1);
        self.leases.link.settle(settled);
    }

    /// Another gateway holds so many slots of a limit.
    pub(crate) fn held_elsewhere(&mut self, subject: &Subject, slots: u64) {
        let other = WriterId::random();
        self.claims.beat(other, NOW);
        let ask = Ask { must: slots, need: 0, spare: 0, limit: slots, base: 0, next: None, linger: 0 };
        self.claims.ask(subject.key().to_string(), other, 1, 2, &ask, NOW);
    }

    /// Answers what was asked so far; says what it was.
    pub(crate) fn answer(&mut self, book: &dyn Book) -> Vec<Subject> {
        let mut asked = Vec::new();
        while let Ok(question) = self.questions.try_recv() {
            asked.extend(question.subjects.iter().copied());
            self.reply(book, question);
        }
        asked
    }

    /// Answers a call until it is done.
    pub(crate) async fn serve<T>(&mut self, book: &dyn Book, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                done = &mut call => return done,
                Some(question) = self.questions.recv() => self.reply(book, question),
            }
        }
    }

    fn reply(&mut self, book: &dyn Book, question: Question) {
        for subject in &question.subjects {
            let moment = self.leases.moment();
            let Some(ask) = book.ask(subject, question.answered.is_some().into(), moment) else { continue };
            self.sequence += 1;
            let (_, answer) = self.claims.ask(subject.key().to_string(), self.gateway, self.sequence, 1, &ask, NOW);
            book.answer(subject, &ask, Some(&answer), moment);
        }
        if let Some(call) = question.answered {
            let _ = call.send(());
        }
    }
}
