//! From paths of a tree to (directory descriptor, one name).

use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError};

/// The directory that holds `path` and the last name of `path`, found name by name below `root`, no link followed.
/// The root itself has no name: `NotAName`.
pub fn locate(root: &Dir, path: &TreePath) -> Result<(Dir, Name), FileError> {
    let mut dirs = DirCache::new(root.clone());
    let (dir, name) = dirs.locate(path)?;
    Ok((dir.clone(), name))
}

/// [`locate`] for many paths: keeps the chain of directories of the last one open, so that a walk in order opens each
/// directory once. At most one descriptor per level of the tree.
#[derive(Debug)]
pub struct DirCache {
    root: Dir,
    chain: Vec<(Name, Dir)>,
}

impl DirCache {
    /// Nothing open yet but `root`.
    pub fn new(root: Dir) -> Self {
        Self { root, chain: Vec::new() }
    }

    /// As [`locate`].
    pub fn locate(&mut self, path: &TreePath) -> Result<(&Dir, Name), FileError> {
        let mut names: Vec<Name> = path.components().collect();
        let last = names.pop().ok_or_else(|| FileError::not_a_name(self.root.path()))?;
        Ok((self.open(names)?, last))
    }

    /// The directory `path` itself, the root included.
    pub fn dir(&mut self, path: &TreePath) -> Result<&Dir, FileError> {
        self.open(path.components().collect())
    }

    /// Closes all but the root: needed after directories were replaced or removed.
    pub fn clear(&mut self) {
        self.chain.clear();
    }

    fn open(&mut self, names: Vec<Name>) -> Result<&Dir, FileError> {
        let shared = self.chain.iter().zip(&names).take_while(|((open, _), wanted)| open == *wanted).count();
        self.chain.truncate(shared);
        for name in names.into_iter().skip(shared) {
            let dir = self.deepest().child(&name)?;
            self.chain.push((name, dir));
        }
        Ok(self.deepest())
    }

    fn deepest(&self) -> &Dir {
        self.chain.last().map_or(&self.root, |(_, dir)| dir)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(names: &str) -> TreePath {
        let names = names.split('/').map(|name| Name::new(name.as_bytes()).unwrap());
        names.fold(TreePath::root(), |path, name| path.join(&name).unwrap())
    }

    fn tree() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("in/a/b/c")).unwrap();
        fs::create_dir_all(temp.path().join("out/b/c")).unwrap();
        fs::write(temp.path().join("out/b/c/victim"), "x").unwrap();
        let dir = Dir::open(&temp.path().join("in")).unwrap();
        (temp, dir)
    }

    #[test]
    fn a_link_at_any_level_is_refused() {
        for level in ["a", "a/b", "a/b/c"] {
            let (temp, root) = tree();
            let planted = temp.path().join("in").join(level);
            fs::remove_dir_all(&planted).unwrap();
            symlink(temp.path().join("out").join(level.trim_start_matches("a/")), &planted).unwrap();
            assert!(locate(&root, &path("a/b/c/victim")).unwrap_err().is_other_kind(), "{level}");
        }
    }

    /// A directory and a link that leads out change places all the time, while files are made by the path through them.
    #[test]
    fn what_flips_between_directory_and_link_never_leads_out() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use std::sync::atomic::{AtomicBool, Ordering};
        let scale = std::env::var("MURMIR_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let (temp, root) = tree();
        let (inside, out) = (temp.path().join("in"), temp.path().join("out"));
        symlink(&out, inside.join("trap")).unwrap();
        let (stop, wanted) = (AtomicBool::new(false), path("a/b/c/made"));
        let before = fs::read_dir(out.join("b/c")).unwrap().count();
        std::thread::scope(|scope| {
            let flips = scope.spawn(|| {
                let (dir, trap) = (inside.join("a"), inside.join("trap"));
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &dir, CWD, &trap, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let mut seen = (0, 0);
            for _ in 0..100_000 * scale {
                match locate(&root, &wanted) {
                    Ok((dir, name)) => {
                        seen.0 += 1;
                        dir.create_new(&name).unwrap();
                        dir.unlink(&name).unwrap();
                    }
                    Err(error) => {
                        seen.1 += 1;
                        assert!(error.is_other_kind(), "{error}");
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            flips.join().unwrap();
            assert!(seen.0 > 0 && seen.1 > 0, "both were met: {seen:?}");
        });
        assert_eq!(fs::read_dir(out.join("b/c")).unwrap().count(), before, "nothing was made outside");
    }

    #[test]
    fn the_cache_finds_what_locate_finds() {
        let (temp, root) = tree();
        fs::create_dir_all(temp.path().join("in/a/d")).unwrap();
        let mut cache = DirCache::new(root.clone());
        for wanted in ["top", "a/b/c/x", "a/b/y", "a/d/z", "a/d/w", "top"] {
            let (dir, name) = locate(&root, &path(wanted)).unwrap();
            let (cached, same) = cache.locate(&path(wanted)).unwrap();
            assert_eq!((cached.own_stat().unwrap(), same), (dir.own_stat().unwrap(), name), "{wanted}");
        }
        assert!(cache.locate(&path("a/none/x")).unwrap_err().is_missing());
        assert_eq!(cache.dir(&path("a/b")).unwrap().path(), root.path().join("a/b"));
        assert!(matches!(cache.locate(&TreePath::root()), Err(FileError::NotAName { .. })));
    }
}
