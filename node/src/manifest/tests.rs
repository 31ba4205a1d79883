//! The tree: golden vectors, canonical form, refusals, and the same root whatever the history.
#![allow(clippy::cast_possible_truncation, reason = "small numbers of the tests' own")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use cid::Cid;
use multihash::Multihash;
use proptest::prelude::*;

use super::content::ContentId;
use super::diff::diff;
use super::entry::{DirLink, Entry, Node};
use super::former::Former;
use super::frontier::Frontier;
use super::page::{MAX_PAGE, Page, PageError, RootNode};
use super::path::{Name, TreePath};
use super::rank;
use super::select::Selector;
use super::tree::{build_directory, ends_page};
use super::walk::{Pages, Walk, WalkError};

mod hostile;

const FORMAT: &str = include_str!("../../../docs/FORMAT.md");

#[derive(Default, Clone)]
struct Store(HashMap<Cid, Vec<u8>>);

impl Pages for Store {
    type Error = Infallible;

    fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(cid).cloned())
    }
}

fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text).unwrap()
}

fn file(text: &str, bytes: &[u8]) -> Entry {
    let node = Node::File { size: bytes.len() as u64, id: ContentId::of(bytes), link: 0 };
    Entry { name: name(text), mode: 0o644, mtime: 1_700_000_000_123_456_789, node }
}

fn dir(text: &str, link: DirLink) -> Entry {
    Entry { name: name(text), mode: 0o755, mtime: 1_700_000_000_000_000_000, node: Node::Dir(Box::new(link)) }
}

fn symlink(text: &str, target: &str) -> Entry {
    let node = Node::Symlink { target: target.into() };
    Entry { name: name(text), mode: 0o777, mtime: -1, node }
}

impl Store {
    fn directory(&mut self, entries: Vec<Entry>) -> DirLink {
        build_directory(entries, &mut |cid, bytes| drop(self.0.insert(cid, bytes))).unwrap()
    }

    fn root(&mut self, entries: Vec<Entry>) -> Cid {
        let tree = self.directory(entries);
        let node = RootNode { mode: 0o755, mtime: 5, unofficial: None, late: vec!["Release".to_owned()], tree };
        let (cid, bytes) = node.encode().unwrap();
        self.0.insert(cid, bytes);
        cid
    }
}

/// A small tree with one of everything.
fn sample(store: &mut Store) -> Cid {
    let below = store.directory(vec![file("x", b"hello\n"), file("y", b"")]);
    let empty = store.directory(Vec::new());
    store.root(vec![dir("a", below), dir("empty", empty), symlink("link", "a/x"), file("z", &[7; 300_000])])
}

#[test]
fn an_entry_is_found_by_its_number_without_a_walk() {
    let mut store = Store::default();
    let many = store.directory((0..3000).map(|number| file(&format!("f{number:05}"), b"x")).collect());
    let below = store.directory(vec![file("x", b"hello\n"), dir("z", many.clone())]);
    let empty = store.directory(Vec::new());
    let root =
        store.root(vec![dir("a", below), dir("b", empty), symlink("link", "a/x"), dir("m", many), file("z", b"")]);
    let all = Selector::all();
    let items: Vec<_> = Walk::new(&store, &root, &all).unwrap().map(Result::unwrap).collect();
    assert_eq!(items.len() as u64, rank::count(&store, &root).unwrap());
    for item in &items {
        assert_eq!(rank::entry(&store, &root, item.number).unwrap().as_ref(), Some(&item.entry), "{}", item.path);
    }
    assert_eq!(rank::entry(&store, &root, items.len() as u64).unwrap(), None);
    assert_eq!(rank::entry(&store, &root, u64::MAX).unwrap(), None);
}

#[test]
fn the_format_is_as_documented() {
    let mut store = Store::default();
    let root = sample(&mut store);
    let many = store.directory((0..5000).map(|number| file(&format!("f{number:05}"), b"x")).collect());
    let breaks: Vec<usize> = (0..2000).filter(|number| ends_page(&name(format!("f{number:05}")), 0)).take(3).collect();
    let golden = [
        ("content id", ContentId::of(b"hello\n").to_string()),
        ("empty directory", store.directory(Vec::new()).cid.to_string()),
        ("sample root", root.to_string()),
        ("directory of 5000", many.cid.to_string()),
        ("page breaks", format!("{breaks:?}")),
    ];
    let missing: Vec<String> =
        golden.iter().map(|(name, value)| format!("{name}: {value}")).filter(|line| !FORMAT.contains(line)).collect();
    assert!(missing.is_empty(), "docs/FORMAT.md lacks\n{}", missing.join("\n"));
}

#[test]
fn a_walk_meets_everything_in_order_and_numbers_it() {
    let mut store = Store::default();
    let root = sample(&mut store);
    let all = Selector::all();
    let met: Vec<(String, u64)> = Walk::new(&store, &root, &all)
        .unwrap()
        .map(|item| item.unwrap())
        .map(|item| (item.path.to_string(), item.number))
        .collect();
    let expected = ["a", "a/x", "a/y", "empty", "link", "z"];
    assert_eq!(met, expected.iter().zip(0..).map(|(path, number)| ((*path).to_owned(), number)).collect::<Vec<_>>());
    let only = Selector::below(TreePath::root(), Some(name("z")));
    let item = Walk::new(&store, &root, &only).unwrap().next().unwrap().unwrap();
    assert_eq!((item.path.to_string().as_str(), item.number), ("z", 5), "what is skipped still counts");
}

#[test]
fn large_directories_have_index_pages_and_one_change_touches_one_page_a_level() {
    let mut store = Store::default();
    let entries = |changed: usize| {
        let entry = |number: usize| file(&format!("f{number:06}"), if number == changed { b"new" } else { b"old" });
        (0..20_000).map(entry).collect::<Vec<_>>()
    };
    let before = store.directory(entries(usize::MAX));
    let known: Vec<Cid> = store.0.keys().copied().collect();
    assert!(matches!(Page::decode(&before.cid, &store.0[&before.cid]).unwrap(), Page::Index { .. }));
    assert_eq!((before.entries, before.bytes), (20_000, 60_000));
    let mut after = Store::default();
    let link = after.directory(entries(12_345));
    assert_ne!(link.cid, before.cid);
    let fresh = after.0.keys().filter(|cid| !known.contains(cid)).count();
    let Page::Index { level, .. } = Page::decode(&link.cid, &after.0[&link.cid]).unwrap() else { panic!("no index") };
    assert_eq!(fresh, usize::from(level) + 1);
    assert!(store.0.values().all(|bytes| bytes.len() <= MAX_PAGE));
}

#[test]
fn long_names_and_targets_do_not_overflow_a_page() {
    let mut store = Store::default();
    let target = "t".repeat(4096);
    let entries = (0..500).map(|number| symlink(&format!("{number:03}{}", "n".repeat(250)), &target)).collect();
    store.directory(entries);
    assert!(store.0.len() > 30 && store.0.values().all(|bytes| bytes.len() <= MAX_PAGE));
}

#[test]
fn a_frontier_asks_for_what_is_missing_and_selected_only() {
    let mut full = Store::default();
    let root = sample(&mut full);
    let count = |selector: &Selector| {
        let (mut here, mut asked) = (Store::default(), 0);
        let mut frontier = Frontier::new(root, selector);
        loop {
            let missing = frontier.missing(&here, 2).unwrap();
            if missing.is_empty() {
                return asked;
            }
            asked += missing.pages.len();
            here.0.extend(missing.pages.iter().map(|cid| (*cid, full.0[cid].clone())));
        }
    };
    assert_eq!(count(&Selector::all()), 4, "root node, top, a, empty");
    assert_eq!(count(&Selector::below(TreePath::root(), Some(name("z")))), 2);
    assert_eq!(count(&Selector::below(TreePath::new(b"a").unwrap(), None)), 3);
}

fn signed_by_hash(bytes: &[u8]) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x1e, blake3::hash(bytes).as_bytes()).unwrap())
}

/// A leaf page of one file as raw columns, with one thing changed.
fn refused(change: impl Fn(&mut BTreeMap<usize, crafted::Value>)) -> PageError {
    let mut columns = crafted::leaf();
    change(&mut columns);
    let bytes = crafted::encode(&columns);
    Page::decode(&signed_by_hash(&bytes), &bytes).unwrap_err()
}

/// Just enough dag-cbor to write pages that no honest encoder writes.
mod crafted {
    use std::collections::BTreeMap;

    #[derive(Clone)]
    pub enum Value {
        Int(u64),
        Bytes(Vec<u8>),
        List(Vec<Value>),
    }

    pub fn leaf() -> BTreeMap<usize, Value> {
        use Value::{Bytes, Int, List};
        let columns = [
            Int(0),
            List(vec![Bytes(b"a".to_vec()), Bytes(b"b".to_vec())]),
            Bytes(vec![0, 2]),
            List(vec![Int(0o644), Int(0o777)]),
            List(vec![Int(1), Int(2)]),
            List(vec![Int(5)]),
            Bytes(vec![9; 32]),
            List(vec![Int(0)]),
            List(vec![]),
            List(vec![Bytes(b"target".to_vec())]),
        ];
        columns.into_iter().enumerate().collect()
    }

    pub fn encode(columns: &BTreeMap<usize, Value>) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Value::List(columns.values().cloned().collect()), &mut out);
        out
    }

    fn head(major: u8, value: u64, out: &mut Vec<u8>) {
        let major = major << 5;
        match value {
            0..24 => out.push(major | value as u8),
            24..256 => out.extend([major | 24, value as u8]),
            _ => out.extend([&[major | 25][..], &(value as u16).to_be_bytes()].concat()),
        }
    }

    fn write(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Int(value) => head(0, *value, out),
            Value::Bytes(bytes) => {
                head(2, bytes.len() as u64, out);
                out.extend(bytes);
            }
            Value::List(values) => {
                head(4, values.len() as u64, out);
                values.iter().for_each(|value| write(value, out));
            }
        }
    }
}

#[test]
fn what_no_honest_publisher_writes_is_refused() {
    use crafted::Value::{Bytes, Int, List};
    let good = crafted::encode(&crafted::leaf());
    assert!(Page::decode(&signed_by_hash(&good), &good).is_ok(), "the page that is changed below is good");
    let names = |first: &[u8], second: &[u8]| List(vec![Bytes(first.to_vec()), Bytes(second.to_vec())]);
    let cases: Vec<(&str, usize, crafted::Value)> = vec![
        ("unsorted", 1, names(b"b", b"a")),
        ("twice", 1, names(b"a", b"a")),
        ("empty", 1, names(b"", b"b")),
        ("dot", 1, names(b".", b"b")),
        ("dots", 1, names(b"..", b"b")),
        ("slash", 1, names(b"a/b", b"b")),
        ("NUL", 1, names(b"a\0", b"b")),
        ("long", 1, names(&[b'a'; 256], b"b")),
        ("unknown kind", 2, Bytes(vec![0, 3])),
        ("kinds too few", 2, Bytes(vec![0])),
        ("set-id", 3, List(vec![Int(0o4755), Int(0o777)])),
        ("mtimes too few", 4, List(vec![Int(1)])),
        ("sizes too many", 5, List(vec![Int(5), Int(6)])),
        ("ids too short", 6, Bytes(vec![9; 31])),
        ("ids too long", 6, Bytes(vec![9; 64])),
        ("labels too few", 7, List(vec![])),
        ("no target", 9, List(vec![])),
        ("empty target", 9, List(vec![Bytes(vec![])])),
        ("target with NUL", 9, List(vec![Bytes(b"a\0b".to_vec())])),
        ("long target", 9, List(vec![Bytes(vec![b'x'; 4097])])),
    ];
    for (what, column, value) in cases {
        let error = refused(|columns| drop(columns.insert(column, value.clone())));
        assert!(matches!(error, PageError::Invalid { .. }), "{what}: {error}");
    }
    let tail = [good.as_slice(), &[0]].concat();
    assert!(Page::decode(&signed_by_hash(&tail), &tail).is_err(), "trailing bytes");
    assert!(matches!(Page::decode(&signed_by_hash(b"else"), &good), Err(PageError::WrongHash { .. })));
    let raw = Cid::new_v1(0x55, *signed_by_hash(&good).hash());
    assert!(matches!(Page::decode(&raw, &good), Err(PageError::WrongHash { .. })), "another codec");
}

#[test]
fn lies_about_totals_and_our_own_name_refuse_the_tree() {
    let mut store = Store::default();
    let mut link = store.directory(vec![file("x", b"hello\n")]);
    link.bytes += 1;
    let root = store.root(vec![dir("a", link)]);
    let all = Selector::all();
    let outcome: Result<Vec<_>, _> = Walk::new(&store, &root, &all).unwrap().collect();
    assert!(matches!(outcome, Err(WalkError::Totals { .. })));
    let below = store.directory(vec![]);
    let root = store.root(vec![dir(".murmir", below)]);
    assert!(matches!(Walk::new(&store, &root, &all).err(), Some(WalkError::OwnName)));
}

#[test]
fn what_a_later_version_needs_is_unsupported_not_wrong() {
    let mut store = Store::default();
    let link = store.directory(vec![]);
    let (cid, bytes) = RootNode { mode: 0, mtime: 0, unofficial: None, late: vec![], tree: link }.encode().unwrap();
    let mut newer = bytes.clone();
    newer[1] = 2;
    let error = RootNode::decode(&signed_by_hash(&newer), &newer).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(RootNode::decode(&cid, &bytes).is_ok());
    let copy = RootNode { unofficial: Some("rsync://host/m".to_owned()), ..RootNode::decode(&cid, &bytes).unwrap() };
    let (marked, bytes) = copy.encode().unwrap();
    assert_eq!(RootNode::decode(&marked, &bytes), Ok(copy));
}

#[test]
fn filters_choose_as_rsync_does() {
    let select = |rules: &[(bool, &str)]| {
        let mut select = Selector::all();
        rules.iter().for_each(|(include, rule)| select.rule(*include, rule.as_bytes()).unwrap());
        select
    };
    let wants = |rules: &[(bool, &str)], path: &str, is_dir: bool| {
        select(rules).wants(&TreePath::new(path.as_bytes()).unwrap(), is_dir)
    };
    assert!(!wants(&[(false, "*.o")], "a/b/x.o", false));
    assert!(wants(&[(true, "keep.o"), (false, "*.o")], "a/keep.o", false), "first match wins");
    assert!(!wants(&[(false, "/a")], "a", false) && wants(&[(false, "/a")], "b/a", false), "anchored");
    assert!(!wants(&[(false, "tmp/")], "x/tmp", true) && wants(&[(false, "tmp/")], "x/tmp", false), "directories only");
    assert!(
        wants(&[(false, "a/*")], "a/b/c", false) && !wants(&[(false, "a/**")], "a/b/c", false),
        "* stops at a slash"
    );
    assert!(!wants(&[(false, "a/***")], "a", true) && !wants(&[(false, "a/***")], "a/b", false));
    assert!(!wants(&[(false, "[a-c]?")], "b1", false) && wants(&[(false, "[!a-c]?")], "b1", false));
    assert!(!wants(&[(false, "\\*")], "*", false) && wants(&[(false, "\\*")], "x", false));
}

#[test]
fn differences_are_found_without_opening_what_is_equal() {
    let mut store = Store::default();
    let same = store.directory(vec![file("same", b"1")]);
    let old_link = store.directory(vec![file("x", b"1"), file("gone", b"2")].into_iter().rev().collect());
    let new_link = store.directory(vec![file("new", b"3"), file("x", b"4")]);
    let old = store.root(vec![dir("a", same.clone()), dir("b", old_link)]);
    let new = store.root(vec![dir("a", same.clone()), dir("b", new_link)]);
    store.0.remove(&same.cid);
    let found: Vec<(String, bool, bool)> = diff(&store, &old, &new)
        .unwrap()
        .into_iter()
        .map(|one| (one.path.to_string(), one.old.is_some(), one.new.is_some()))
        .collect();
    let expected = [("b/gone", true, false), ("b/new", false, true), ("b/x", true, true)];
    assert_eq!(found, expected.map(|(path, old, new)| (path.to_owned(), old, new)));
}

proptest! {
    #[test]
    fn the_history_of_a_directory_does_not_show(
        names in prop::collection::btree_set("[a-z]{1,6}", 0..400),
        gone in prop::collection::btree_set("[a-z]{1,6}", 0..100),
    ) {
        let entries = |names: &std::collections::BTreeSet<String>| names.iter().map(|name| file(name, b"x")).collect::<Vec<_>>();
        let wanted: std::collections::BTreeSet<String> = names.difference(&gone).cloned().collect();
        let with_history: std::collections::BTreeSet<String> = names.union(&gone).cloned().collect();
        let mut store = Store::default();
        store.directory(entries(&with_history));
        let kept: Vec<Entry> = entries(&with_history).into_iter().filter(|entry| wanted.contains(&entry.name.to_string())).collect();
        prop_assert_eq!(store.directory(kept), Store::default().directory(entries(&wanted)));
    }

    #[test]
    fn pages_read_back_as_written(sizes in prop::collection::vec(any::<u64>().prop_map(|size| size >> 8), 0..50), mtime in any::<i64>(), link in any::<u32>()) {
        let entry = |(at, size): (usize, &u64)| {
            let node = Node::File { size: *size, id: ContentId([at as u8; 32]), link };
            Entry { name: name(format!("n{at:03}")), mode: (at as u16 * 7) & 0o1777, mtime, node }
        };
        let page = Page::Leaf(sizes.iter().enumerate().map(entry).collect());
        let (cid, bytes) = page.encode().unwrap();
        prop_assert_eq!(Page::decode(&cid, &bytes).unwrap(), page);
    }

    #[test]
    fn every_changed_byte_of_a_page_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut store = Store::default();
        let root = sample(&mut store);
        let mut bytes = store.0[&root].clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let refused = matches!(RootNode::decode(&root, &bytes), Err(PageError::WrongHash { .. }));
        prop_assert!(refused);
        // The same bytes under their own name: refused, or another tree, but never a panic.
        let _ = RootNode::decode(&signed_by_hash(&bytes), &bytes);
        let _ = Page::decode(&signed_by_hash(&bytes), &bytes);
    }

    #[test]
    fn paths_are_ordered_as_walks_go(left in "[a-c/-]{1,8}", right in "[a-c/-]{1,8}") {
        let (Ok(left), Ok(right)) = (TreePath::new(left.as_bytes()), TreePath::new(right.as_bytes())) else { return Ok(()) };
        let names = |path: &TreePath| path.components().collect::<Vec<_>>();
        prop_assert_eq!(left.cmp(&right), names(&left).cmp(&names(&right)));
    }
}

#[test]
fn each_new_page_finds_the_one_that_stood_in_its_place() {
    let mut store = Store::default();
    let many = |edited: bool| {
        let content = |number: usize| if edited && number == 700 { b"edited".as_slice() } else { b"as it was" };
        (0..2000).map(|number| file(&format!("f{number:05}"), content(number))).collect::<Vec<_>>()
    };
    let old_dir = store.directory(many(false));
    let old = store.root(vec![dir("d", old_dir), file("x", b"x")]);
    let mut new_store = Store::default();
    let new_dir = new_store.directory(many(true));
    let new = new_store.root(vec![dir("d", new_dir), file("x", b"x")]);
    let mut former = Former::new(new, Some(old));
    let mut open = vec![new];
    let mut pairs = 0;
    while let Some(cid) = open.pop() {
        let before = former.of(&cid).copied().expect("it stood somewhere");
        assert!(store.0.contains_key(&before) && before != cid);
        former.note(&store, &cid, &new_store.0[&cid]);
        assert_eq!(former.of(&cid), None, "once is enough");
        open.extend(
            new_store
                .0
                .keys()
                .filter(|next| former.of(next).is_some() && !open.contains(next))
                .copied()
                .collect::<Vec<_>>(),
        );
        pairs += 1;
    }
    let changed = new_store.0.keys().filter(|cid| !store.0.contains_key(*cid)).count();
    assert!(changed >= 4, "root node, top, directory, the changed part of each level");
    assert_eq!(pairs, changed);
    assert!(Former::new(new, Some(new)).of(&new).is_none() && Former::new(new, None).of(&new).is_none());
}
