//! A generation as static files, so that plain web servers alone can serve newcomers: the bundle, all pages, the hashes of large
//! files. Everything but the bundle is named by its hash; the bundle comes last (FORMAT.md).

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use cid::Cid;
use tracker_less::record::CheckedBundle;

use super::{ModuleRef, SyncError};
use crate::manifest::ContentId;
use crate::manifest::entry::Node as Kind;
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;
use crate::manifest::walk::{Pages, Walk};
use crate::store::files::{Dir, FileError};
use crate::store::index::{Index, IndexError};
use crate::store::locate::locate;
use crate::store::outboard::{Outboard, WIDE_GROUP, file_name};
use crate::store::proof;

/// Mode of the directories.
const SERVED: u16 = 0o755;

/// What an export wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files of the export.
    pub files: u64,
    /// Those that were not there before.
    pub written: u64,
}

/// An index that remembers which pages it was asked for.
struct Recording<'a> {
    index: &'a Index,
    seen: RefCell<Vec<Cid>>,
}

impl Pages for Recording<'_> {
    type Error = IndexError;

    fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, IndexError> {
        self.seen.borrow_mut().push(*cid);
        Pages::page(self.index, cid)
    }

    fn content(&self, id: &ContentId) -> Result<Option<Vec<u8>>, IndexError> {
        Pages::content(self.index, id)
    }
}

/// Writes the generation of `bundle`, whose tree stands in `tree`, to the directory `to`, and removes what is left of others.
///
/// # Errors
/// The directory cannot be written, or a file of the tree cannot be read any more.
pub fn export(
    index: &Index,
    outboards: &Dir,
    bundle: &CheckedBundle,
    tree: &Path,
    to: &Path,
) -> Result<Exported, SyncError> {
    std::fs::create_dir_all(to).map_err(|error| FileError::new("make directory", to, error))?;
    let (to, tree) = (Dir::open(to)?, Dir::open(tree)?);
    let (pages, proofs) = (to.child_or_make("pages")?, to.child_or_make("proofs")?);
    // For whoever serves them.
    to.set_mode("pages", SERVED)?;
    to.set_mode("proofs", SERVED)?;
    let (all, large) = contents(index, bundle)?;
    let mut done = Exported::default();
    let mut names = HashSet::new();
    for cid in all {
        let name = cid.to_string();
        let bytes = Pages::page(index, &cid)?;
        if let Some(bytes) = bytes.filter(|_| names.insert(name.clone())) {
            done.add(put(&pages, &name, &bytes)?);
        }
    }
    let mut proofs_named = HashSet::new();
    for (id, size, path) in large {
        let name = file_name(&id);
        if proofs_named.insert(name.clone()) {
            let outboard = match Outboard::load(outboards, &id, size)? {
                Some(outboard) => outboard,
                None => hash(&tree, &path, &id)?,
            };
            done.add(put(&proofs, &name, &outboard.encode())?);
        }
    }
    to.sync_fs()?;
    // What the old one needs goes only after it.
    replace(&to, "bundle", bundle.bytes())?;
    clear(&pages, &names)?;
    clear(&proofs, &proofs_named)?;
    to.sync_fs()?;
    done.add(true);
    Ok(done)
}

impl Exported {
    fn add(&mut self, written: bool) {
        self.files += 1;
        self.written += u64::from(written);
    }
}

type Large = Vec<(ContentId, u64, TreePath)>;

/// All pages of a tree, and its files that have an outboard.
fn contents(index: &Index, bundle: &CheckedBundle) -> Result<(Vec<Cid>, Large), SyncError> {
    let (module, everything) = (ModuleRef::of(bundle), Selector::default());
    let refuse = |error| SyncError::tree(&module, error);
    let recording = Recording { index, seen: RefCell::default() };
    let mut large = Vec::new();
    for item in Walk::new(&recording, bundle.root(), &everything).map_err(refuse)? {
        let item = item.map_err(refuse)?;
        if let Kind::File { id, size, .. } = item.entry.node
            && size > WIDE_GROUP
        {
            large.push((id, size, item.path));
        }
    }
    Ok((recording.seen.into_inner(), large))
}

fn hash(tree: &Dir, path: &TreePath, id: &ContentId) -> Result<Outboard, SyncError> {
    let (dir, name) = locate(tree, path)?;
    let hashed = proof::hash_file(&dir.open_file(&name)?);
    let hashed = hashed.map_err(|error| FileError::new("read", &tree.path().join(path.to_string()), error))?;
    let changed = || FileError::new("read", &tree.path().join(path.to_string()), std::io::ErrorKind::InvalidData);
    hashed.outboard.filter(|_| hashed.id == *id).ok_or_else(|| changed().into())
}

/// Writes a file that is named by its hash; one that is there is right already.
fn put(dir: &Dir, name: &str, bytes: &[u8]) -> Result<bool, FileError> {
    if dir.stat(name).is_ok_and(|stat| stat.stamp.size == bytes.len() as u64) {
        return Ok(false);
    }
    replace(dir, name, bytes).map(|()| true)
}

fn replace(dir: &Dir, name: &str, bytes: &[u8]) -> Result<(), FileError> {
    let aside = format!("{name}.tmp");
    match dir.unlink(&aside) {
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    let written = dir.create_new(&aside)?.write_all(bytes);
    written.map_err(|error| FileError::new("write", &dir.path().join(&aside), error))?;
    dir.set_mode(&aside, 0o644)?;
    dir.rename(&aside, dir, name)
}

/// Removes what is not one of `names`.
fn clear(dir: &Dir, names: &HashSet<String>) -> Result<(), FileError> {
    for (name, _) in dir.entries()? {
        if !str::from_utf8(&name).is_ok_and(|name| names.contains(name)) {
            dir.unlink(&name)?;
        }
    }
    Ok(())
}
