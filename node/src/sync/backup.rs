//! `--backup`: what a pass replaces or deletes stays under another name.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::plan::Backup;
use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError, clone_file};

/// What the pass itself needs in a directory for backups.
const OWN_BITS: u16 = 0o700;

/// Where backups go.
pub struct Backups<'a> {
    /// DEST.
    pub dest: &'a Dir,
    /// DEST, or the directory outside of it that the user named.
    pub root: &'a Dir,
    /// The user's wish.
    pub backup: &'a Backup,
}

/// Opens a directory for backups that is not below DEST, and makes it where it is missing. None: it is below.
///
/// # Errors
/// It cannot be made.
pub fn outside(dest: &Path, backup: &Backup) -> Result<Option<Dir>, FileError> {
    let Some(dir) = backup.dir.as_ref().filter(|_| backup.is_outside()) else { return Ok(None) };
    let path = dest.join(OsStr::from_bytes(&dir.0));
    std::fs::create_dir_all(&path).map_err(|error| FileError::new("make directory", &path, error))?;
    Dir::open(&path).map(Some)
}

impl Backups<'_> {
    /// Gives the file `name` in `dir`, which is `path` in DEST, its second name. A former backup goes.
    ///
    /// # Errors
    /// A directory cannot be made, or the link.
    pub fn keep(&self, path: &TreePath, dir: &Dir, name: &Name) -> Result<(), FileError> {
        let target = [name.as_bytes(), &self.backup.suffix.0].concat();
        let place = match &self.backup.dir {
            None => dir.clone(),
            Some(below) => {
                let mut place = self.root.clone();
                let above = path.parent().unwrap_or_default();
                let below: &[u8] = if self.backup.is_outside() { b"" } else { &below.0 };
                let parts = below.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                for part in parts {
                    place = inner(&place, part, 0o777 & !self.backup.umask)?;
                }
                // Those that stand for directories of DEST have their permissions (rsync's `copy_valid_path`).
                let mut here = self.dest.clone();
                for name in above.components() {
                    here = here.child(&name)?;
                    place = inner(&place, name.as_bytes(), here.own_stat()?.mode & 0o1777)?;
                }
                place
            }
        };
        // A file that has its second name already is gone by now: that name must stay.
        dir.stat(name)?;
        match place.unlink(&target) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        match dir.link(name, &place, &target) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy(dir, name, &place, &target),
            other => other,
        }
    }
}

/// A directory for backups, with these permissions where it is made.
fn inner(dir: &Dir, name: &[u8], mode: u16) -> Result<Dir, FileError> {
    match dir.child(name) {
        Err(error) if error.is_missing() => {
            let inner = dir.child_or_make(name)?;
            inner.set_own_mode(mode | OWN_BITS)?;
            Ok(inner)
        }
        other => other,
    }
}

/// A backup on another file system: the same bytes, permissions and time. Symlinks are not followed, and stay behind.
fn copy(dir: &Dir, name: &Name, place: &Dir, target: &[u8]) -> Result<(), FileError> {
    let (from, stat) = (dir.open_file(name)?, dir.stat(name)?);
    let to = place.create_new(target)?;
    clone_file(&from, &to)
        .map_err(|error| FileError::new("copy to", &place.path().join(OsStr::from_bytes(target)), error))?;
    place.set_mode(target, stat.mode & 0o1777)?;
    place.set_mtime(target, stat.stamp.mtime)
}
