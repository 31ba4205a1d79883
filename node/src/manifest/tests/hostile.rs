//! Trees that no honest publisher makes, one for each line of docs/SAFETY.md: a frontier refuses them before more is fetched,
//! a walk before anything is done.

use super::super::page::Child;
use super::super::path::{MAX_DEPTH, PathError};
use super::*;

impl Store {
    fn put(&mut self, page: &Page) -> (Cid, u64, u64) {
        let (cid, bytes) = page.encode().unwrap();
        self.0.insert(cid, bytes);
        let (entries, bytes) = page.totals().unwrap();
        (cid, entries, bytes)
    }

    fn leaf(&mut self, names: &[&str]) -> Child {
        let (cid, entries, bytes) = self.put(&Page::Leaf(names.iter().map(|name| file(name, b"x")).collect()));
        Child { first: name(names[0]), cid, entries, bytes }
    }

    fn index(&mut self, level: u8, children: Vec<Child>) -> Child {
        let first = children[0].first.clone();
        let (cid, entries, bytes) = self.put(&Page::Index { level, children });
        Child { first, cid, entries, bytes }
    }

    /// The tree whose top directory is this page.
    fn below(&mut self, top: &Child) -> Cid {
        let tree = DirLink { cid: top.cid, entries: top.entries, bytes: top.bytes };
        let (cid, bytes) = RootNode { mode: 0o755, mtime: 5, unofficial: None, late: vec![], tree }.encode().unwrap();
        self.0.insert(cid, bytes);
        cid
    }
}

type Refusal = WalkError<Infallible>;

/// How a tree is refused, by a frontier that looks for what is missing and by a walk: alike.
fn refusals(store: &Store, root: &Cid) -> (Option<Refusal>, Option<Refusal>) {
    let all = Selector::all();
    let mut frontier = Frontier::new(*root, &all);
    let walked = Walk::new(store, root, &all).and_then(|walk| walk.collect::<Result<Vec<_>, _>>());
    (frontier.missing(store, usize::MAX).err(), walked.err())
}

#[track_caller]
fn assert_refused(store: &Store, root: &Cid, is_it: fn(&Refusal) -> bool) {
    let (frontier, walk) = refusals(store, root);
    assert!(frontier.as_ref().is_some_and(is_it), "frontier: {frontier:?}");
    assert!(walk.as_ref().is_some_and(is_it), "walk: {walk:?}");
}

#[test]
fn parts_that_overlap_are_refused() {
    let misplaced = |error: &Refusal| matches!(error, WalkError::Misplaced { .. });
    let mut store = Store::default();
    let good = [store.leaf(&["a", "b"]), store.leaf(&["c", "d"])].to_vec();
    let top = store.index(1, good.clone());
    let root = store.below(&top);
    assert!(matches!(refusals(&store, &root), (None, None)), "the tree that is changed below is good");
    // A name twice, names out of order, and the same below another level of index.
    for names in [["a", "c"], ["a", "x"]] {
        let parts = vec![store.leaf(&names), good[1].clone()];
        let top = store.index(1, parts.clone());
        let root = store.below(&top);
        assert_refused(&store, &root, misplaced);
        let (low, high) = (store.index(1, vec![parts[0].clone()]), store.index(1, vec![parts[1].clone()]));
        let top = store.index(2, vec![low, high]);
        let root = store.below(&top);
        assert_refused(&store, &root, misplaced);
    }
    // One name as a file and as a directory.
    let below = store.directory(vec![file("x", b"x")]);
    let (cid, entries, bytes) = store.put(&Page::Leaf(vec![dir("b", below)]));
    let twin = Child { first: name("b"), cid, entries, bytes };
    let top = store.index(1, vec![good[0].clone(), twin]);
    let root = store.below(&top);
    assert_refused(&store, &root, misplaced);
}

#[test]
fn pages_in_the_wrong_place_are_refused() {
    let misplaced = |error: &Refusal| matches!(error, WalkError::Misplaced { .. });
    let mut store = Store::default();
    let leaf = store.leaf(&["a", "b"]);
    let too_high = store.index(3, vec![leaf.clone()]);
    let renamed = store.index(1, vec![Child { first: name("A"), ..leaf }]);
    for top in [too_high, renamed] {
        let root = store.below(&top);
        assert_refused(&store, &root, misplaced);
    }
}

#[test]
fn totals_that_do_not_add_up_are_refused_wherever_they_stand() {
    let totals = |error: &Refusal| matches!(error, WalkError::Totals { .. });
    let mut store = Store::default();
    let leaf = store.leaf(&["a", "b"]);
    let lies = [Child { entries: 3, ..leaf.clone() }, Child { bytes: 1, ..leaf.clone() }];
    for lie in lies {
        let root = store.below(&lie);
        assert_refused(&store, &root, totals);
        let top = store.index(1, vec![lie]);
        let root = store.below(&top);
        assert_refused(&store, &root, totals);
    }
    let huge = Child { bytes: u64::MAX, ..leaf.clone() };
    let page = Page::Index { level: 1, children: vec![huge, Child { first: name("b"), ..leaf }] };
    let (cid, bytes) = page.encode().unwrap();
    assert!(matches!(Page::decode(&cid, &bytes), Err(PageError::Invalid { .. })), "sums that overflow");
}

#[test]
fn a_tree_deeper_than_paths_go_is_refused() {
    let too_deep = |error: &Refusal| matches!(error, WalkError::Path { source: PathError::TooDeep, .. });
    let mut store = Store::default();
    let mut nested = |dirs: usize| {
        let mut entries = vec![file("x", b"x")];
        for _ in 0..dirs {
            entries = vec![dir("d", store.directory(entries))];
        }
        let root = store.root(entries);
        (store.clone(), root)
    };
    let (store, root) = nested(MAX_DEPTH + 1);
    assert_refused(&store, &root, too_deep);
    // A file one too deep shows in the walk, which comes before anything is done.
    let (store, root) = nested(MAX_DEPTH);
    assert!(refusals(&store, &root).1.as_ref().is_some_and(too_deep));
    let (store, root) = nested(MAX_DEPTH - 1);
    assert!(matches!(refusals(&store, &root), (None, None)), "as deep as paths go");
}

#[test]
fn few_pages_that_unfold_without_end_are_refused_before_they_do() {
    let mut store = Store::default();
    let files = (0..500).map(|number| file(&format!("f{number:03}"), b"x")).collect();
    let mut link = store.directory(files);
    let copies = |link: &DirLink, count| (0..count).map(|at| dir(&format!("d{at:03}"), link.clone())).collect();
    let honest = store.directory(copies(&link, 50));
    let root = store.root(vec![dir("copies", honest)]);
    assert!(matches!(refusals(&store, &root), (None, None)), "copies of a directory are no offence");
    for _ in 0..5 {
        link = store.directory(copies(&link, 500));
    }
    let root = store.root(vec![dir("bomb", link)]);
    assert!(store.0.len() < 100, "few pages");
    let all = Selector::all();
    let refused = Frontier::new(root, &all).missing(&store, usize::MAX);
    assert!(matches!(refused, Err(WalkError::Exploding { .. })), "{refused:?}");
}

#[test]
fn our_own_directory_is_refused_at_the_root_and_nowhere_else() {
    let mut store = Store::default();
    let root = store.root(vec![file(".murmir", b"x")]);
    assert_refused(&store, &root, |error| matches!(error, WalkError::OwnName));
    let below = store.directory(vec![file(".murmir", b"x")]);
    let root = store.root(vec![dir("a", below)]);
    assert!(matches!(refusals(&store, &root), (None, None)));
}

#[test]
fn pages_over_the_cap_are_refused_under_their_own_name() {
    let entry = |number: usize| file(&format!("{number:05}{}", "n".repeat(200)), b"x");
    let page = Page::Leaf((0..300).map(entry).collect());
    assert!(page.encode().is_none(), "not even written");
    let mut columns = crafted::leaf();
    columns.insert(9, crafted::Value::List(vec![crafted::Value::Bytes(vec![b'x'; 4096]); 17]));
    let bytes = crafted::encode(&columns);
    let refused = Page::decode(&signed_by_hash(&bytes), &bytes);
    assert!(bytes.len() > MAX_PAGE && matches!(refused, Err(PageError::Invalid { .. })), "{refused:?}");
}
