//! The order in which attempts come from the stream into the ledger: entries are stored, then their writers are told,
//! then the stream lets go of them. A state machine that says which steps may begin and is told what came of each;
//! whoever takes them may die between any two, and what is done again is harmless.
//!
//! While a batch is stored the next one is read and the one before told, so that storing never waits.

use std::mem::take;

use crate::ids::WriterId;
use crate::record::batch::{Batch, RawEntry};

/// How far logs are stored.
pub type Marks = Vec<(WriterId, u64)>;

/// Which entries a read asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Those that were delivered before and not let go of.
    #[default]
    Pending,
    /// Those that nobody has had; waits a moment for them.
    New,
}

/// Entries of one read, and what they say.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// As they came.
    pub entries: Vec<RawEntry>,
    /// Read.
    pub batch: Batch,
}

/// Entries of which everything is stored, and where that leaves their writers.
#[derive(Clone, Debug)]
pub struct Kept {
    /// As they came.
    pub entries: Vec<RawEntry>,
    /// The marks of their writers.
    pub marks: Marks,
}

/// What is to be done; each at most once at a time.
#[derive(Clone, Debug)]
pub enum Step {
    /// Read the ledger's marks of all writers.
    ReadMarks,
    /// Publish these in place of all that were published before.
    ReplaceMarks(Marks),
    /// Read entries.
    Read(Wanted),
    /// Store them, all of them or nothing.
    Store(Arrived),
    /// Publish the marks of some writers.
    Publish(Marks),
    /// Have the stream let go of entries.
    LetGo(Vec<RawEntry>),
}

/// What was done.
#[derive(Clone, Debug)]
pub enum Done {
    /// [`Step::ReadMarks`].
    Marks(Marks),
    /// [`Step::ReplaceMarks`].
    Replaced,
    /// [`Step::Read`]; none are left, or have come, when there are none.
    Read(Option<Arrived>),
    /// [`Step::Store`].
    Stored(Kept),
    /// [`Step::Publish`].
    Published,
    /// [`Step::LetGo`].
    Gone,
}

/// One run of the ingester. A step that fails ends it; the next run begins where it was.
#[derive(Debug, Default)]
pub struct Ingest {
    beginning: Beginning,
    wanted: Wanted,
    reading: Reading,
    arrived: Option<Arrived>,
    is_storing: bool,
    kept: Option<Kept>,
    telling: Telling,
}

#[derive(Debug, Default)]
enum Beginning {
    #[default]
    Due,
    Have(Marks),
    UnderWay,
    Over,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Reading {
    /// The first of a run, for which there is always time.
    #[default]
    First,
    Due,
    UnderWay,
    Over,
}

#[derive(Debug, Default)]
enum Telling {
    #[default]
    Idle,
    /// These are let go of once their marks are published.
    Publishing(Vec<RawEntry>),
    Published(Vec<RawEntry>),
    LettingGo,
}

impl Arrived {
    /// Reads entries, which takes milliseconds for thousands.
    #[must_use]
    pub fn new(entries: Vec<RawEntry>) -> Self {
        Self { batch: Batch::read(&entries), entries }
    }
}

impl Ingest {
    /// A step that may begin now, beside those under way; the run is over when there is none and none is under way.
    /// Without time nothing more is read.
    pub fn next(&mut self, has_time: bool) -> Option<Step> {
        match take(&mut self.beginning) {
            Beginning::Over => self.beginning = Beginning::Over,
            beginning => {
                self.beginning = Beginning::UnderWay;
                return match beginning {
                    Beginning::Due => Some(Step::ReadMarks),
                    Beginning::Have(marks) => Some(Step::ReplaceMarks(marks)),
                    Beginning::UnderWay | Beginning::Over => None,
                };
            }
        }
        self.tell().or_else(|| self.store()).or_else(|| self.read(has_time))
    }

    fn tell(&mut self) -> Option<Step> {
        match take(&mut self.telling) {
            Telling::Idle => {
                let Kept { entries, marks } = self.kept.take()?;
                self.telling = Telling::Publishing(entries);
                Some(Step::Publish(marks))
            }
            Telling::Published(entries) => {
                self.telling = Telling::LettingGo;
                Some(Step::LetGo(entries))
            }
            under_way => {
                self.telling = under_way;
                None
            }
        }
    }

    fn store(&mut self) -> Option<Step> {
        if self.is_storing || self.kept.is_some() {
            return None;
        }
        let arrived = self.arrived.take()?;
        self.is_storing = true;
        Some(Step::Store(arrived))
    }

    fn read(&mut self, has_time: bool) -> Option<Step> {
        // Pending are also those that are being stored and told.
        let waits = self.wanted == Wanted::Pending && !self.has_settled();
        if waits || self.arrived.is_some() || matches!(self.reading, Reading::UnderWay | Reading::Over) {
            return None;
        }
        if self.reading == Reading::Due && !has_time {
            self.reading = Reading::Over;
            return None;
        }
        self.reading = Reading::UnderWay;
        Some(Step::Read(self.wanted))
    }

    fn has_settled(&self) -> bool {
        !self.is_storing && self.kept.is_none() && matches!(self.telling, Telling::Idle)
    }

    /// Takes in what was done.
    pub fn done(&mut self, done: Done) {
        match done {
            Done::Marks(marks) => self.beginning = Beginning::Have(marks),
            Done::Replaced => self.beginning = Beginning::Over,
            Done::Read(Some(arrived)) => (self.arrived, self.reading) = (Some(arrived), Reading::Due),
            Done::Read(None) if self.wanted == Wanted::Pending => {
                (self.wanted, self.reading) = (Wanted::New, Reading::Due);
            }
            Done::Read(None) => self.reading = Reading::Over,
            Done::Stored(kept) => (self.kept, self.is_storing) = (Some(kept), false),
            Done::Published => {
                if let Telling::Publishing(entries) = take(&mut self.telling) {
                    self.telling = Telling::Published(entries);
                }
            }
            Done::Gone => self.telling = Telling::Idle,
        }
    }
}
