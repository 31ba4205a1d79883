//! What goes over the line: no more than what was asked for needs, whatever the size of the tree.

use serde_json::Value;

use crate::util::{Lab, Machine, Node, Proxy, Tree, assert_same, facts};

/// An origin behind a relay that counts.
struct Scene {
    lab: Lab,
    tree: Tree,
    _origin: Machine,
    _node: Node,
    proxy: Proxy,
    client: Machine,
    reference: String,
    peer: String,
}

impl Scene {
    fn new(fill: impl FnOnce(&Tree) -> &Tree) -> Self {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
        fill(&tree);
        let node = origin.serve(&[]);
        let proxy = Proxy::start(node.port());
        let peer = proxy.address(node.address());
        let reference = origin.publish(tree.root()).reference;
        Self { lab, tree, _origin: origin, _node: node, proxy, client, reference, peer }
    }

    /// Fetches `what` with flags; gives the report and the bytes that came down the line.
    fn fetch(&self, flags: &[&str], what: &str, dest: &str) -> (Value, u64) {
        let before = self.proxy.down();
        let (reference, dest) = (format!("{}{what}", self.reference), self.lab.path(dest));
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--no-dht", &"--peer", &self.peer, &"fetch"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<std::ffi::OsStr>));
        words.extend([&reference as &dyn AsRef<std::ffi::OsStr>, &dest]);
        let done = self.client.json(&words);
        (done, self.proxy.down() - before)
    }
}

fn number(done: &Value, key: &str) -> u64 {
    done[key].as_u64().unwrap_or_else(|| panic!("{key} in {done}"))
}

#[test]
fn an_unchanged_tree_costs_a_head_and_no_page_whatever_its_size() {
    let costs = [10, 5000].map(|files| {
        let scene = Scene::new(|tree| tree.many(1, files, 20));
        scene.fetch(&[], "", "copy");
        let (done, down) = scene.fetch(&[], "", "copy");
        assert_eq!((number(&done, "pages"), number(&done, "transferred")), (0, 0), "{done}");
        down
    });
    assert!(costs[1] < costs[0] + 2048, "bytes for ten files and for 5,000: {costs:?}");
    assert!(costs[1] < 16 << 10, "{costs:?}");
}

#[test]
fn a_pattern_or_expression_brings_the_pages_on_its_way_only() {
    let mut scene = Scene::new(|tree| tree.many(1, 20_000, 8));
    let (all, _) = scene.fetch(&["-n"], "", "none");
    let every = number(&all, "pages");
    assert!(every > 2000, "a page for each directory, and those above: {every}");
    // Nothing but what is asked for is there any more: the origin looks at nothing else.
    let names = std::fs::read_dir(scene.tree.root()).expect("the tree").map(|entry| entry.expect("an entry").path());
    names.filter(|path| !path.ends_with("d042")).for_each(|path| std::fs::remove_dir_all(path).expect("removed"));
    let by_rules = ["--include=/d042/", "--include=/d042/**", "--exclude=*"];
    for (name, flags) in [("rules", &by_rules[..]), ("regex", &["--regex=^d042/f"])] {
        // A machine that knows no page yet.
        let newcomer = Scene { client: scene.lab.machine(name), ..scene };
        let (done, _) = newcomer.fetch(flags, "", &format!("copy-{name}"));
        let files = facts(&newcomer.lab.path(&format!("copy-{name}"))).values().filter(|fact| fact.kind == '-').count();
        assert_eq!(files, 10, "by {name}");
        let pages = number(&done, "pages");
        // The root, the way down to one name of 2,000 or all that is in its directory, and the page of that.
        assert!(pages < 40, "by {name}: {pages} of {every} pages");
        scene = newcomer;
    }
}

#[test]
fn small_files_come_many_to_a_request() {
    let scene = Scene::new(|tree| tree.many(1, 2000, 300));
    let (done, down) = scene.fetch(&[], "", "copy");
    let requests: u64 = done["sources"].as_array().expect("sources").iter().map(|row| number(row, "requests")).sum();
    assert!(requests < 40, "{requests} requests for 2,000 files");
    assert!(down < 2000 * 300 + (600 << 10), "{down} bytes for 600 KB in 200 directories");
    assert_same(scene.tree.root(), &scene.lab.path("copy"));
}
