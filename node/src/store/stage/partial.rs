//! A file that arrives in verified ranges, in any order, over any number of runs.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::{encode_ranges_validated, valid_ranges};
use bao_tree::{BaoTree, ByteRanges, ChunkRanges};
use rustix::io::{Errno, pwritev};

use super::{HASHES, PART, StageError, WRITE_BACK, remove};
use crate::manifest::ContentId;
use crate::store::files::{Dir, FileError};
use crate::store::outboard::{self, GROUP, Outboard, PAIR, WIDE_GROUP};
use crate::store::proof::{BLOCK, ProofError, Verified, check_range, chunks, verify_small};

/// A partial file. Data are written before the hashes above them and both are verified again when it is opened, so a
/// crash at any point costs only what was in flight.
#[derive(Debug)]
pub struct Partial {
    id: ContentId,
    size: u64,
    data: File,
    hashes: File,
    name: String,
    missing: Mutex<ByteRanges>,
    turn: Mutex<()>,
    /// Bytes written since the disk was last told to.
    unwritten: AtomicU64,
}

impl Partial {
    pub(super) fn open(stage: &Dir, id: &ContentId, size: u64) -> Result<Self, StageError> {
        if size == 0 && !verify_small(id, &[]) {
            return Err(StageError::False { id: id.hex() });
        }
        let name = format!("{}{PART}", id.hex());
        let hashes_name = format!("{}{HASHES}", id.hex());
        let hashes_size = outboard::parents(size, GROUP).saturating_mul(PAIR as u64);
        let before = resume(stage, &name, size)?.zip(resume(stage, &hashes_name, hashes_size)?);
        let resumed = before.is_some();
        let (data, hashes) = match before {
            Some(files) => files,
            None => (create(stage, &name, size)?, create(stage, &hashes_name, hashes_size)?),
        };
        let name = stage.path().join(name).display().to_string();
        let missing = Mutex::new(ByteRanges::from(0..size));
        let (turn, unwritten) = (Mutex::default(), AtomicU64::new(0));
        let partial = Self { id: *id, size, data, hashes, name, missing, turn, unwritten };
        if resumed {
            let valid = partial.valid().map_err(|e| partial.failed("verify", e))?;
            *partial.lock() -= valid;
        }
        Ok(partial)
    }

    /// Of what.
    pub fn id(&self) -> &ContentId {
        &self.id
    }

    /// Its size when it is whole, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes a verified range of this very file.
    pub fn write(&self, range: &Verified<'_>) -> Result<(), StageError> {
        if (range.id, range.size) != (self.id, self.size) {
            return Err(StageError::False { id: self.id.hex() });
        }
        self.write_all(range).map_err(|e| self.failed("write", e))?;
        *self.lock() -= ByteRanges::from(range.offset..range.offset + range.length());
        Ok(())
    }

    /// What is missing: ascending, apart, starting at groups.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let missing = self.lock();
        missing.boundaries().as_chunks::<2>().0.iter().map(|[start, end]| *start..*end).collect()
    }

    /// Bytes that are here: only what is not missing is worth anything.
    pub fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, StageError> {
        let mut bytes = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)];
        self.data.read_exact_at(&mut bytes, range.start).map_err(|e| self.failed("read", e))?;
        Ok(bytes)
    }

    /// What is here: ascending, apart.
    pub fn present(&self) -> Vec<Range<u64>> {
        let present = ByteRanges::from(0..self.size) - &*self.lock();
        present.boundaries().as_chunks::<2>().0.iter().map(|[start, end]| *start..*end).collect()
    }

    /// Whether all of a range is here.
    pub fn has(&self, range: &Range<u64>) -> bool {
        !self.lock().intersects(&ByteRanges::from(range.clone()))
    }

    /// Encodes a range that is here, for others; see [`crate::store::proof::encode_range`].
    pub fn encode_range(&self, range: Range<u64>) -> Result<Vec<u8>, ProofError> {
        check_range(self.size, &range)?;
        let mut out = Vec::new();
        match encode_ranges_validated(&self.data, self.tree(), &chunks(self.size, &range), &mut out) {
            Ok(()) => Ok(out),
            Err(bao_tree::io::EncodeError::Io(source)) => Err(source.into()),
            Err(_) => Err(ProofError::Damaged { offset: range.start }),
        }
    }

    /// Its outboard in 256 KiB groups once nothing is missing; `None` for files that have none.
    pub(super) fn outboard(&self) -> Result<Option<Outboard>, StageError> {
        let bytes = self.missing().iter().map(|range| range.end - range.start).sum();
        if bytes > 0 {
            return Err(StageError::Incomplete { id: self.id.hex(), bytes });
        }
        if self.size <= WIDE_GROUP {
            return Ok(None);
        }
        let made = Outboard::coarsen(&self.id, self.size, |number| {
            let mut bytes = [0; PAIR];
            self.hashes.read_exact_at(&mut bytes, number * PAIR as u64)?;
            Ok(outboard::pair(&bytes))
        });
        let damaged = || StageError::False { id: self.id.hex() };
        made.map_err(|e: io::Error| self.failed("read", e))?.ok_or_else(damaged).map(Some)
    }

    fn write_all(&self, range: &Verified<'_>) -> io::Result<()> {
        {
            // The file system lets one writer in at a time, and those that wait there burn the processor.
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            write_groups(&self.data, &range.groups, range.offset)?;
        }
        let neighbours = |a: &(u64, _), b: &(u64, _)| a.0 + 1 == b.0;
        for run in range.parents.chunk_by(neighbours) {
            let first = run.first().map_or(0, |(number, _)| *number);
            let bytes: Vec<u8> = run.iter().flat_map(|(_, pair)| pair.as_flattened()).copied().collect();
            self.hashes.write_all_at(&bytes, first * PAIR as u64)?;
        }
        self.write_back(range.length())
    }

    /// Has the disk write while the network still brings: the sync at the end then finds little to do.
    fn write_back(&self, written: u64) -> io::Result<()> {
        if self.unwritten.fetch_add(written, Ordering::Relaxed) + written < WRITE_BACK {
            return Ok(());
        }
        self.unwritten.store(0, Ordering::Relaxed);
        self.data.sync_data()
    }

    /// What verifies of what is on disk.
    fn valid(&self) -> io::Result<ByteRanges> {
        let all = ChunkRanges::all();
        let mut valid = ByteRanges::empty();
        for range in valid_ranges(self.tree(), &self.data, &all) {
            let range = range?;
            valid |= ByteRanges::from(range.start.to_bytes()..range.end.to_bytes().min(self.size));
        }
        Ok(valid)
    }

    fn tree(&self) -> PreOrderOutboard<&File> {
        PreOrderOutboard { root: self.id.0.into(), tree: BaoTree::new(self.size, BLOCK), data: &self.hashes }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByteRanges> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> StageError {
        FileError::new(action, self.name.as_ref(), source).into()
    }
}

/// Opens `name` if it is there with that size.
fn resume(stage: &Dir, name: &str, size: u64) -> Result<Option<File>, FileError> {
    match stage.stat(name) {
        Ok(stat) if stat.stamp.size == size => stage.open_rw(name).map(Some),
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(None),
    }
}

/// Writes groups one behind the other from `offset` on, from where they stand.
fn write_groups(file: &File, groups: &[&[u8]], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = groups.iter().map(|group| IoSlice::new(group)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match pwritev(file, rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut rest, written);
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes `name` anew, all holes.
fn create(stage: &Dir, name: &str, size: u64) -> Result<File, FileError> {
    remove(stage, name)?;
    let file = stage.create_new(name)?;
    file.set_len(size).map_err(|e| FileError::new("allocate", &stage.path().join(name), e))?;
    Ok(file)
}
