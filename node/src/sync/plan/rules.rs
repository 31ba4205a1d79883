//! Which entries a pass touches and what of them it keeps: rsync's flags, as a value.

use serde::{Deserialize, Serialize};

use super::chmod::Chmod;
use super::{Local, LocalKind, PassedOver};
use crate::manifest::entry::Entry;
use crate::manifest::path::TreePath;
use crate::manifest::text::ByteText;

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// rsync's flags that decide what a pass changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of rsync's")]
pub struct Rules {
    /// `-l`: symlinks are made; otherwise they are left out.
    pub links: bool,
    /// `-p`: permission bits are set.
    pub perms: bool,
    /// `-E`: without `-p`, executable files stay so.
    pub executability: bool,
    /// `-t`: modification times are set.
    pub times: bool,
    /// `-O`: but not those of directories.
    pub omit_dir_times: bool,
    /// `-J`: nor those of symlinks.
    pub omit_link_times: bool,
    /// `-H`: hard links are made; otherwise each name gets a file of its own.
    pub hard_links: bool,
    /// What the module does not have is deleted, after everything else.
    pub delete: bool,
    /// `--force`: directories make room for files, with what is in them, also without deletion.
    pub force: bool,
    /// Deletion goes on where something of the module could not be had.
    pub ignore_errors: bool,
    /// Symlinks that lead out of the tree are left out.
    pub safe_links: bool,
    /// `-u`: files that are newer here stay.
    pub update: bool,
    /// `--existing`: nothing new is made.
    pub existing: bool,
    /// `--ignore-existing`: what is here stays.
    pub ignore_existing: bool,
    /// `--size-only`: files of the same size are the same.
    pub size_only: bool,
    /// `-m`: directories without a file below them are left out.
    pub prune_empty: bool,
    /// `--modify-window`, seconds; times are compared to the nanosecond if none.
    pub modify_window: Option<u32>,
    /// `--max-size`, bytes.
    pub max_size: Option<u64>,
    /// `--min-size`, bytes.
    pub min_size: Option<u64>,
    /// `--chmod`.
    pub chmod: Chmod,
    /// Bits that new entries do not get without `-p`.
    pub umask: u16,
    /// What stays as it is becomes a step as well: `-ii`.
    pub tell_unchanged: bool,
    /// `-b`: what is replaced or deleted stays under another name.
    pub backup: Option<Backup>,
}

/// Where backups go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// `--backup-dir`, from DEST on or absolute; beside the file if none.
    pub dir: Option<ByteText>,
    /// `--suffix`.
    pub suffix: ByteText,
    /// Bits that directories for backups do not get.
    pub umask: u16,
}

impl Rules {
    /// `-lptH`: all that a tree holds.
    pub fn archive() -> Self {
        Self { links: true, perms: true, times: true, hard_links: true, ..Self::default() }
    }

    /// Permission bits of an entry after the pass, given what stands there now (rsync's `dest_mode`).
    pub fn mode(&self, entry: &Entry, old: Option<&Local>) -> u16 {
        let wanted = self.chmod.apply(entry.mode, entry.is_dir());
        let old = old.filter(|old| same_kind(old, entry));
        match (self.perms, old) {
            (true, _) => wanted,
            (false, None) => wanted & !self.umask & 0o777,
            (false, Some(old)) if self.executability && matches!(old.kind, LocalKind::File { .. }) => {
                if wanted & 0o111 == 0 {
                    old.mode & !0o111
                } else if old.mode & 0o111 == 0 {
                    old.mode | (old.mode & 0o444) >> 2
                } else {
                    old.mode
                }
            }
            (false, Some(old)) => old.mode,
        }
    }

    /// True if modification times of such an entry are kept.
    pub fn keeps_time(&self, is_dir: bool, is_link: bool) -> bool {
        self.times && !(is_dir && self.omit_dir_times) && !(is_link && self.omit_link_times)
    }

    /// True if the two times are not the same by `--modify-window`.
    pub fn times_differ(&self, a: i64, b: i64) -> bool {
        match self.modify_window {
            None => a != b,
            Some(window) => (a.div_euclid(SECOND)).abs_diff(b.div_euclid(SECOND)) > u64::from(window),
        }
    }

    /// True if `-u` leaves the local file alone.
    pub fn is_newer_here(&self, here: i64, there: i64) -> bool {
        let window = i64::from(self.modify_window.unwrap_or(0));
        self.update && there.div_euclid(SECOND).saturating_sub(here.div_euclid(SECOND)) < window
    }

    /// Why `--max-size` or `--min-size` leaves a file out, if they do.
    pub fn leaves_out(&self, size: u64) -> Option<PassedOver> {
        let large = self.max_size.filter(|max| size > *max).map(|_| PassedOver::Large);
        large.or_else(|| self.min_size.filter(|min| size < *min).map(|_| PassedOver::Small))
    }
}

impl Backup {
    /// True if the directory for backups is not below DEST.
    pub fn is_outside(&self) -> bool {
        self.dir
            .as_ref()
            .is_some_and(|dir| dir.0.starts_with(b"/") || dir.0.split(|byte| *byte == b'/').any(|part| part == b".."))
    }

    /// What the backup of a path is called.
    pub fn name_of(&self, path: &TreePath) -> Vec<u8> {
        let dir: &[u8] = self.dir.as_ref().map_or(b"", |dir| dir.0.as_slice());
        let between: &[u8] = if dir.is_empty() || dir.ends_with(b"/") { b"" } else { b"/" };
        [dir, between, path.as_bytes(), &self.suffix.0].concat()
    }

    /// True if a deleted file is kept: backups of former runs are not.
    pub fn keeps(&self, name: &[u8]) -> bool {
        self.dir.is_some() || !name.ends_with(&self.suffix.0)
    }

    /// True if a deleted file stays in the directory where it stood.
    pub fn keeps_beside(&self, name: &[u8]) -> bool {
        self.dir.is_none() && self.keeps(name)
    }
}

/// True for two files, two directories, or two symlinks.
fn same_kind(old: &Local, entry: &Entry) -> bool {
    use crate::manifest::entry::Node;
    matches!(
        (&old.kind, &entry.node),
        (LocalKind::File { .. }, Node::File { .. })
            | (LocalKind::Dir, Node::Dir(_))
            | (LocalKind::Symlink(_), Node::Symlink { .. })
    )
}

/// rsync's rule for `--safe-links`: absolute targets and those with enough `..` to leave the tree are unsafe.
pub fn leads_out(path: &TreePath, target: &[u8]) -> bool {
    if target.first().is_none_or(|first| *first == b'/') {
        return true;
    }
    // As since rsync 3.4, `..` is for the beginning of a target only: what is before it may be a symlink one day.
    let mut names =
        target.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).skip_while(|part| *part == b"..");
    if names.any(|part| part == b"..") || target.ends_with(b"/..") {
        return true;
    }
    let mut depth = path.depth().saturating_sub(1);
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}
