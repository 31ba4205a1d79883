//! The database on disk: opened, repaired, set aside, all under one guard. sled panics on some damage; here that is an error
//! like any other.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::IndexError;
use crate::store::lock::Lock;

/// Of the rows; a database of another version is emptied.
pub(super) const SCHEMA: [u8; 4] = 1u32.to_be_bytes();
/// Memory for pages of the database, in bytes.
const CACHE: u64 = 32 * 1024 * 1024;
/// Damaged databases kept for whoever wants to look; beyond that the last is overwritten.
pub(super) const SET_ASIDE: u32 = 2;
/// Row of the schema version.
pub(super) const VERSION: &[u8] = b"v";

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        let what = error.to_string();
        match error {
            sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => Self::Damaged { what },
            sled::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => Self::Damaged { what },
            _ => Self::Database { what },
        }
    }
}

/// The database of one state, and how often it was replaced.
#[derive(Debug)]
pub(super) struct Disk {
    home: PathBuf,
    current: RwLock<(u32, sled::Db)>,
    _lock: Lock,
}

impl Disk {
    /// Opens the database in `home`, repaired or anew if it is damaged.
    pub(super) fn open(home: &Path, lock: Lock) -> Result<Self, IndexError> {
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
        Ok(Self { home: home.to_owned(), current: RwLock::new((0, database)), _lock: lock })
    }

    /// Calls the database; one that turns out damaged is set aside, and an empty one called in its place.
    pub(super) fn call<T>(&self, call: impl Fn(&sled::Db) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let (number, result) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            (current.0, guarded(|| call(&current.1)))
        };
        let Err(IndexError::Damaged { what }) = result else { return result };
        self.replace(number, &what)?;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        guarded(|| call(&current.1))
    }

    /// An empty database in place of number `damaged`, unless somebody has done that already.
    fn replace(&self, damaged: u32, what: &str) -> Result<(), IndexError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != damaged {
            return Ok(());
        }
        tracing::error!(what, "index damaged while in use, starting a new one");
        let path = self.home.join("index");
        set_aside(&self.home, &path)?;
        let fresh = open_database(&path)?;
        let old = std::mem::replace(&mut *current, (damaged.wrapping_add(1), fresh));
        // It may panic once more when it is closed.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        Ok(())
    }
}

fn guarded<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    let panicked = |_| Err(IndexError::Damaged { what: "panicked over damaged files".into() });
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
