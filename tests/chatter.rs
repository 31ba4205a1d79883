//! What goes over the line: no more than what was asked for needs, whatever the size of the tree.

use serde_json::Value;

use crate::util::{Lab, Machine, Node, Proxy, Tree, assert_same, facts, until};

/// An origin behind a relay that counts.
struct Scene {
    lab: Lab,
    tree: Tree,
    origin: Machine,
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
        Self { lab, tree, origin, _node: node, proxy, client, reference, peer }
    }

    /// Fetches `what` with flags; gives the report and the bytes that came down the line.
    fn fetch(&self, flags: &[&str], what: &str, dest: &str) -> (Value, u64) {
        let (done, down, _) = self.fetch_both_ways(flags, what, dest);
        (done, down)
    }

    /// The same, with the bytes that went up as well.
    fn fetch_both_ways(&self, flags: &[&str], what: &str, dest: &str) -> (Value, u64, u64) {
        let (before, before_up) = (self.proxy.down(), self.proxy.up());
        let (reference, dest) = (format!("{}{what}", self.reference), self.lab.path(dest));
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--no-dht", &"--peer", &self.peer, &"fetch"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<std::ffi::OsStr>));
        words.extend([&reference as &dyn AsRef<std::ffi::OsStr>, &dest]);
        let done = self.client.json(&words);
        (done, self.proxy.down() - before, self.proxy.up() - before_up)
    }
}

fn number(done: &Value, key: &str) -> u64 {
    done[key].as_u64().unwrap_or_else(|| panic!("{key} in {done}"))
}

/// All that a run which finds nothing new may cost, handshakes and all, bytes of both ways.
const UNCHANGED: u64 = 8 << 10;
/// What ten changed files may cost beside that, their few bytes included.
const METADATA: u64 = 4 << 10;

#[test]
fn an_unchanged_tree_costs_a_head_and_no_page_whatever_its_size() {
    let costs = [10, 5000].map(|files| {
        let scene = Scene::new(|tree| tree.many(1, files, 20));
        scene.fetch(&[], "", "copy");
        let (done, down, up) = scene.fetch_both_ways(&[], "", "copy");
        assert_eq!((number(&done, "pages"), number(&done, "transferred")), (0, 0), "{done}");
        println!("{files} files: {down} B down, {up} B up");
        down + up
    });
    assert!(costs[1] < costs[0] + 512, "bytes for ten files and for 5,000: {costs:?}");
    assert!(costs[1] < UNCHANGED / 2, "of one node: {costs:?}");
}

/// A head asked for and answered on an open stream, bytes of both ways.
const OPEN: u64 = 400;

#[test]
fn a_node_that_is_connected_asks_for_a_head_and_nothing_else() {
    let scene = Scene::new(|tree| tree.many(1, 50, 500));
    let _node = scene.client.serve(&[&"--no-dht", &"--peer", &scene.peer]);
    let dest = scene.lab.path("copy");
    let mirror = || {
        let before = scene.proxy.down() + scene.proxy.up();
        scene.client.ok(&[&"mirror", &scene.reference, &dest]);
        scene.proxy.down() + scene.proxy.up() - before
    };
    assert!(mirror() > 50 * 500);
    // Pings and the swarm's own news come at their own times.
    until("a pass with nothing else on the line", || (mirror() <= OPEN).then_some(()));
}

#[test]
fn a_few_of_many_files_cost_little_more() {
    let scene = Scene::new(|tree| tree.many(1, 5000, 20));
    scene.fetch(&[], "", "copy");
    let (_, down, up) = scene.fetch_both_ways(&[], "", "copy");
    for number in 0..10 {
        scene.tree.file(format!("d{number:03}/f{:05}", number * 10), format!("other {number}"));
    }
    scene.origin.publish(scene.tree.root());
    let (done, down_then, up_then) = scene.fetch_both_ways(&[], "", "copy");
    assert_eq!(number(&done, "transferred"), 10, "{done}");
    assert_same(scene.tree.root(), &scene.lab.path("copy"));
    println!("{} B down and {} B up more than without a change ({down}, {up})", down_then - down, up_then - up);
    assert!(down_then + up_then < down + up + METADATA, "ten files: {down_then} + {up_then}, none: {down} + {up}");
}

/// An origin, two mirrors, a node that holds nothing, and a client that knows all of them from an earlier run.
#[test]
fn an_unchanged_tree_beside_a_swarm_costs_no_more() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(1, 100, 20);
    let plain = lab.machine("p").serve(&[]);
    let peer = plain.address().to_owned();
    let _origin = origin.serve(&[&"--peer", &peer]);
    let published = origin.publish(tree.root());
    let mirrors = ["m1", "m2"].map(|name| {
        let node = lab.machine(name).serve(&[&"--peer", &peer]);
        lab.machine(name).ok(&[&"mirror", &published.reference, &lab.path(&format!("{name}-tree"))]);
        node
    });
    let (client, dest) = (lab.machine("c"), lab.path("copy"));
    let link = mirrors.iter().fold(published.reference.clone(), |link, node| node.link(&link));
    client.ok(&[&"--peer", &peer, &"fetch", &link, &dest]);
    let fetch = || client.json(&[&"--peer", &peer, &"fetch", &published.reference, &dest]);
    let done = fetch();
    assert_eq!((number(&done, "pages"), number(&done, "transferred")), (0, 0), "{done}");
    println!("{} B received, {} B sent", number(&done, "received"), number(&done, "sent"));
    assert!(number(&done, "received") + number(&done, "sent") <= UNCHANGED, "{done}");
    // What those few do not know is found all the same.
    mirrors.into_iter().for_each(Node::kill);
    tree.file("new", "new");
    origin.publish(tree.root());
    let done = fetch();
    assert_eq!((number(&done, "seq"), number(&done, "transferred")), (2, 1), "{done}");
    assert_same(tree.root(), &dest);
}

#[test]
fn whoever_lags_is_not_believed_alone() {
    let lab = Lab::new();
    let (origin, lagging, tree) = (lab.machine("o"), lab.machine("l"), Tree::new(lab.path("tree")));
    tree.many(1, 20, 20);
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    // A mirror that is alone with its first generation from now on.
    lagging.ok(&[&"--no-dht", &"mirror", &published.link, &lab.path("l-tree")]);
    std::fs::remove_file(lagging.state().join("peers")).expect("the peer cache");
    let alone = lagging.serve(&[&"--no-dht"]);
    let (client, dest) = (lab.machine("c"), lab.path("copy"));
    client.ok(&[&"--no-dht", &"fetch", &published.link, &dest]);
    tree.file("new", "new");
    origin.publish(tree.root());
    // The client is sent to that one, and knows the origin from before.
    let done = client.json(&[&"--no-dht", &"fetch", &alone.link(&published.reference), &dest]);
    assert_eq!(number(&done, "seq"), 2, "{done}");
    assert_same(tree.root(), &dest);
    drop(node);
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
