//! The order in which attempts come from the stream into the ledger: entries are stored, then their writers are told,
//! then the stream lets go of them. Whoever keeps this order may die anywhere; what is done again is harmless.
//!
//! What it waits for is behind [`Ends`], so that control runs it on Redis and Postgres and the simulator on stand-ins.

use std::fmt::Display;

use tokio::sync::mpsc;

use crate::ids::WriterId;
use crate::record::batch::{Batch, RawEntry};

/// How far logs are stored.
pub type Marks = Vec<(WriterId, u64)>;

/// Which entries a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that were delivered before and not let go of.
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

/// Why a batch was not stored.
#[derive(Debug)]
pub enum Unstored<E> {
    /// The ledger will never take this content.
    Refused(E),
    /// Not now.
    Failed(E),
}

/// The stream's and the ledger's end of the ingester.
pub trait Ends {
    /// Why one of them gave no answer, or no good one.
    type Error: Display;

    /// Whether this run goes on while there are entries; marks are published anew between runs.
    fn has_time(&self) -> bool;

    /// The ledger's marks of all writers.
    fn marks(&self) -> impl Future<Output = Result<Marks, Self::Error>>;

    /// Publishes marks in place of all that were published before.
    fn replace_marks(&self, marks: &Marks) -> impl Future<Output = Result<(), Self::Error>>;

    /// The next entries; none are left, or have come, when there are none.
    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Option<Arrived>, Self::Error>>;

    /// Stores a batch, all of it or nothing; the marks of its writers afterwards.
    fn store(&self, batch: &Batch) -> impl Future<Output = Result<Marks, Unstored<Self::Error>>>;

    /// Publishes some writers' marks.
    fn publish_marks(&self, marks: &Marks) -> impl Future<Output = Result<(), Self::Error>>;

    /// Has the stream let go of entries.
    fn let_go(&self, entries: &[RawEntry]) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Entries of which everything is stored, and where that leaves their writers.
struct Kept {
    entries: Vec<RawEntry>,
    marks: Marks,
}

impl Arrived {
    /// Reads entries, which takes milliseconds for thousands.
    #[must_use]
    pub fn new(entries: Vec<RawEntry>) -> Self {
        Self { batch: Batch::read(&entries), entries }
    }
}

/// Ingests until nothing is left or time is up; first what was delivered to an ingester that died, or to a run that
/// failed.
///
/// # Errors
/// When an end fails; the next run begins where this one was.
pub async fn run<E: Ends>(ends: &E) -> Result<(), E::Error> {
    ends.replace_marks(&ends.marks().await?).await?;
    while let Some(arrived) = ends.read(Wanted::Pending).await? {
        tell(ends, keep(ends, arrived).await?).await?;
        if !ends.has_time() {
            return Ok(());
        }
    }
    let (kept, to_tell) = mpsc::channel(1);
    tokio::try_join!(keep_new(ends, kept), tell_all(ends, to_tell)).map(drop)
}

/// Stores what comes. The next batch is read while one is stored; should that fail, it is pending.
async fn keep_new<E: Ends>(ends: &E, kept: mpsc::Sender<Kept>) -> Result<(), E::Error> {
    let mut next = ends.read(Wanted::New).await?;
    while let Some(arrived) = next {
        let keep = async {
            let batch = keep(ends, arrived).await?;
            // Nobody takes it only where telling failed, which ends the run.
            let _ = kept.send(batch).await;
            Ok(())
        };
        let read = async { if ends.has_time() { ends.read(Wanted::New).await } else { Ok(None) } };
        let (done, read) = tokio::join!(keep, read);
        done?;
        next = read?;
    }
    Ok(())
}

/// Tells the writers of each batch, while the next is stored.
async fn tell_all<E: Ends>(ends: &E, mut kept: mpsc::Receiver<Kept>) -> Result<(), E::Error> {
    while let Some(batch) = kept.recv().await {
        tell(ends, batch).await?;
    }
    Ok(())
}

/// Stores entries; halves those among which is one whose content is refused, until that one is put aside.
async fn keep<E: Ends>(ends: &E, arrived: Arrived) -> Result<Kept, E::Error> {
    let Arrived { entries, batch } = arrived;
    let mut marks = match ends.store(&batch).await {
        Ok(marks) => return Ok(Kept { entries, marks }),
        Err(Unstored::Failed(error)) => return Err(error),
        Err(Unstored::Refused(_)) => Marks::new(),
    };
    let mut parts = vec![entries.as_slice()];
    while let Some(part) = parts.pop() {
        let stored = match (ends.store(&Batch::read(part)).await, part) {
            (Err(Unstored::Refused(refusal)), [entry]) => {
                ends.store(&Batch::rejecting(entry, &format!("{refusal:#}"))).await
            }
            (Err(Unstored::Refused(_)), part) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
            (stored, _) => stored,
        };
        marks.extend(stored.map_err(|(Unstored::Refused(error) | Unstored::Failed(error))| error)?);
    }
    Ok(Kept { entries, marks })
}

/// Tells the writers of a batch how far they are stored, and has its entries let go of.
async fn tell<E: Ends>(ends: &E, kept: Kept) -> Result<(), E::Error> {
    ends.publish_marks(&kept.marks).await?;
    ends.let_go(&kept.entries).await
}
