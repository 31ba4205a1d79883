//! The disk fails at every call in turn: no file is ever torn, nothing that was staged is lost, and the next pass completes.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::manifest::entry::{DirLink, Entry, Node};
use crate::manifest::filter::Filter;
use crate::store::files::{Attributes, fault};
use crate::store::index::Index;
use crate::sync::dest::Destination;
use crate::sync::plan::{self, Guard, Remote, Rules};

/// What a path shows: a file's bytes, a link's target with a mark before it, nothing for a directory.
type Tree = BTreeMap<String, Vec<u8>>;

/// The tree before and after: files changed, moved, new and gone, a file that becomes a directory and the other way round.
const OLD: [(&str, &str); 6] =
    [("a", "old a"), ("b", "b"), ("gone/x", "x"), ("moves", "moving"), ("turns", "file"), ("twist/y", "y")];
const NEW: [(&str, &str); 7] = [
    ("a", "new a"),
    ("b", "b"),
    ("fresh/f", "fresh"),
    ("fresh/again", "fresh"),
    ("moved", "moving"),
    ("turns/z", "z"),
    ("twist", "file now"),
];

fn written(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.as_bytes().to_vec())).collect()
}

/// What stands below `root`, ours apart.
fn visible(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == ".murmir" {
                continue;
            }
            if path.is_symlink() {
                tree.insert(name, [&b"->"[..], fs::read_link(&path).unwrap().as_os_str().as_encoded_bytes()].concat());
            } else if path.is_dir() {
                open.push(path);
            } else {
                tree.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    tree
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// The new tree as the module has it.
fn remote() -> Vec<Remote> {
    let mut nodes: BTreeMap<TreePath, Node> = BTreeMap::new();
    for (text, bytes) in NEW {
        let (id, size) = (ContentId::of(bytes.as_bytes()), bytes.len() as u64);
        nodes.insert(path(text), Node::File { size, id, link: 0 });
        if let Some(dir) = path(text).parent().filter(|dir| !dir.is_root()) {
            // No pages are looked at here: any link will do.
            nodes.insert(dir, Node::Dir(Box::new(DirLink { cid: cid::Cid::default(), entries: 0, bytes: 0 })));
        }
    }
    nodes.insert(path("link"), Node::Symlink { target: b"a".to_vec() });
    let item = |(number, (path, node)): (u64, (TreePath, Node))| {
        let (name, listed) = (path.name().unwrap(), matches!(node, Node::Dir(_)));
        let entry = Entry { name, mode: 0o755, mtime: 1_000_000_000, node };
        Remote { place: path.clone(), path, number, entry, listed }
    };
    (0..).zip(nodes).map(item).collect()
}

struct Scene {
    place: TempDir,
    root: Dir,
    own: Dir,
    stage: Stage,
}

impl Scene {
    fn new() -> Self {
        // Hundreds of passes, each with its syncs: in memory where there is such a place.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        for (text, bytes) in OLD {
            let file = place.path().join(text);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        symlink("b", place.path().join("link")).unwrap();
        let root = Dir::open(place.path()).unwrap();
        let own = root.child_or_make(".murmir").unwrap();
        let stage = Stage::open(&own).unwrap();
        for (_, bytes) in NEW {
            stage.put_small(&ContentId::of(bytes.as_bytes()), bytes.as_bytes(), Attributes::default()).unwrap();
        }
        Self { place, root, own, stage }
    }

    fn plan(&self) -> (Plan, Found) {
        let target = Destination::basis(self.place.path()).unwrap();
        let sizes = NEW.iter().map(|(_, bytes)| bytes.len() as u64).collect();
        let found = target.scan(&Index::memory(), &sizes, &HashSet::new(), &|_, _| true).unwrap();
        let rules = Rules { delete: true, ..Rules::archive() };
        let guard = Guard { filter: &Filter::default(), read: &|_| None, root_listed: true };
        (plan::make(&remote(), &found.tree, &[], &rules, &guard), found)
    }

    fn place(&self, (plan, found): &(Plan, Found)) -> Result<Placed, FileError> {
        let Self { root, own, stage, .. } = self;
        let (backup, backups, bases) = (None, None, Vec::new());
        let placing = Placing { root, found, own, stage, plan, backup, backups, bases, keep_old: true, now: 1_000_000 };
        placing.run(|path| path.as_bytes() == b"a")
    }
}

/// Runs a pass of which call number `after` fails; false once there is no such call.
fn fails_at(after: u64, errno: Errno, once: bool) -> bool {
    let scene = Scene::new();
    let (plan, case) = (scene.plan(), format!("call {after}, {errno:?}, once {once}"));
    assert!(plan.0.wants().len() > 3, "{case}: {plan:?}");
    fault::order(after, errno, once);
    let result = scene.place(&plan);
    if !fault::lift() {
        assert!(result.is_ok_and(|placed| placed.problems.is_empty()), "{case}: nothing failed, and yet");
        return false;
    }
    assert!(once || result.is_err(), "{case}: went on without a disk");
    let whole: Vec<Tree> = [&OLD[..], &NEW[..]].map(written).to_vec();
    for (name, bytes) in visible(scene.place.path()) {
        let known = whole.iter().any(|tree| tree.get(&name) == Some(&bytes));
        assert!(known || bytes.starts_with(b"->"), "{case}: {name} shows {bytes:?}");
    }
    // What the failure left is enough for the rest: nothing needs to be fetched twice.
    let again = scene.plan();
    for want in again.0.wants() {
        assert!(scene.stage.complete(&want.id), "{case}: {want:?} is lost");
    }
    let placed = scene.place(&again).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(placed.problems.is_empty(), "{case}: {:?}", placed.problems);
    let mut wanted = written(&NEW);
    wanted.insert("link".to_owned(), b"->a".to_vec());
    assert_eq!(visible(scene.place.path()), wanted, "{case}");
    true
}

#[test]
fn a_disk_that_fails_at_any_call_tears_nothing_and_loses_nothing() {
    for (errno, once) in [(Errno::NOSPC, false), (Errno::ROFS, false), (Errno::IO, true)] {
        let calls = (0..).take_while(|after| fails_at(*after, errno, once)).count();
        assert!(calls > 40, "{calls} calls");
    }
}

#[test]
fn what_changed_since_it_was_looked_at_is_no_copy_of_anything() {
    let scene = Scene::new();
    let planned = scene.plan();
    fs::write(scene.place.path().join("moves"), "edited").unwrap();
    let placed = scene.place(&planned).unwrap();
    let failed: Vec<&[u8]> = placed.problems.iter().map(|(path, _)| path.as_bytes()).collect();
    assert_eq!(failed, [b"moved"], "{placed:?}");
    assert!(!visible(scene.place.path()).contains_key("moved"));
    assert!(scene.place(&scene.plan()).unwrap().problems.is_empty(), "and the next pass brings it");
}
