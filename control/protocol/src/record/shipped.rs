//! One log on its way to Redis: what of it comes next, and whether its end was told.

use crate::record::book::Position;
use crate::record::disk::Disk;
use crate::record::marks::confirms;
use crate::record::reader::Stored;
use crate::record::shipment::Shipment;
use crate::usage::{Beat, Entry, Written};

/// One log and how far it is shipped.
#[derive(Debug)]
pub struct Shipped<D> {
    /// The log.
    pub stored: Stored<D>,
    /// How far it is sent and confirmed.
    pub shipment: Shipment,
    /// Where the last batch ended.
    pub cursor: Option<Cursor>,
    /// Whether its end was told.
    pub farewell: Farewell,
    /// Whether its writer was a process that died.
    pub adopted: bool,
}

/// What of a log comes next.
#[derive(Debug)]
pub enum Located {
    /// Everything was sent.
    Nothing,
    /// It is to be read from here on.
    At(Cursor),
    /// It was confirmed and deleted, and now the ledger wants it again.
    Deleted(Entry<Written>),
}

/// Where on disk a sequence begins to be looked for.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// The sequence.
    pub next: u64,
    /// A point at or before it.
    pub position: Position,
}

/// Whether Redis was told that a writer will write no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Not yet, or to another run of Redis.
    Unsaid,
    /// Said while records were on the way: said again, in case it is lost with them.
    Said,
    /// Said after all records were in Postgres.
    Heard,
}

impl<D: Disk> Shipped<D> {
    /// A log of which nothing is sent yet; what is deleted was confirmed.
    pub fn new(stored: Stored<D>, adopted: bool) -> Self {
        let shipment = Shipment::confirmed_up_to(stored.book().first() - 1);
        Self { stored, shipment, cursor: None, farewell: Farewell::Unsaid, adopted }
    }

    /// Where the next sequence to send is.
    pub fn locate(&self) -> Located {
        let book = self.stored.book();
        let next = self.shipment.next();
        if next > book.last() {
            return Located::Nothing;
        }
        if next < book.first() {
            let (writer, through) = (self.stored.writer, book.first() - 1);
            return Located::Deleted(Entry::Gap { writer, from: next, through, damaged: true });
        }
        let known = self.cursor.filter(|cursor| cursor.next == next);
        let found = known.or_else(|| book.holding(next).map(|position| Cursor { next, position }));
        found.map_or(Located::Nothing, Located::At)
    }

    /// Whether it is time to say that the writer will write no more: once all is sent, then each second until heard.
    pub fn says_farewell(&self, last: u64, due: bool) -> bool {
        match self.farewell {
            Farewell::Unsaid => self.shipment.next() > last,
            Farewell::Said => due,
            Farewell::Heard => false,
        }
    }

    /// What a farewell with this beat is worth.
    pub fn farewell_after(&self, beat: &Beat) -> Farewell {
        if confirms(self.shipment.mark(), beat) { Farewell::Heard } else { Farewell::Said }
    }
}

#[cfg(test)]
mod tests;
