//! One segment of a record log: a preallocated file that frames are appended to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::record::frame::{Entry, Frame, MAX_FRAME, Reader, Stop};
use rustix::fs::{FallocateFlags, fallocate};

use super::book::Position;

/// Bytes read at once; a whole frame always fits.
const PIECE: usize = 4 * MAX_FRAME;

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct Segment {
    number: u64,
    file: Arc<File>,
    size: u64,
    written: u64,
}

/// Some entries of a segment, as they are taken from its frames.
#[derive(Debug)]
pub(crate) struct Piece<T = Entry> {
    /// The entries, in order.
    pub(crate) entries: Vec<T>,
    /// Where the next one begins.
    pub(crate) end: u64,
    /// Why there are no more; none if more can be read from `end`.
    pub(crate) stop: Option<Stop>,
}

impl Segment {
    /// Makes a file whose blocks are all reserved, durably; what is in the way or half made is removed.
    pub(crate) fn create(folder: &Path, number: u64, size: u64) -> io::Result<Self> {
        let path = path(folder, number);
        let made = Self::allocate(&path, number, size).and_then(|segment| {
            File::open(folder)?.sync_all()?;
            Ok(segment)
        });
        if made.is_err() {
            // The first error is the one to report; an empty file that stays behind is overwritten next time.
            let _ = fs::remove_file(&path);
        }
        made
    }

    /// Takes over a segment of zeros that a dead writer kept in reserve.
    pub(crate) fn reopen_empty(folder: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path(folder, number))?;
        let size = file.metadata()?.len();
        Ok(Self { number, file: Arc::new(file), size, written: 0 })
    }

    fn allocate(path: &Path, number: u64, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        file.sync_all()?;
        Ok(Self { number, file: Arc::new(file), size, written: 0 })
    }

    /// Its place in the log.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that are still free.
    pub(crate) fn rest(&self) -> u64 {
        self.size - self.written
    }

    /// The file, to make it durable.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Writes a frame behind the last one; after a failure the next one takes its place.
    pub(crate) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.rest() < frame.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(frame, self.written)?;
        self.written += frame.len() as u64;
        Ok(())
    }
}

/// Where a segment lies.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

/// Gives the room behind the last frame back to the disk.
pub(crate) fn trim(folder: &Path, end: Position) -> io::Result<()> {
    OpenOptions::new().write(true).open(path(folder, end.segment))?.set_len(end.offset)
}

/// The segments of a folder, oldest first.
pub(crate) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads some entries from `from` on, none from `limit` on; bounded in bytes.
pub(crate) fn read(folder: &Path, number: u64, from: u64, limit: u64) -> io::Result<Piece> {
    read_with(folder, number, from, limit, |frame| frame.entry().map(Some).ok_or(Stop::Unreadable))
}

/// Reads some finals like [`read`]: their sequences, and their records as they were written.
pub(crate) fn read_finals(folder: &Path, number: u64, from: u64, limit: u64) -> io::Result<Piece<(u64, Vec<u8>)>> {
    let text = |frame: Frame<'_>| Ok(frame.final_text().map(|(sequence, text)| (sequence, text.to_vec())));
    read_with(folder, number, from, limit, text)
}

/// `take` says what becomes of a frame, if anything; where it stops, the piece ends before that frame.
fn read_with<T>(
    folder: &Path,
    number: u64,
    from: u64,
    limit: u64,
    take: impl Fn(Frame<'_>) -> Result<Option<T>, Stop>,
) -> io::Result<Piece<T>> {
    let file = File::open(path(folder, number))?;
    let limit = limit.min(file.metadata()?.len());
    let length = usize::try_from(limit.saturating_sub(from)).unwrap_or(PIECE).min(PIECE);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, from)?;
    let more = from + (length as u64) < limit;

    let mut reader = Reader::new(&bytes);
    let (mut entries, mut end) = (Vec::new(), 0);
    let stop = loop {
        match reader.next_frame().and_then(&take) {
            Ok(entry) => entries.extend(entry),
            Err(Stop::Cut) if more => break None,
            Err(Stop::End) if more && length - end < 4 => break None,
            Err(stop) => break Some(stop),
        }
        end = reader.position();
    };
    Ok(Piece { end: from + end as u64, entries, stop })
}

#[cfg(test)]
mod tests {
    use protocol::record::frame::{encode_admitted, encode_opened};

    use super::*;
    use crate::usage::sample;

    #[test]
    fn what_is_appended_is_read_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(folder.path(), 3, 1 << 20).unwrap();
        for after in 0..1200 {
            let mut frame = Vec::new();
            encode_opened(after, &mut frame);
            segment.append(&frame).unwrap();
        }
        let mut found = Vec::new();
        let mut from = 0;
        let stop = loop {
            let piece = read(folder.path(), 3, from, u64::MAX).unwrap();
            found.extend(piece.entries);
            from = piece.end;
            if let Some(stop) = piece.stop {
                break stop;
            }
        };
        assert_eq!(stop, Stop::End);
        assert_eq!(from, segment.written());
        assert_eq!(found, (0..1200).map(|after| Entry::Opened { after }).collect::<Vec<_>>());
    }

    /// A frame of exactly this many bytes.
    fn frame_of(size: usize) -> Vec<u8> {
        let mut admission = sample::admission();
        let mut frame = Vec::new();
        encode_admitted(&admission, &mut frame).unwrap();
        let padding = size - (frame.len() - admission.function.len());
        admission.function = "f".repeat(padding);
        frame.clear();
        encode_admitted(&admission, &mut frame).unwrap();
        assert_eq!(frame.len(), size);
        frame
    }

    #[test]
    fn a_piece_that_ends_inside_a_length_goes_on_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(folder.path(), 1, 4 << 20).unwrap();
        segment.append(&frame_of(MAX_FRAME)).unwrap();
        segment.append(&frame_of(MAX_FRAME - 1)).unwrap();
        // Its length is 1024: the one byte of it in the first piece is a zero.
        segment.append(&frame_of(1032)).unwrap();
        let first = read(folder.path(), 1, 0, u64::MAX).unwrap();
        assert_eq!((first.entries.len(), first.stop), (2, None));
        let second = read(folder.path(), 1, first.end, u64::MAX).unwrap();
        assert_eq!((second.entries.len(), second.stop), (1, Some(Stop::End)));
    }

    #[test]
    fn a_full_segment_takes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(folder.path(), 1, 4096).unwrap();
        segment.append(&[1; 4000]).unwrap();
        assert_eq!(segment.append(&[1; 97]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        segment.append(&[1; 96]).unwrap();
        assert_eq!(numbers(folder.path()).unwrap(), [1]);
    }
}
