//! One log on its way to Redis: what of it comes next, and whether its end was told.

use std::time::Duration;

use protocol::record::marks::confirms;
use protocol::record::shipment::Shipment;
use protocol::usage::Beat;
use tracing::error;

use super::book::Position;
use super::folder::{Folder, Lock};
use super::reader::Stored;

/// One log and how far it is shipped.
pub(crate) struct Shipped {
    pub(crate) stored: Stored,
    pub(crate) shipment: Shipment,
    /// Where the last batch ended.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) farewell: Farewell,
    /// The right to a dead writer's folder; none for the log of this process.
    pub(crate) adopted: Option<(Folder, Lock)>,
}

/// Where on disk a sequence begins to be looked for.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) next: u64,
    pub(crate) position: Position,
}

/// Whether Redis was told that a writer will write no more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    Unsaid,
    /// Said while records were on the way: said again, in case it is lost with them.
    Said,
    /// Said after all records were in Postgres.
    Heard,
}

impl Shipped {
    pub(crate) fn new(stored: Stored, adopted: Option<(Folder, Lock)>) -> Self {
        // What is deleted was confirmed.
        let shipment = Shipment::confirmed_up_to(stored.book().first() - 1);
        Self { stored, shipment, cursor: None, farewell: Farewell::Unsaid, adopted }
    }

    /// Where the next sequence to send is; none if there is nothing to send.
    pub(crate) fn locate(&mut self, now: Duration) -> Option<Cursor> {
        let book = self.stored.book();
        if self.shipment.next() < book.first() {
            let writer = self.stored.writer;
            error!(writer.id = %writer, next = self.shipment.next(), first = book.first(), "records wanted again are deleted");
            self.shipment.sent(book.first() - 1, now);
        }
        let next = self.shipment.next();
        if next > book.last() {
            return None;
        }
        let known = self.cursor.filter(|cursor| cursor.next == next);
        known.or_else(|| book.holding(next).map(|position| Cursor { next, position }))
    }

    /// Whether it is time to say that the writer will write no more: once all is sent, then each second until heard.
    pub(crate) fn says_farewell(&self, last: u64, due: bool) -> bool {
        match self.farewell {
            Farewell::Unsaid => self.shipment.next() > last,
            Farewell::Said => due,
            Farewell::Heard => false,
        }
    }

    /// What a farewell with this beat is worth.
    pub(crate) fn farewell_after(&self, beat: &Beat) -> Farewell {
        if confirms(self.shipment.mark(), beat) { Farewell::Heard } else { Farewell::Said }
    }
}
