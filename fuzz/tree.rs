//! Pages, root nodes, and walks over trees of which one page is hostile.

use std::collections::HashMap;
use std::convert::Infallible;

use cid::Cid;
use multihash::Multihash;
use murmir::manifest::ContentId;
use murmir::manifest::entry::{DirLink, Entry, Node};
use murmir::manifest::page::{Page, RootNode};
use murmir::manifest::path::Name;
use murmir::manifest::select::Selector;
use murmir::manifest::tree::build_directory;
use murmir::manifest::walk::{Pages, Walk};

use super::runner::Target;

/// A page of 64 KiB holds 1400 entries of 100 bytes and a name each, and is encoded again to be compared.
const ENTRIES: usize = 2 << 20;

struct Store(HashMap<Cid, Vec<u8>>);

impl Pages for Store {
    type Error = Infallible;

    fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(cid).cloned())
    }
}

fn named(bytes: &[u8]) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x1e, blake3::hash(bytes).as_bytes()).unwrap())
}

fn entry(name: &str, node: Node) -> Entry {
    Entry { name: Name::new(name).unwrap(), mode: 0o644, mtime: 1_700_000_000_000_000_000, node }
}

/// Pages of all kinds: leaves small and full, indexes of two levels, an empty directory.
fn pages() -> (Vec<Vec<u8>>, DirLink) {
    let mut pages = Vec::new();
    let mut build = |entries| build_directory(entries, &mut |_, bytes| pages.push(bytes)).unwrap();
    let file = |size: u64| Node::File { size, id: ContentId::of(&size.to_be_bytes()), link: 0 };
    let empty = build(Vec::new());
    let many = build((0..3000).map(|number| entry(&format!("f{number:05}"), file(number))).collect());
    let link = Node::Symlink { target: b"../elsewhere".to_vec() };
    let mixed = vec![
        entry("a", Node::Dir(Box::new(empty))),
        entry("b", Node::Dir(Box::new(many))),
        entry("c", file(300)),
        entry("d", link),
    ];
    let top = build(mixed);
    pages.sort_by_key(Vec::len);
    pages.dedup();
    // Few of many alike are enough.
    let (small, large) = (pages.iter().take(12), pages.iter().rev().take(3));
    (small.chain(large).cloned().collect(), top)
}

#[test]
fn pages_of_a_tree() {
    Target { name: "pages", corpus: pages().0, words: &[], spare: ENTRIES, slow: 1 }.run(|input| {
        let Ok(page) = Page::decode(&named(input), input) else { return false };
        let (cid, again) = page.encode().unwrap();
        assert!(cid == named(input) && again == input, "two forms of one page");
        true
    });
}

#[test]
fn root_nodes() {
    let root = |late: &[&str]| {
        let late = late.iter().map(|glob| (*glob).to_owned()).collect();
        RootNode { mode: 0o755, mtime: 5, unofficial: None, late, tree: pages().1 }.encode().unwrap().1
    };
    Target { name: "root nodes", corpus: vec![root(&[]), root(&["Release", "*.html"])], words: &[], spare: 0, slow: 1 }
        .run(|input| {
            let Ok(node) = RootNode::decode(&named(input), input) else { return false };
            // Optional features that a later version wrote are read over, and not written again.
            drop(node.encode().unwrap());
            true
        });
}

/// The tree whose top page is the input, under totals that fit it where it is one: the walk ends, and nothing is met twice or
/// out of order.
#[test]
fn walks() {
    let corpus = pages().0;
    let known: HashMap<Cid, Vec<u8>> = corpus.iter().map(|page| (named(page), page.clone())).collect();
    let all = Selector::all();
    Target { name: "walks", corpus, words: &[], spare: 2 * ENTRIES, slow: 1 }.run(|input| {
        let totals = Page::decode(&named(input), input).ok().and_then(|page| page.totals());
        let (entries, bytes) = totals.unwrap_or_default();
        let tree = DirLink { cid: named(input), entries, bytes };
        let (root, node) =
            RootNode { mode: 0o755, mtime: 5, unofficial: None, late: Vec::new(), tree }.encode().unwrap();
        let mut store = Store(HashMap::from([(root, node), (named(input), input.to_vec())]));
        store.0.extend(known.iter().take(3).map(|(cid, page)| (*cid, page.clone())));
        let Ok(walk) = Walk::new(&store, &root, &all) else { return totals.is_some() };
        let mut before = None;
        for item in walk.map_while(Result::ok) {
            assert!(before.as_ref().is_none_or(|before| *before < item.path), "{} twice or out of order", item.path);
            before = Some(item.path);
        }
        totals.is_some()
    });
}
