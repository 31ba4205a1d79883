//! `--backup`: what a pass replaces or deletes stays under another name.

use super::plan::Backup;
use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError};

/// Where backups go in a destination.
pub struct Backups<'a> {
    /// DEST.
    pub root: &'a Dir,
    /// The user's wish.
    pub backup: &'a Backup,
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
                let parts = below.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
                for part in parts.map(<[u8]>::to_vec).chain(above.components().map(|name| name.as_bytes().to_vec())) {
                    place = self.inner(&place, &part)?;
                }
                place
            }
        };
        match place.unlink(&target) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        dir.link(name, &place, &target)
    }

    /// A directory for backups, as accessible as any that the user makes.
    fn inner(&self, dir: &Dir, name: &[u8]) -> Result<Dir, FileError> {
        match dir.child(name) {
            Err(error) if error.is_missing() => {
                let inner = dir.child_or_make(name)?;
                inner.set_own_mode(0o777 & !self.backup.umask)?;
                Ok(inner)
            }
            other => other,
        }
    }
}
