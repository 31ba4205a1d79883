//! An old version of a file, as it stands in the destination: small ones in memory, large ones read as they are needed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::delta::WINDOW;
use crate::delta::blocks::Search;
use crate::manifest::ContentId;
use crate::manifest::path::TreePath;
use crate::store::files::Dir;
use crate::store::locate::locate;
use crate::store::outboard::Outboard;
use crate::store::proof::hash_file;

/// Bytes of a large file searched at once.
const STEP: u64 = 4 << 20;

/// The bytes, or the way to them.
enum Bytes {
    Small(Vec<u8>),
    Large(File),
}

/// An old version.
pub(super) struct Old {
    bytes: Bytes,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its content.
    pub(super) id: ContentId,
    /// Of one over 256 KiB that is not in memory.
    pub(super) hashes: Option<Outboard>,
}

impl Old {
    /// Opens and hashes it; none where it is gone or has another size than was planned with.
    pub(super) fn open(dest: &Dir, path: &TreePath, size: u64) -> Option<Self> {
        let (dir, name) = locate(dest, path).ok()?;
        let mut file = dir.open_file(&name).ok()?;
        if size > WINDOW {
            let hashed = hash_file(&file).ok().filter(|hashed| hashed.size == size)?;
            return Some(Self { bytes: Bytes::Large(file), size, id: hashed.id, hashes: hashed.outboard });
        }
        let mut bytes = Vec::new();
        file.by_ref().take(WINDOW + 1).read_to_end(&mut bytes).ok()?;
        let same = u64::try_from(bytes.len()).is_ok_and(|length| length == size);
        same.then(|| Self { id: ContentId::of(&bytes), bytes: Bytes::Small(bytes), size, hashes: None })
    }

    /// What of it helps with a window: all of a small one, of others the ranges that the source chose.
    pub(super) fn help(&self, ranges: &[(u64, u64)]) -> Option<Vec<u8>> {
        match &self.bytes {
            Bytes::Small(bytes) => Some(bytes.clone()),
            Bytes::Large(_) => {
                let parts = ranges.iter().map(|(start, length)| self.read(*start, *length));
                Some(parts.collect::<Option<Vec<_>>>()?.concat())
            }
        }
    }

    /// Some of its bytes; none if they are not there.
    pub(super) fn read(&self, start: u64, length: u64) -> Option<Vec<u8>> {
        let end = start.checked_add(length).filter(|end| *end <= self.size)?;
        match &self.bytes {
            Bytes::Small(bytes) => Some(bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?.to_vec()),
            Bytes::Large(file) => {
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                file.read_exact_at(&mut bytes, start).ok()?;
                Some(bytes)
            }
        }
    }

    /// Looks for blocks of `block` bytes everywhere in it, and for a last one of `rest` bytes at its end.
    pub(super) fn search(&self, search: &mut Search, block: u32, rest: u64) -> Option<()> {
        let mut start = 0;
        while start < self.size {
            let end = self.size.min(start + STEP + u64::from(block) - 1);
            search.look(&self.read(start, end - start)?, start);
            start += STEP;
        }
        if rest > 0 && rest <= self.size {
            search.look_at_end(&self.read(self.size - rest, rest)?, usize::try_from(rest).ok()?, self.size);
        }
        Some(())
    }
}
