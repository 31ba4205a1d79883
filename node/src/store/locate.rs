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
