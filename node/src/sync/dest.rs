//! The destination of a pass: opened once, locked, looked at, and remembered.

use std::path::{Path, PathBuf};

use super::pass::{Kind, Request};
use super::{Node, SyncError};
use crate::store::files::Dir;
use crate::store::lock::Lock;

/// Our own directory at the root of a destination.
pub const OWN_DIR: &str = ".murmir";

/// An opened and locked destination.
pub struct Destination {
    /// The directory, by descriptor: every later operation starts here.
    pub root: Dir,
    /// Its absolute path, for messages and the registration.
    pub path: PathBuf,
    /// Nothing stood there before this run.
    pub is_new: bool,
    _lock: Option<Lock>,
}

impl Destination {
    /// Opens (and for a real run makes) the destination of a request, and takes its lock.
    ///
    /// # Errors
    /// A missing parent without `--mkpath` (11), `/` or the home directory, a directory that holds files murmir did not
    /// write where the pass may delete or replace them (1), another run at work there (46).
    pub fn open(node: &Node, request: &Request) -> Result<Self, SyncError> {
        let path = request.dest.clone();
        refuse_precious(request)?;
        let is_new = !path.exists();
        if is_new && !request.dry_run {
            make(&path, request.mkpath)?;
        }
        if is_new && request.dry_run {
            // Nothing to look at, nothing to lock: a dry run leaves no trace.
            let root = Dir::open(nearest_existing(&path))?;
            return Ok(Self { root, path, is_new, _lock: None });
        }
        let root = Dir::open(&path)?;
        let lock = Lock::acquire_dir(&root).map_err(|_| SyncError::Locked { what: path.display().to_string() })?;
        let this = Self { root, path, is_new, _lock: Some(lock) };
        this.check_ours(node, request)?;
        Ok(this)
    }

    /// A replica may be made only where nothing foreign can get lost.
    fn check_ours(&self, node: &Node, request: &Request) -> Result<(), SyncError> {
        let risky = request.rules.delete || request.kind == Kind::Mirror;
        if !risky || request.adopt || self.is_new || node.state.last_pass(&self.path)?.is_some() {
            return Ok(());
        }
        let foreign = self.root.entries()?.iter().any(|(name, _)| name != OWN_DIR.as_bytes());
        if foreign { Err(SyncError::NotOurs { dest: self.path.clone() }) } else { Ok(()) }
    }
}

/// `/` and the home directory are nobody's mirror.
fn refuse_precious(request: &Request) -> Result<(), SyncError> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let real = request.dest.canonicalize().unwrap_or_else(|_| request.dest.clone());
    let risky = request.rules.delete || request.kind == Kind::Mirror;
    if risky && (real == Path::new("/") || home.is_some_and(|home| home == real)) {
        let reason = "refused as a replica: it would delete what the module does not have".to_owned();
        return Err(SyncError::BadDest { dest: request.dest.clone(), reason });
    }
    Ok(())
}

fn make(path: &Path, parents: bool) -> Result<(), SyncError> {
    let made = if parents { std::fs::create_dir_all(path) } else { std::fs::create_dir(path) };
    made.map_err(|error| SyncError::Disk { path: path.to_owned(), reason: error.to_string() })
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}
