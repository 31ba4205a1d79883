//! A publisher that signs trees no honest one makes, seen by the whole program: refused with one line and a code of its own,
//! nothing written, no content asked for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cid::Cid;
use libp2p::PeerId;
use murmir::manifest::ContentId;
use murmir::manifest::entry::{DirLink, Entry, Node};
use murmir::manifest::page::{Child, Page, RootNode};
use murmir::manifest::path::Name;
use murmir::manifest::tree::build_directory;
use murmir::wire::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use murmir::wire::msg::Held;
use murmir::wire::{Have, Provider};
use tokio::runtime::Runtime;
use tracker_less::record::{Charter, CheckedBundle, Head, ModuleId, SecretKey};

use crate::util::{Lab, serve};

/// The one content of all evil trees.
const CONTENT: &[u8] = b"whatever";

/// Everything that a publisher of evil trees serves.
#[derive(Default)]
struct Evil {
    bundles: HashMap<ModuleId, CheckedBundle>,
    pages: HashMap<Cid, Vec<u8>>,
    contents_given: AtomicU64,
}

impl Evil {
    fn key() -> SecretKey {
        SecretKey::from_seed([3; 32])
    }

    fn directory(&mut self, entries: Vec<Entry>) -> DirLink {
        build_directory(entries, &mut |cid, bytes| drop(self.pages.insert(cid, bytes))).expect("pages")
    }

    fn page(&mut self, page: &Page) -> Child {
        let (cid, bytes) = page.encode().expect("a page");
        self.pages.insert(cid, bytes);
        let (entries, bytes) = page.totals().expect("totals");
        let first = match page {
            Page::Leaf(entries) => entries[0].name.clone(),
            Page::Index { children, .. } => children[0].first.clone(),
        };
        Child { first, cid, entries, bytes }
    }

    /// Signs a tree as module `name`; its head may say other totals.
    fn publish(&mut self, name: &str, tree: DirLink, totals: Option<(u64, u64)>) {
        let key = Self::key();
        let (entries, bytes) = totals.unwrap_or((tree.entries, tree.bytes));
        let (root, page) =
            RootNode { mode: 0o755, mtime: 0, unofficial: None, late: Vec::new(), tree }.encode().expect("a root node");
        self.pages.insert(root, page);
        let name = name.parse().expect("a module name");
        let module = ModuleId::new(&key.public().publisher(), &name);
        let charter = Charter {
            epoch: 0,
            heads: vec![key.public()],
            fresh: Vec::new(),
            trackers: Vec::new(),
            fresh_for: 100,
            nomination_for: 100,
            accepted: Vec::new(),
            successor: None,
        };
        let head = Head { module, epoch: 0, seq: 1, previous: None, root, entries, bytes, created: 1 };
        let bundle = CheckedBundle::sign(&key, &key, &name, &charter, head, None).expect("a bundle");
        self.bundles.insert(module, bundle);
    }
}

impl Provider for Evil {
    fn bundle(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.bundles.get(module).cloned()
    }

    fn held(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.bundle(module)
    }

    fn holds(&self, module: &ModuleId) -> Vec<Held> {
        let held = |bundle: &CheckedBundle| Held { epoch: 0, seq: 1, root: *bundle.root(), whole: true };
        self.bundles.get(module).map(held).into_iter().collect()
    }

    fn nominations(&self, _: &ModuleId) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn page(&self, _: &ModuleId, cid: &Cid) -> Option<Vec<u8>> {
        self.pages.get(cid).cloned()
    }

    fn small(&self, _: &ModuleId, _: &Short, _: u64) -> Option<Vec<u8>> {
        self.contents_given.fetch_add(1, Ordering::SeqCst);
        Some(CONTENT.to_vec())
    }

    fn range(&self, _: &ModuleId, _: &ContentId, _: u64, _: Range<u64>) -> Option<Vec<u8>> {
        None
    }

    fn page_patches(&self, _: &ModuleId, pages: &[(Short, Short)]) -> PagePatches {
        PagePatches { sizes: vec![None; pages.len()], frame: Vec::new() }
    }

    fn patches(&self, _: &ModuleId, pairs: &[Pair]) -> Made {
        Made { slots: vec![None; pairs.len()], frame: Vec::new() }
    }

    fn outboard(&self, _: &ModuleId, _: &ContentId, _: u64, _: u64) -> Option<Vec<u8>> {
        None
    }

    fn sums(&self, _: &ModuleId, _: &Part) -> Option<Vec<u8>> {
        None
    }

    fn slices(&self, _: &ModuleId, parts: &[Lacking]) -> Made {
        Made { slots: vec![None; parts.len()], frame: Vec::new() }
    }

    fn have(&self, _: &ModuleId, _: &Cid) -> Have {
        Have::Whole
    }

    fn heard(&self, _: PeerId, _: Vec<Vec<u8>>, _: Vec<Vec<u8>>) {}
}

fn entry(name: &[u8], mode: u16, node: Node) -> Entry {
    Entry { name: Name::new(name).expect("a name"), mode, mtime: 1_000_000_000, node }
}

fn file(name: &[u8]) -> Entry {
    entry(name, 0o644, Node::File { size: CONTENT.len() as u64, id: ContentId::of(CONTENT), link: 0 })
}

fn dir(name: &[u8], link: &DirLink) -> Entry {
    entry(name, 0o755, Node::Dir(Box::new(link.clone())))
}

/// Evil trees: module name, and what the refusal says.
fn evil_trees(evil: &mut Evil) -> Vec<(&'static str, &'static str)> {
    let mut trees = Vec::new();
    let mut publish = |evil: &mut Evil, name, entries: Vec<Entry>, why| {
        let tree = evil.directory(entries);
        evil.publish(name, tree, None);
        trees.push((name, why));
    };
    publish(evil, "control", vec![file(b"a"), file(b"b\x1b[31m")], "b\\#033[31m holds control characters");
    publish(evil, "own", vec![file(b".murmir"), file(b"a")], ".murmir at its root");
    publish(evil, "setid", vec![entry(b"a", 0o4755, file(b"a").node)], "mode bits that no tree carries");
    let nowhere = Node::Symlink { target: Vec::new() };
    publish(evil, "target", vec![file(b"a"), entry(b"b", 0o777, nowhere)], "impossible symlink target");
    let leaf = evil.directory(vec![file(b"x")]);
    let lie = DirLink { bytes: leaf.bytes + 1, ..leaf };
    publish(evil, "totals", vec![file(b"a"), dir(b"b", &lie)], "b: sizes that do not add up");
    let mut deep = evil.directory(vec![file(b"x")]);
    for _ in 0..128 {
        deep = evil.directory(vec![dir(b"d", &deep)]);
    }
    publish(evil, "deep", vec![file(b"a"), dir(b"d", &deep)], "more than 128 names deep");
    let mut bomb = evil.directory((0..500).map(|number| file(format!("f{number:03}").as_bytes())).collect());
    for _ in 0..5 {
        bomb = evil.directory((0..500).map(|number| dir(format!("d{number:03}").as_bytes(), &bomb)).collect());
    }
    publish(evil, "bomb", vec![file(b"a"), dir(b"b", &bomb)], "repeats itself without end");
    let parts = vec![evil.page(&Page::Leaf(vec![file(b"a"), file(b"c")])), evil.page(&Page::Leaf(vec![file(b"b")]))];
    let top = evil.page(&Page::Index { level: 1, children: parts });
    evil.publish("overlap", DirLink { cid: top.cid, entries: top.entries, bytes: top.bytes }, None);
    trees.push(("overlap", "a page in the wrong place"));
    let tree = evil.directory(vec![file(b"a")]);
    evil.publish("head", tree.clone(), Some((tree.entries + 1, tree.bytes)));
    trees.push(("head", "other totals"));
    trees
}

#[test]
fn evil_trees_are_refused_whole_before_any_content() {
    let lab = Lab::new();
    let runtime = Runtime::new().expect("runtime");
    let mut evil = Evil::default();
    let trees = evil_trees(&mut evil);
    let good = evil.directory(vec![file(b"a")]);
    evil.publish("good", good, None);
    let evil = Arc::new(evil);
    let address = runtime.block_on(serve(Arc::clone(&evil)));
    let (client, publisher) = (lab.machine("c"), Evil::key().public().publisher());
    let link = |name: &str| format!("murmir://{publisher}/{name}?peer={address}");
    for (name, why) in trees {
        let dest = lab.path(name);
        for verb in ["fetch", "mirror"] {
            let run = client.run(&[&"--no-dht", &verb, &link(name), &dest]).expect(12);
            let last = run.stderr.lines().last().unwrap_or_default();
            assert!(last.contains(why) && last.ends_with("(code 12)"), "{name}: {}", run.stderr);
            assert!(!dest.exists(), "{name}: something was written");
        }
    }
    assert_eq!(evil.contents_given.load(Ordering::SeqCst), 0, "content was asked for");
    // Over quota: the same, by its own code; and a good tree of the same publisher shows that the lab works.
    let dest = lab.path("good");
    client.run(&[&"--no-dht", &"fetch", &"--max-size-total=7", &link("good"), &dest]).expect(47);
    assert!(!dest.exists() && evil.contents_given.load(Ordering::SeqCst) == 0);
    client.ok(&[&"--no-dht", &"fetch", &"--max-size-total=8", &link("good"), &dest]);
    assert_eq!(std::fs::read(dest.join("a")).expect("the file"), CONTENT);
}
