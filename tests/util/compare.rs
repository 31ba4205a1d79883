//! Do two directories agree, in everything that a tree carries?

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is compared of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// `-`, `d`, `l`, or `?`.
    pub kind: char,
    /// Permission bits; 0 for symlinks, which have none.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Hash of a file's bytes, or a symlink's target.
    pub content: Vec<u8>,
    /// The first path with the same inode, for files with several names.
    pub twin: Option<Vec<u8>>,
}

/// Every path below `root` but the program's own directory there.
pub fn facts(root: &Path) -> BTreeMap<Vec<u8>, Fact> {
    let mut facts = BTreeMap::new();
    let mut leaders: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    collect(root, root, &mut facts);
    let inode = |path: &Vec<u8>| {
        let meta = fs::symlink_metadata(root.join(std::ffi::OsStr::from_bytes(path))).expect("stat");
        (meta.dev(), meta.ino())
    };
    for (path, fact) in facts.iter().filter(|(_, fact)| fact.kind == '-') {
        let names: &mut Vec<Vec<u8>> = leaders.entry(inode(path)).or_default();
        debug_assert_eq!(fact.twin, None);
        names.push(path.clone());
    }
    // Names outside of what is compared are no twins.
    for (path, fact) in facts.iter_mut().filter(|(_, fact)| fact.kind == '-') {
        fact.twin = leaders.get(&inode(path)).filter(|names| names.len() > 1).map(|names| names[0].clone());
    }
    facts
}

fn collect(root: &Path, dir: &Path, facts: &mut BTreeMap<Vec<u8>, Fact>) {
    for entry in fs::read_dir(dir).expect("listing") {
        let path = entry.expect("entry").path();
        let name = path.strip_prefix(root).expect("below the root");
        if name == Path::new(".murmir") {
            continue;
        }
        let meta = fs::symlink_metadata(&path).expect("stat");
        let (kind, content) = match meta.file_type() {
            kind if kind.is_dir() => ('d', Vec::new()),
            kind if kind.is_symlink() => ('l', fs::read_link(&path).expect("target").as_os_str().as_bytes().to_vec()),
            kind if kind.is_file() => ('-', blake3::hash(&fs::read(&path).expect("bytes")).as_bytes().to_vec()),
            _ => ('?', Vec::new()),
        };
        let mode = if kind == 'l' { 0 } else { meta.mode() & 0o7777 };
        let mtime = (meta.mtime(), meta.mtime_nsec());
        facts.insert(name.as_os_str().as_bytes().to_vec(), Fact { kind, mode, mtime, content, twin: None });
        if kind == 'd' {
            collect(root, &path, facts);
        }
    }
}

/// Both hold the same, or the test fails and says where they differ.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (facts(left), facts(right));
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        let (one, other) = (left.get(path), right.get(path));
        if one != other {
            differences.push(format!("{}: {one:?} / {other:?}", path.escape_ascii()));
        }
    }
    let count = differences.len();
    differences.truncate(5);
    assert!(differences.is_empty(), "{count} paths differ:\n{}", differences.join("\n"));
}
