//! A directory at a glance: one hash over the names and states of all that is below it. What has the same glance as before has
//! not changed in between, and need not be looked at more closely. A stat a file, and hardly any memory.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::files::{Dir, Kind, Stat};
use super::scan::{OWN, Wanted, is_racy};
use crate::manifest::path::{Name, TreePath};

/// Bytes of an entry without its name.
const STATE: usize = 60;

/// What is looked at.
pub struct Look<'a> {
    /// The top of the tree.
    pub root: &'a Dir,
    /// What is part of it; everything is where there is none.
    pub wanted: Option<&'a Wanted<'a>>,
    /// The time now, in nanoseconds since the epoch.
    pub started: i64,
}

/// The hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance([u8; 32]);

/// What a tree came to when it was last looked at closely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its glance before that, and all else that it came from.
    pub key: serde_bytes::ByteArray<32>,
    /// What there was, counted.
    pub counts: Vec<u64>,
}

impl Glance {
    /// Together with all else that decides what the tree comes to, in words.
    pub fn with(&self, words: &str) -> [u8; 32] {
        *blake3::Hasher::new().update(&self.0).update(words.as_bytes()).finalize().as_bytes()
    }
}

impl Look<'_> {
    /// Looks; none where something changed so lately that it may change again without showing it, or cannot be looked at.
    pub fn run(&self) -> Option<Glance> {
        self.dir(self.root, &TreePath::root()).map(Glance)
    }

    /// Recursion is bounded by the depth of a [`TreePath`].
    fn dir(&self, dir: &Dir, path: &TreePath) -> Option<[u8; 32]> {
        let (own, mut names) = (dir.own_stat().ok()?, dir.entries().ok()?);
        names.retain(|(name, _)| !(path.is_root() && name == OWN));
        names.sort_unstable();
        let mut seen = Vec::with_capacity(names.len() * (STATE + 16));
        seen.extend(own.mode.to_le_bytes());
        seen.extend(own.stamp.mtime.to_le_bytes());
        let mut below = Vec::new();
        for (name, kind) in names {
            let is_dir = kind == Kind::Dir;
            if is_dir || self.wanted.is_some() {
                let path = path.join(&Name::new(&name).ok()?).ok()?;
                if self.wanted.is_some_and(|wanted| !wanted(&path, is_dir)) {
                    continue;
                }
                if is_dir {
                    below.push((name.clone(), path));
                }
            }
            note(&mut seen, &name, kind);
            if !is_dir {
                let stat = dir.stat(&name).ok().filter(|stat| !is_racy(&stat.stamp, self.started))?;
                note_state(&mut seen, &stat);
            }
        }
        let below = below.into_par_iter().map(|(name, path)| self.dir(&dir.child(&name).ok()?, &path));
        let below: Vec<[u8; 32]> = below.collect::<Option<_>>()?;
        Some(*blake3::Hasher::new().update(&seen).update(below.as_flattened()).finalize().as_bytes())
    }
}

/// Names hold no zero byte.
fn note(seen: &mut Vec<u8>, name: &[u8], kind: Kind) {
    seen.extend(name);
    seen.extend([0, kind as u8]);
}

fn note_state(seen: &mut Vec<u8>, stat: &Stat) {
    let stamp = &stat.stamp;
    seen.extend(stat.mode.to_le_bytes());
    for number in [stat.links, stamp.size, stamp.ino, stamp.dev] {
        seen.extend(number.to_le_bytes());
    }
    for time in [stamp.mtime, stamp.ctime] {
        seen.extend(time.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    /// As it will look when all of it is old enough.
    fn glance(path: &Path) -> Option<Glance> {
        let root = Dir::open(path).unwrap();
        Look { root: &root, wanted: None, started: i64::MAX }.run()
    }

    /// Other bytes, of the same number and time.
    fn change_unseen(path: &Path) {
        let before = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, "y").unwrap();
        File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    }

    #[test]
    fn every_change_shows() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), "x").unwrap();
        fs::write(at("other"), "x").unwrap();
        symlink("other", at("link")).unwrap();
        let changes: [&dyn Fn(); 11] = [
            &|| change_unseen(&at("a/b/file")),
            &|| fs::set_permissions(at("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap(),
            &|| fs::write(at("new"), "").unwrap(),
            &|| fs::rename(at("new"), at("newer")).unwrap(),
            &|| fs::hard_link(at("newer"), at("a/second")).unwrap(),
            &|| fs::remove_file(at("newer")).unwrap(),
            &|| fs::create_dir(at("a/empty")).unwrap(),
            &|| fs::set_permissions(at("a/empty"), fs::Permissions::from_mode(0o700)).unwrap(),
            &|| fs::remove_dir(at("a/empty")).unwrap(),
            &|| {
                fs::remove_file(at("link")).unwrap();
                symlink("a", at("link")).unwrap();
            },
            &|| fs::rename(at("a/b"), at("b")).unwrap(),
        ];
        let mut before = glance(temp.path());
        assert!(before.is_some() && before == glance(temp.path()));
        for (number, change) in changes.iter().enumerate() {
            change();
            let now = glance(temp.path());
            assert!(now.is_some() && now != before, "change {number}");
            before = now;
        }
    }

    #[test]
    fn what_is_not_wanted_may_change_and_what_is_young_proves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("out")).unwrap();
        fs::create_dir_all(temp.path().join(".murmir")).unwrap();
        fs::write(temp.path().join("in"), "x").unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let wanted = |path: &TreePath, _: bool| path.as_bytes() == b"in";
        let look = |started| Look { root: &root, wanted: Some(&wanted), started }.run();
        let before = look(i64::MAX);
        assert!(before.is_some());
        fs::write(temp.path().join("out/file"), "x").unwrap();
        fs::write(temp.path().join(".murmir/file"), "x").unwrap();
        assert_eq!(look(i64::MAX), before);
        assert_eq!(look(0), None, "written this very moment");
    }
}
