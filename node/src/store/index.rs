//! What can be rebuilt: tree pages by CID and what is known of files by directory, in large rows. The only file that
//! names sled. Its database may be lost at any time (sled 0.34 can tear its snapshot when killed while opening): then
//! it is set aside, an empty one takes its place and the next scan fills it, also while it is in use. Keys and marks are
//! never kept here.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cid::Cid;
use serde_bytes::ByteArray;

use super::files::Stamp;
use super::glance::Seen;
use super::lock::{Lock, LockError};
use crate::manifest::ContentId;
use crate::manifest::path::{Name, TreePath};
use crate::manifest::walk::Pages;

mod disk;

use disk::Disk;

/// First byte of the key of a page; its CID follows.
const PAGE: u8 = b'p';
/// How the CID of a page begins: version 1, dag-cbor, BLAKE3, 32 bytes.
const PAGE_CID: [u8; 4] = [1, 0x71, 0x1e, 32];
/// First byte of the key of a small content; its id follows.
const CONTENT: u8 = b'c';
/// First byte of the key of a directory's row; BLAKE3 of the tree's key and the path follow.
const STATS: u8 = b's';

/// First byte of the key of what a tree came to; BLAKE3 of the tree's key follows.
const SEEN: u8 = b'g';

/// An index that cannot be used, not even as a new one.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The lock next to it, other than held by another run.
    #[error(transparent)]
    Lock {
        /// Why.
        #[from]
        source: LockError,
    },
    /// Its files cannot be moved or removed.
    #[error("index {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database failed.
    #[error("index: {what}")]
    Database {
        /// What it says.
        what: String,
    },
    /// Its files are damaged, and so are those of the new one.
    #[error("index damaged: {what}")]
    Damaged {
        /// What it says.
        what: String,
    },
}

/// What is known of the files of one directory: state and content when they were last read.
pub type Directory = BTreeMap<Name, (Stamp, ContentId)>;

/// One file of a directory's row: name, size, mtime, ctime, inode, device, content id.
type Row = (serde_bytes::ByteBuf, u64, i64, i64, u64, u64, ByteArray<32>);

/// The index. Calls block on the disk.
#[derive(Debug)]
pub struct Index {
    rows: Rows,
    /// Keys of pages that nobody has touched since the last sweep.
    idle: Mutex<HashSet<Vec<u8>>>,
}

#[derive(Debug)]
enum Rows {
    Disk(Disk),
    Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>),
}

impl Index {
    /// Opens the index in the directory `home` (which exists), repaired or anew if it is damaged; in memory if
    /// another run holds it.
    pub fn open(home: &Path) -> Result<Self, IndexError> {
        let lock = match Lock::acquire(&home.join("index.lock")) {
            Ok(lock) => lock,
            Err(LockError::Busy { .. }) => return Ok(Self::memory()),
            Err(error) => return Err(error.into()),
        };
        Ok(Self::over(Rows::Disk(Disk::open(home, lock)?)))
    }

    /// An index for this run only.
    pub fn memory() -> Self {
        Self::over(Rows::Memory(Mutex::default()))
    }

    fn over(rows: Rows) -> Self {
        Self { rows, idle: Mutex::default() }
    }

    /// Whether it ends with this run.
    pub fn is_memory(&self) -> bool {
        matches!(self.rows, Rows::Memory(_))
    }

    /// The bytes stored for `cid`; not checked against it, as decoding a page does that.
    pub fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, IndexError> {
        let key = page_key(cid);
        self.touch(&key);
        self.get(&key)
    }

    /// The bytes of a page whose hash begins like this; whoever gets them knows which it should be.
    pub fn page_like(&self, start: &[u8; 8]) -> Result<Option<Vec<u8>>, IndexError> {
        let first = [&[PAGE], PAGE_CID.as_slice(), start.as_slice()].concat();
        let row = match &self.rows {
            Rows::Disk(disk) => disk.call(|database| {
                let row = database.scan_prefix(&first).next().transpose()?;
                Ok(row.map(|(key, row)| (key.to_vec(), row.to_vec())))
            })?,
            Rows::Memory(rows) => {
                let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                let row = rows.range(first.clone()..).next().filter(|(key, _)| key.starts_with(&first));
                row.map(|(key, row)| (key.clone(), row.clone()))
            }
        };
        Ok(row.map(|(key, row)| {
            self.touch(&key);
            row
        }))
    }

    /// Whether anything is stored for `cid`; if so, the next sweep leaves it.
    pub fn has_page(&self, cid: &Cid) -> Result<bool, IndexError> {
        let key = page_key(cid);
        self.touch(&key);
        match &self.rows {
            Rows::Disk(disk) => disk.call(|database| Ok(database.contains_key(&key)?)),
            Rows::Memory(rows) => Ok(rows.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)),
        }
    }

    /// Stores pages, all or none.
    pub fn put_pages<'a>(&self, pages: impl IntoIterator<Item = (&'a Cid, &'a [u8])>) -> Result<(), IndexError> {
        let rows: Vec<_> = pages.into_iter().map(|(cid, bytes)| (page_key(cid), bytes.to_vec())).collect();
        rows.iter().for_each(|(key, _)| self.touch(key));
        self.put(rows)
    }

    /// Forgets every page that nobody has read or stored since the last sweep; the first one forgets nothing. Whoever sweeps
    /// reads the pages that must stay before. Gives how many went.
    pub fn sweep_pages(&self) -> Result<usize, IndexError> {
        // Held all the while: a page that is touched now is either gone already or stays.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Vec<u8>> = idle.drain().collect();
        let count = gone.len();
        self.put(gone.into_iter().map(|key| (key, Vec::new())))?;
        idle.extend(self.page_keys()?);
        Ok(count)
    }

    fn touch(&self, key: &[u8]) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn page_keys(&self) -> Result<Vec<Vec<u8>>, IndexError> {
        match &self.rows {
            Rows::Disk(disk) => disk.call(|database| {
                let keys = database.scan_prefix([PAGE]).keys();
                keys.map(|key| Ok(key?.to_vec())).collect()
            }),
            Rows::Memory(rows) => {
                let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(rows.keys().filter(|key| key.first() == Some(&PAGE)).cloned().collect())
            }
        }
    }

    /// Stores a small file that decides what of a tree is wanted.
    pub fn put_content(&self, id: &ContentId, bytes: &[u8]) -> Result<(), IndexError> {
        self.put([(content_key(id), bytes.to_vec())])
    }

    /// What is known of the files of directory `path` in the tree called `tree` (any bytes, such as its path). Empty
    /// if nothing is, or nothing legible.
    pub fn directory(&self, tree: &[u8], path: &TreePath) -> Result<Directory, IndexError> {
        let row = self.get(&stats_key(tree, path))?;
        Ok(row.and_then(|bytes| decode(&bytes)).unwrap_or_default())
    }

    /// Replaces what is known of directories, all or none; an empty one is forgotten.
    pub fn put_directories<'a>(
        &self,
        tree: &[u8],
        directories: impl IntoIterator<Item = (&'a TreePath, &'a Directory)>,
    ) -> Result<(), IndexError> {
        let rows: Result<Vec<_>, IndexError> =
            directories.into_iter().map(|(path, known)| Ok((stats_key(tree, path), encode(known)?))).collect();
        self.put(rows?)
    }

    /// What the tree called `tree` came to when it was last looked at closely.
    pub fn seen(&self, tree: &[u8]) -> Result<Option<Seen>, IndexError> {
        Ok(self.get(&seen_key(tree))?.and_then(|bytes| serde_ipld_dagcbor::from_slice(&bytes).ok()))
    }

    /// Replaces it.
    pub fn put_seen(&self, tree: &[u8], seen: &Seen) -> Result<(), IndexError> {
        let bytes = serde_ipld_dagcbor::to_vec(seen);
        self.put([(seen_key(tree), bytes.map_err(|error| IndexError::Database { what: error.to_string() })?)])
    }

    /// Makes everything put so far durable.
    pub fn flush(&self) -> Result<(), IndexError> {
        match &self.rows {
            Rows::Disk(disk) => disk.call(|database| Ok(database.flush().map(drop)?)),
            Rows::Memory(_) => Ok(()),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match &self.rows {
            Rows::Disk(disk) => disk.call(|database| Ok(database.get(key)?.map(|row| row.to_vec()))),
            Rows::Memory(rows) => Ok(rows.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()),
        }
    }

    /// Writes rows, all or none; an empty one is removed.
    fn put(&self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), IndexError> {
        match &self.rows {
            Rows::Disk(disk) => {
                let mut batch = sled::Batch::default();
                for (key, row) in rows {
                    match row.is_empty() {
                        true => batch.remove(key),
                        false => batch.insert(key, row),
                    }
                }
                disk.call(|database| Ok(database.apply_batch(batch.clone())?))
            }
            Rows::Memory(all) => {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                for (key, row) in rows {
                    match row.is_empty() {
                        true => all.remove(&key),
                        false => all.insert(key, row),
                    };
                }
                Ok(())
            }
        }
    }
}

fn page_key(cid: &Cid) -> Vec<u8> {
    let mut key = vec![PAGE];
    key.extend(cid.to_bytes());
    key
}

fn stats_key(tree: &[u8], path: &TreePath) -> Vec<u8> {
    [&[STATS], blake3::hash(tree).as_bytes().as_slice(), path.as_bytes()].concat()
}

fn seen_key(tree: &[u8]) -> Vec<u8> {
    [&[SEEN], blake3::hash(tree).as_bytes().as_slice()].concat()
}

/// An empty directory has an empty row.
fn encode(known: &Directory) -> Result<Vec<u8>, IndexError> {
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let row = |(name, (stamp, id)): (&Name, &(Stamp, ContentId))| -> Row {
        let name = serde_bytes::ByteBuf::from(name.as_bytes());
        (name, stamp.size, stamp.mtime, stamp.ctime, stamp.ino, stamp.dev, ByteArray::new(id.0))
    };
    let rows: Vec<Row> = known.iter().map(row).collect();
    serde_ipld_dagcbor::to_vec(&rows).map_err(|error| IndexError::Database { what: error.to_string() })
}

fn decode(bytes: &[u8]) -> Option<Directory> {
    let rows: Vec<Row> = serde_ipld_dagcbor::from_slice(bytes).ok()?;
    let known = |(name, size, mtime, ctime, ino, dev, id): Row| {
        let stamp = Stamp { size, mtime, ctime, ino, dev };
        Some((Name::new(&name).ok()?, (stamp, ContentId(id.into_array()))))
    };
    rows.into_iter().map(known).collect()
}

impl Pages for Index {
    type Error = IndexError;

    fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, IndexError> {
        Self::page(self, cid)
    }

    fn content(&self, id: &ContentId) -> Result<Option<Vec<u8>>, IndexError> {
        self.get(&content_key(id))
    }
}

fn content_key(id: &ContentId) -> Vec<u8> {
    [&[CONTENT], id.as_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests;
