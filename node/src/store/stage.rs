//! What is on its way into a destination, and what was there before. In `.murmir/` at the root of DEST:
//! `stage/<id>` whole files, `stage/<id>.part` with `stage/<id>.obao16` partial ones, `old/<id>.<since>` superseded
//! ones, `outboards/<id>.obao`. Nothing here is trusted after a restart: whole files are hashed, partial ones verified.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::files::{Attributes, Dir, FileError, Kind};
use super::outboard::Outboard;
use super::proof::{hash_file, outboard_of, verify_small};
use crate::manifest::ContentId;

mod partial;
pub use partial::Partial;

/// The directory of what is staged.
const STAGE: &str = "stage";
/// Suffix of a partial file.
const PART: &str = ".part";
/// Suffix of its outboard: 16 KiB groups, pre-order, zeros where nothing is known yet.
const HASHES: &str = ".obao16";
/// Suffix of a small file while it is written a second time.
const TEMPORARY: &str = ".tmp";

/// Bytes of one partial file, or of small files together, that wait for the disk.
const WRITE_BACK: u64 = 64 << 20;

/// Staging that failed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The disk said no.
    #[error(transparent)]
    File {
        /// Why.
        #[from]
        source: FileError,
    },
    /// Bytes of another content id or another file; not written.
    #[error("not the content of {id}")]
    False {
        /// Hex id that was wanted.
        id: String,
    },
    /// Finished too early.
    #[error("{id} is incomplete: {bytes} bytes are missing")]
    Incomplete {
        /// Hex id.
        id: String,
        /// How many are missing.
        bytes: u64,
    },
}

/// A superseded file that is still here for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Old {
    /// When it was superseded, Unix seconds.
    since: u64,
    size: u64,
}

/// The stage of one destination.
#[derive(Debug)]
pub struct Stage {
    stage: Dir,
    old: Dir,
    outboards: Dir,
    kept: Mutex<BTreeMap<[u8; 32], Old>>,
    /// Small files written a second time, to tell their temporary names apart.
    copies: AtomicU64,
    /// Bytes of small files since the disk was last told to write.
    unwritten: AtomicU64,
}

impl Stage {
    /// Opens the stage in `.murmir`, hashing what is staged whole and removing what is not what its name says.
    pub fn open(murmir: &Dir) -> Result<Self, FileError> {
        let stage = murmir.child_or_make(STAGE)?;
        let old = murmir.child_or_make("old")?;
        let outboards = murmir.child_or_make("outboards")?;
        for (name, kind) in stage.entries()? {
            if !is_sound(&stage, &name, kind) {
                discard(&stage, &name, kind)?;
            }
        }
        let mut kept = BTreeMap::new();
        for (name, kind) in old.entries()? {
            match parse_old(&name).filter(|_| kind == Kind::File) {
                Some((id, since)) => {
                    let size = old.stat(&name)?.stamp.size;
                    kept.insert(id.0, Old { since, size });
                }
                None => discard(&old, &name, kind)?,
            }
        }
        Ok(Self {
            stage,
            old,
            outboards,
            kept: Mutex::new(kept),
            copies: AtomicU64::default(),
            unwritten: AtomicU64::default(),
        })
    }

    /// Removes all that is staged in the directory `murmir`: nothing is to come any more.
    ///
    /// # Errors
    /// The disk fails.
    pub fn empty(murmir: &Dir) -> Result<(), FileError> {
        let stage = match murmir.child(STAGE) {
            Err(error) if error.is_missing() => return Ok(()),
            other => other?,
        };
        for (name, kind) in stage.entries()? {
            discard(&stage, &name, kind)?;
        }
        Ok(())
    }

    /// Stages a small file from all of its bytes.
    pub fn put_small(&self, id: &ContentId, bytes: &[u8], attributes: Attributes) -> Result<(), StageError> {
        if !verify_small(id, bytes) {
            return Err(StageError::False { id: id.hex() });
        }
        // Under its own name at once: what a crash leaves half written is found by its hash when the stage is opened.
        let name = id.hex();
        match self.stage.create_new(&name) {
            Ok(file) => self.fill(file, &name, bytes, attributes).inspect_err(|_| drop(remove(&self.stage, &name))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.replace_small(&name, bytes, attributes),
            Err(error) => Err(error.into()),
        }
    }

    /// Stages a file of any size from all of its bytes, with its outboard; false if they are not those of `id`.
    pub fn put_whole(&self, id: &ContentId, bytes: &[u8], attributes: Attributes) -> Result<bool, StageError> {
        match self.put_small(id, bytes, attributes) {
            Err(StageError::False { .. }) => return Ok(false),
            other => other?,
        }
        if let Some(outboard) = outboard_of(id, bytes) {
            outboard.store(&self.outboards, id)?;
        }
        Ok(true)
    }

    /// Another copy may still be on its way into that file.
    fn replace_small(&self, name: &str, bytes: &[u8], attributes: Attributes) -> Result<(), StageError> {
        let temporary = format!("{name}.{}{TEMPORARY}", self.copies.fetch_add(1, Ordering::Relaxed));
        self.fill(self.stage.create_new(&temporary)?, &temporary, bytes, attributes)?;
        Ok(self.stage.rename(&temporary, &self.stage, name)?)
    }

    fn fill(&self, mut file: File, name: &str, bytes: &[u8], attributes: Attributes) -> Result<(), StageError> {
        let failed = |e| FileError::new("write", &self.stage.path().join(name), e);
        file.write_all(bytes).map_err(failed)?;
        attributes.give(&file).map_err(failed)?;
        Ok(self.write_back(bytes.len() as u64)?)
    }

    /// Has the disk write while the network still brings: the sync at the end then finds little to do.
    fn write_back(&self, written: u64) -> Result<(), FileError> {
        if self.unwritten.fetch_add(written, Ordering::Relaxed) + written < WRITE_BACK {
            return Ok(());
        }
        self.unwritten.store(0, Ordering::Relaxed);
        self.stage.sync_fs()
    }

    /// Opens the partial file `id` of `size` bytes, with what is left of it from before, or a new one. At most one at
    /// a time per id; it may be written to by many threads.
    pub fn partial(&self, id: &ContentId, size: u64) -> Result<Partial, StageError> {
        Partial::open(&self.stage, id, size)
    }

    /// Turns a partial file with nothing missing into a staged one and stores its outboard, made from the hashes that
    /// came with the data.
    pub fn finish(&self, partial: &Partial) -> Result<Option<Outboard>, StageError> {
        let outboard = partial.outboard()?;
        let id = partial.id();
        if let Some(outboard) = &outboard {
            outboard.store(&self.outboards, id)?;
        }
        self.stage.rename(format!("{}{PART}", id.hex()), &self.stage, id.hex())?;
        remove(&self.stage, &format!("{}{HASHES}", id.hex()))?;
        Ok(outboard)
    }

    /// Whether `id` is staged whole.
    pub fn complete(&self, id: &ContentId) -> bool {
        self.stage.stat(id.hex()).is_ok_and(|stat| stat.kind == Kind::File)
    }

    /// All that is staged whole.
    pub fn whole(&self) -> Result<HashSet<ContentId>, FileError> {
        let entries = self.stage.entries()?.into_iter().filter(|(_, kind)| *kind == Kind::File);
        Ok(entries.filter_map(|(name, _)| ContentId::from_hex(&name)).collect())
    }

    /// Whether a former run left a part of `id`.
    pub fn has_partial(&self, id: &ContentId) -> bool {
        self.stage.stat(format!("{}{PART}", id.hex())).is_ok_and(|stat| stat.kind == Kind::File)
    }

    /// The staged file `id`, to read.
    pub fn open_file(&self, id: &ContentId) -> Result<File, FileError> {
        self.stage.open_file(id.hex())
    }

    /// The directory of whole staged files, named by hex id: each gets its attributes there, and is renamed away.
    pub fn dir(&self) -> &Dir {
        &self.stage
    }

    /// The directory of stored outboards.
    pub fn outboards(&self) -> &Dir {
        &self.outboards
    }

    /// Removes all that is staged of `id`.
    pub fn remove(&self, id: &ContentId) -> Result<(), FileError> {
        for suffix in ["", PART, HASHES] {
            remove(&self.stage, &format!("{}{suffix}", id.hex()))?;
        }
        Ok(())
    }

    /// Keeps the file `name` of `from`, believed to be `id`, for others by a second name, before it is replaced or
    /// deleted. `now` in Unix seconds. Served like any file: only with a proof made from its bytes.
    pub fn keep(&self, id: &ContentId, from: &Dir, name: impl AsRef<[u8]>, now: u64) -> Result<(), FileError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = kept.remove(&id.0) {
            remove(&self.old, &old_name(id, before.since))?;
        }
        let new = old_name(id, now);
        match from.link(name, &self.old, &new) {
            // A failure between this and the next line, in the same second.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        kept.insert(id.0, Old { since: now, size: self.old.stat(&new)?.stamp.size });
        Ok(())
    }

    /// The superseded file `id`, if it is still here.
    pub fn kept(&self, id: &ContentId) -> Option<File> {
        let since = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&id.0)?.since;
        self.old.open_file(old_name(id, since)).ok()
    }

    /// The superseded file whose id begins with `start`, if there is one of `size` bytes.
    pub fn kept_like(&self, start: &[u8; 8], size: u64) -> Option<ContentId> {
        let mut first = [0; 32];
        first[..8].copy_from_slice(start);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut like = kept.range(first..).take_while(|(id, _)| id.starts_with(start));
        like.find(|(_, old)| old.size == size).map(|(id, _)| ContentId(*id))
    }

    /// Whether the superseded file `id` is still here.
    pub fn keeps(&self, id: &ContentId) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id.0)
    }

    /// How many superseded files are here, and their bytes.
    pub fn kept_total(&self) -> (u64, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.len() as u64, kept.values().fold(0, |sum, old| sum.saturating_add(old.size)))
    }

    /// Removes superseded files older than `grace` seconds, then the oldest until the rest fits in `budget` bytes,
    /// with their outboards. Gives how many.
    pub fn sweep(&self, now: u64, grace: u64, budget: u64) -> Result<usize, FileError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = expired(&kept, now, grace, budget);
        for (id, since) in &expired {
            remove(&self.old, &old_name(id, *since))?;
            remove(&self.outboards, &super::outboard::file_name(id))?;
            kept.remove(&id.0);
        }
        Ok(expired.len())
    }
}

/// What a sweep removes, with its time: oldest first.
fn expired(kept: &BTreeMap<[u8; 32], Old>, now: u64, grace: u64, budget: u64) -> Vec<(ContentId, u64)> {
    let mut by_age: Vec<_> = kept.iter().map(|(id, old)| (old.since, old.size, ContentId(*id))).collect();
    by_age.sort_unstable_by_key(|(since, _, id)| (*since, id.0));
    let mut total = by_age.iter().fold(0u64, |sum, (_, size, _)| sum.saturating_add(*size));
    by_age
        .into_iter()
        .take_while(|(since, size, _)| {
            let goes = now.saturating_sub(*since) > grace || total > budget;
            total = total.saturating_sub(*size);
            goes
        })
        .map(|(since, _, id)| (id, since))
        .collect()
}

/// Whether a name in `stage/` may stay: a whole file with the content of its name, or half of a partial pair.
fn is_sound(stage: &Dir, name: &[u8], kind: Kind) -> bool {
    let Some(text) = str::from_utf8(name).ok().filter(|_| kind == Kind::File) else { return false };
    let has = |suffix: &str, stem: &str| stage.stat(format!("{stem}{suffix}")).is_ok_and(|s| s.kind == Kind::File);
    if let Some(stem) = text.strip_suffix(PART) {
        return ContentId::from_hex(stem.as_bytes()).is_some() && has(HASHES, stem);
    }
    if let Some(stem) = text.strip_suffix(HASHES) {
        return ContentId::from_hex(stem.as_bytes()).is_some() && has(PART, stem);
    }
    let Some(id) = ContentId::from_hex(text.as_bytes()) else { return false };
    stage.open_file(name).is_ok_and(|file| hash_file(&file).is_ok_and(|hashed| hashed.id == id))
}

fn old_name(id: &ContentId, since: u64) -> String {
    format!("{}.{since}", id.hex())
}

fn parse_old(name: &[u8]) -> Option<(ContentId, u64)> {
    let (id, since) = str::from_utf8(name).ok()?.split_once('.')?;
    let parsed = (ContentId::from_hex(id.as_bytes())?, u64::from_str(since).ok()?);
    (old_name(&parsed.0, parsed.1).as_bytes() == name).then_some(parsed)
}

/// Removes garbage; directories that are not empty are left, they are nobody's here.
fn discard(dir: &Dir, name: &[u8], kind: Kind) -> Result<(), FileError> {
    match kind {
        Kind::Dir => {
            if let Err(error) = dir.remove_dir(name) {
                tracing::warn!(%error, "left in the stage");
            }
            Ok(())
        }
        Kind::File | Kind::Symlink | Kind::Special => dir.unlink(name),
    }
}

/// Removes a name that may be missing.
fn remove(dir: &Dir, name: &str) -> Result<(), FileError> {
    match dir.unlink(name) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
