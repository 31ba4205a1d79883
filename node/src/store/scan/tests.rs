use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;

use super::*;

/// Later than any file of a test can be.
const LATER: i64 = i64::MAX;

/// BLAKE3, with what is known, and something that happens at every hash.
#[derive(Default)]
struct Plain {
    known: Directory,
    reads: Mutex<u32>,
    meanwhile: Option<Box<dyn Fn(u32) + Send + Sync>>,
}

impl Hasher for Plain {
    fn known(&self, _dir: &TreePath) -> Directory {
        self.known.clone()
    }

    fn hash(&self, mut file: &File, _stat: &Stat) -> io::Result<ContentId> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut reads = self.reads.lock().unwrap();
        *reads += 1;
        if let Some(meanwhile) = &self.meanwhile {
            meanwhile(*reads);
        }
        Ok(id(&bytes))
    }
}

fn id(bytes: &[u8]) -> ContentId {
    ContentId::of(bytes)
}

fn scan(root: &Path, hasher: &Plain) -> Scanned {
    let root = Dir::open(root).unwrap();
    Scan { root: &root, hasher, read: true, wanted: &|_, _| true, started: LATER }.run().unwrap()
}

/// Path and kind (and content) of every entry, in order.
fn flat(dir: &ScannedDir, at: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in &dir.entries {
        let path = format!("{at}{}", escape(entry.name.as_bytes()));
        match &entry.node {
            ScannedNode::File { .. } => lines.push(path),
            ScannedNode::Symlink { target } => lines.push(format!("{path} -> {}", escape(target))),
            ScannedNode::Dir(below) => {
                let path = format!("{path}/");
                let inner = flat(below, &path);
                lines.push(path);
                lines.extend(inner);
            }
        }
    }
    lines
}

fn first_id(scanned: &Scanned) -> Option<ContentId> {
    scanned.root.entries.iter().find_map(|entry| match entry.node {
        ScannedNode::File { id, .. } => id,
        _ => None,
    })
}

fn problems(scanned: &Scanned) -> Vec<(&[u8], ProblemKind)> {
    scanned.problems.iter().map(|problem| (problem.name.as_slice(), problem.kind)).collect()
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn sorted_by_bytes_and_nested() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("b/empty")).unwrap();
    fs::create_dir_all(temp.path().join("b/a/deep")).unwrap();
    fs::create_dir_all(temp.path().join(".murmir/x")).unwrap();
    fs::create_dir_all(temp.path().join("b/.murmir")).unwrap();
    for file in ["b/a/deep/f", "b-", "b0", "Z", "b/z"] {
        fs::write(temp.path().join(file), file).unwrap();
    }
    fs::write(temp.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
    symlink("/etc/passwd", temp.path().join("b/link")).unwrap();
    let scanned = scan(temp.path(), &Plain::default());
    let expected = [
        "Z",
        "b/",
        "b/.murmir/",
        "b/a/",
        "b/a/deep/",
        "b/a/deep/f",
        "b/empty/",
        "b/link -> /etc/passwd",
        "b/z",
        "b-",
        "b0",
        "\\#377",
    ];
    assert_eq!(flat(&scanned.root, ""), expected);
    assert_eq!(first_id(&scanned), Some(id(b"Z")));
    assert!(scanned.problems.is_empty());
}

#[test]
fn specials_are_named_and_not_opened() {
    let temp = tempfile::tempdir().unwrap();
    fifo(&temp.path().join("fifo"));
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
    let scanned = scan(temp.path(), &Plain::default());
    assert!(scanned.root.entries.is_empty());
    assert_eq!(problems(&scanned), [(&b"fifo"[..], ProblemKind::Special), (b"socket", ProblemKind::Special)]);
}

#[test]
fn a_file_that_settles_is_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("f");
    fs::write(&file, "one").unwrap();
    let changed = file.clone();
    let change = move |reads| {
        if reads < TRIES {
            fs::write(&changed, "x".repeat(reads as usize)).unwrap();
        }
    };
    let hasher = Plain { meanwhile: Some(Box::new(change)), ..Plain::default() };
    let scanned = scan(temp.path(), &hasher);
    assert_eq!(first_id(&scanned), Some(id(&fs::read(&file).unwrap())));
    // And once more, for it is young.
    assert_eq!(*hasher.reads.lock().unwrap(), TRIES + 1);
}

/// Old bytes in front, new ones behind: what a reader gets whom a change overtakes within one tick of the clock.
#[test]
fn halves_of_two_states_with_one_stamp_are_no_content() {
    struct Overtaken {
        path: std::path::PathBuf,
        reads: Mutex<u32>,
    }
    impl Hasher for Overtaken {
        fn known(&self, _: &TreePath) -> Directory {
            Directory::new()
        }

        fn hash(&self, _: &File, _: &Stat) -> io::Result<ContentId> {
            let mut reads = self.reads.lock().unwrap();
            *reads += 1;
            let now = fs::read(&self.path)?;
            // The stamp is the same before and after, for the change has the time of the one before.
            Ok(if *reads == 1 { id(b"oldnew") } else { id(&now) })
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    fs::write(&path, "newnew").unwrap();
    let hasher = Overtaken { path, reads: Mutex::new(0) };
    let root = Dir::open(temp.path()).unwrap();
    let scanned = Scan { root: &root, hasher: &hasher, read: true, wanted: &|_, _| true, started: 0 }.run().unwrap();
    assert_eq!(first_id(&scanned), Some(id(b"newnew")));
}

#[test]
fn a_file_that_never_settles_is_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("f");
    fs::write(&file, "").unwrap();
    let change = move |reads| fs::write(&file, "x".repeat(reads as usize)).unwrap();
    let scanned = scan(temp.path(), &Plain { meanwhile: Some(Box::new(change)), ..Plain::default() });
    assert!(scanned.root.entries.is_empty());
    assert_eq!(problems(&scanned), [(&b"f"[..], ProblemKind::Changed)]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    struct Broken;
    impl Hasher for Broken {
        fn known(&self, _dir: &TreePath) -> Directory {
            Directory::new()
        }

        fn hash(&self, _file: &File, _stat: &Stat) -> io::Result<ContentId> {
            Err(rustix::io::Errno::IO.into())
        }
    }
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), "").unwrap();
    let root = Dir::open(temp.path()).unwrap();
    let scan = Scan { root: &root, hasher: &Broken, read: true, wanted: &|_, _| true, started: LATER };
    let scanned = scan.run().unwrap();
    assert_eq!(problems(&scanned), [(&b"f"[..], ProblemKind::Unreadable)]);
    assert!(scanned.root.entries.is_empty());
}

#[test]
fn a_file_that_vanishes_is_named() {
    let temp = tempfile::tempdir().unwrap();
    for file in ["a", "b"] {
        fs::write(temp.path().join(file), "").unwrap();
    }
    // Listed, and gone before it is opened.
    let at = temp.path().to_owned();
    let wanted = move |path: &TreePath, _| {
        let _ = fs::remove_file(at.join(OsStr::from_bytes(path.as_bytes())));
        true
    };
    let root = Dir::open(temp.path()).unwrap();
    let plain = Plain::default();
    let scanned = Scan { root: &root, hasher: &plain, read: true, wanted: &wanted, started: LATER }.run().unwrap();
    assert_eq!(problems(&scanned), [(&b"a"[..], ProblemKind::Vanished), (b"b", ProblemKind::Vanished)]);
}

#[test]
fn a_directory_that_turns_into_a_link_is_not_entered() {
    let temp = tempfile::tempdir().unwrap();
    let (top, out) = (temp.path().join("in"), temp.path().join("out"));
    fs::create_dir_all(top.join("a")).unwrap();
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("secret"), "x").unwrap();
    for file in ["0", "z"] {
        symlink("x", top.join(file)).unwrap();
    }
    let planted = top.join("a");
    let wanted = move |_: &TreePath, is_dir| {
        if is_dir {
            fs::remove_dir(&planted).unwrap();
            symlink(&out, &planted).unwrap();
        }
        true
    };
    let root = Dir::open(&top).unwrap();
    let plain = Plain::default();
    let scanned = Scan { root: &root, hasher: &plain, read: true, wanted: &wanted, started: LATER }.run().unwrap();
    assert_eq!(flat(&scanned.root, ""), ["0 -> x", "z -> x"]);
    assert_eq!(scanned.problems.len(), 1);
    assert_eq!(*plain.reads.lock().unwrap(), 0);
}

#[test]
fn known_files_are_not_read_and_others_only_if_asked() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), "bytes").unwrap();
    let root = Dir::open(temp.path()).unwrap();
    let stat = root.stat("f").unwrap();
    let name = Name::new(b"f").unwrap();
    let known = |stamp| Plain { known: Directory::from([(name.clone(), (stamp, id(b"cached")))]), ..Plain::default() };
    let ids = |hasher: &Plain, read| {
        first_id(&Scan { root: &root, hasher, read, wanted: &|_, _| true, started: 0 }.run().unwrap())
    };
    assert_eq!(ids(&known(stat.stamp), true), Some(id(b"cached")));
    let other = Stamp { ctime: stat.stamp.ctime - 1, ..stat.stamp };
    assert_eq!(ids(&known(other), true), Some(id(b"bytes")));
    assert_eq!(ids(&known(other), false), None);
    assert_eq!(ids(&known(stat.stamp), false), Some(id(b"cached")));
}

#[test]
fn a_fresh_file_is_racy() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), "").unwrap();
    let root = Dir::open(temp.path()).unwrap();
    let ctime = root.stat("f").unwrap().stamp.ctime;
    let racy = |started| {
        let plain = Plain::default();
        let scan = Scan { root: &root, hasher: &plain, read: true, wanted: &|_, _| true, started }.run().unwrap();
        matches!(scan.root.entries[0].node, ScannedNode::File { racy: true, .. })
    };
    assert!(racy(ctime) && racy(ctime + GRANULARITY) && !racy(ctime + GRANULARITY + 1));
    // An old modification time set by a user does not hide the change.
    root.set_mtime("f", 0).unwrap();
    assert!(racy(ctime + GRANULARITY));
}

#[test]
fn hard_links_are_grouped() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("d")).unwrap();
    fs::write(temp.path().join("b"), "").unwrap();
    fs::write(temp.path().join("single"), "").unwrap();
    fs::hard_link(temp.path().join("b"), temp.path().join("d/a")).unwrap();
    fs::hard_link(temp.path().join("b"), temp.path().join("c")).unwrap();
    let groups = scan(temp.path(), &Plain::default()).hard_links();
    let groups: Vec<Vec<&[u8]>> = groups.iter().map(|group| group.iter().map(TreePath::as_bytes).collect()).collect();
    assert_eq!(groups, [[&b"b"[..], b"c", b"d/a"]]);
}

#[test]
fn a_refused_directory_is_not_entered() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("no")).unwrap();
    fifo(&temp.path().join("no/fifo"));
    fs::write(temp.path().join("yes"), "").unwrap();
    let root = Dir::open(temp.path()).unwrap();
    let wanted = |path: &TreePath, is_dir: bool| !(is_dir && path.as_bytes() == b"no");
    let plain = Plain::default();
    let scanned = Scan { root: &root, hasher: &plain, read: true, wanted: &wanted, started: LATER }.run().unwrap();
    assert_eq!(flat(&scanned.root, ""), ["yes"]);
    assert!(scanned.problems.is_empty());
}

#[test]
fn too_deep_is_a_problem_not_a_crash() {
    let temp = tempfile::tempdir().unwrap();
    let mut dir = Dir::open(temp.path()).unwrap();
    for _ in 0..1000 {
        dir = dir.make_dir("d").unwrap();
    }
    let scanned = scan(temp.path(), &Plain::default());
    assert_eq!(problems(&scanned), [(&b"d"[..], ProblemKind::Unnamable)]);
    assert_eq!(flat(&scanned.root, "").len(), 128);
}

#[test]
fn a_hundred_thousand_entries_in_one_directory() {
    let temp = tempfile::tempdir().unwrap();
    for i in 0..100_000 {
        symlink("x", temp.path().join(format!("{i:06}"))).unwrap();
    }
    let scanned = scan(temp.path(), &Plain::default());
    assert_eq!(scanned.root.entries.len(), 100_000);
    assert!(scanned.root.entries.is_sorted_by(|a, b| a.name < b.name));
}
