//! What can be rebuilt: tree pages by CID and what is known of files by directory, in large rows. The only file that
//! names sled. Its database may be lost at any time (sled 0.34 can tear its snapshot when killed while opening): then
//! it is set aside, an empty one takes its place and the next scan fills it. Keys and marks are never kept here.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cid::Cid;
use serde_bytes::ByteArray;

use super::files::Stamp;
use super::lock::{Lock, LockError};
use crate::manifest::ContentId;
use crate::manifest::path::{Name, TreePath};
use crate::manifest::walk::Pages;

/// Of the rows; a database of another version is emptied.
const SCHEMA: [u8; 4] = 1u32.to_be_bytes();
/// Memory for pages of the database, in bytes.
const CACHE: u64 = 32 * 1024 * 1024;
/// Damaged databases kept for whoever wants to look; beyond that the last is overwritten.
const SET_ASIDE: u32 = 2;

/// Row of the schema version.
const VERSION: &[u8] = b"v";
/// First byte of the key of a page; its CID follows.
const PAGE: u8 = b'p';
/// How the CID of a page begins: version 1, dag-cbor, BLAKE3, 32 bytes.
const PAGE_CID: [u8; 4] = [1, 0x71, 0x1e, 32];
/// First byte of the key of a small content; its id follows.
const CONTENT: u8 = b'c';
/// First byte of the key of a directory's row; BLAKE3 of the tree's key and the path follow.
const STATS: u8 = b's';

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
}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        Self::Database { what: error.to_string() }
    }
}

/// What is known of the files of one directory: state and content when they were last read.
pub type Directory = HashMap<Name, (Stamp, ContentId)>;

/// One file of a directory's row: name, size, mtime, ctime, inode, device, content id.
type Row = (serde_bytes::ByteBuf, u64, i64, i64, u64, u64, ByteArray<32>);

/// The index. Calls block on the disk.
#[derive(Debug)]
pub struct Index(Rows);

#[derive(Debug)]
enum Rows {
    Disk { database: sled::Db, _lock: Lock },
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
        let path = home.join("index");
        remove_snapshots(&path, |name| name.ends_with(".generating"))?;
        let database = open_database(&path).or_else(|error| {
            tracing::warn!(%error, "index damaged, trying without its snapshots");
            remove_snapshots(&path, |_| true)?;
            open_database(&path)
        });
        let database = database.or_else(|error| {
            tracing::warn!(%error, "index damaged, starting a new one");
            set_aside(home, &path)?;
            open_database(&path)
        })?;
        Ok(Self(Rows::Disk { database, _lock: lock }))
    }

    /// An index for this run only.
    pub fn memory() -> Self {
        Self(Rows::Memory(Mutex::default()))
    }

    /// Whether it ends with this run.
    pub fn is_memory(&self) -> bool {
        matches!(self.0, Rows::Memory(_))
    }

    /// The bytes stored for `cid`; not checked against it, as decoding a page does that.
    pub fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, IndexError> {
        self.get(&page_key(cid))
    }

    /// The bytes of a page whose hash begins like this; whoever gets them knows which it should be.
    pub fn page_like(&self, start: &[u8; 8]) -> Result<Option<Vec<u8>>, IndexError> {
        let first = [&[PAGE], PAGE_CID.as_slice(), start.as_slice()].concat();
        match &self.0 {
            Rows::Disk { database, .. } => guarded(|| {
                let row = database.scan_prefix(&first).next().transpose()?;
                Ok(row.map(|(_, row)| row.to_vec()))
            }),
            Rows::Memory(rows) => {
                let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                let row = rows.range(first.clone()..).next().filter(|(key, _)| key.starts_with(&first));
                Ok(row.map(|(_, row)| row.clone()))
            }
        }
    }

    /// Stores pages, all or none.
    pub fn put_pages<'a>(&self, pages: impl IntoIterator<Item = (&'a Cid, &'a [u8])>) -> Result<(), IndexError> {
        self.put(pages.into_iter().map(|(cid, bytes)| (page_key(cid), bytes.to_vec())))
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

    /// Makes everything put so far durable.
    pub fn flush(&self) -> Result<(), IndexError> {
        match &self.0 {
            Rows::Disk { database, .. } => guarded(|| Ok(database.flush().map(drop)?)),
            Rows::Memory(_) => Ok(()),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match &self.0 {
            Rows::Disk { database, .. } => guarded(|| Ok(database.get(key)?.map(|row| row.to_vec()))),
            Rows::Memory(rows) => Ok(rows.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()),
        }
    }

    /// Writes rows, all or none; an empty one is removed.
    fn put(&self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), IndexError> {
        match &self.0 {
            Rows::Disk { database, .. } => {
                let mut batch = sled::Batch::default();
                for (key, row) in rows {
                    match row.is_empty() {
                        true => batch.remove(key),
                        false => batch.insert(key, row),
                    }
                }
                guarded(|| Ok(database.apply_batch(batch)?))
            }
            Rows::Memory(all) => {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(rows);
                all.retain(|_, row| !row.is_empty());
                Ok(())
            }
        }
    }
}

/// sled panics on some damage; to its callers here that is an error like any other.
fn guarded<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    let panicked = |_| Err(IndexError::Database { what: "panicked over damaged files".into() });
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(panicked)
}

/// Opens and reads through the database, emptied if it is of another schema.
fn open_database(path: &Path) -> Result<sled::Db, IndexError> {
    guarded(|| {
        let database = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open()?;
        if database.get(VERSION)?.is_none_or(|version| *version != SCHEMA) {
            database.clear()?;
            database.insert(VERSION, &SCHEMA)?;
            database.flush()?;
        }
        Ok(database)
    })
}

/// Removes those `snap.*` of the database whose names are chosen: they only speed up opening.
fn remove_snapshots(path: &Path, chosen: impl Fn(&str) -> bool) -> Result<(), IndexError> {
    let failed = |source| IndexError::Io { path: path.into(), source };
    let entries = match fs::read_dir(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("snap.") && chosen(name)) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Renames the damaged database to the first free `index.damaged-N`, or over the last.
fn set_aside(home: &Path, path: &Path) -> Result<(), IndexError> {
    let failed = |source| IndexError::Io { path: path.into(), source };
    let name = |number| home.join(format!("index.damaged-{number}"));
    let target = (1..=SET_ASIDE).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(SET_ASIDE));
    match target.is_dir() {
        true => fs::remove_dir_all(&target).map_err(failed)?,
        false if target.exists() => fs::remove_file(&target).map_err(failed)?,
        false => {}
    }
    fs::rename(path, target).map_err(failed)
}

fn page_key(cid: &Cid) -> Vec<u8> {
    let mut key = vec![PAGE];
    key.extend(cid.to_bytes());
    key
}

fn stats_key(tree: &[u8], path: &TreePath) -> Vec<u8> {
    [&[STATS], blake3::hash(tree).as_bytes().as_slice(), path.as_bytes()].concat()
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
    let mut rows: Vec<Row> = known.iter().map(row).collect();
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
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
