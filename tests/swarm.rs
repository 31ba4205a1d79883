//! The main job: a tree outlives its origin.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::util::{Lab, Machine, Node, Published, Tree, assert_same, noise, scale, until};

/// Small files, their size, and how many large ones of 2 MiB there are: about 20 MiB.
const SMALL: usize = 600;
const SMALL_SIZE: usize = 8 << 10;
const LARGE: usize = 8;
const LARGE_SIZE: usize = 2 << 20;

/// A plain DHT node, an origin, two mirrors.
struct Swarm {
    lab: Lab,
    tree: Tree,
    plain: Node,
    origin: Machine,
    origin_node: Option<Node>,
    mirrors: Vec<(Machine, Node, std::path::PathBuf)>,
    published: Published,
}

impl Swarm {
    fn new() -> Self {
        let lab = Lab::new();
        let tree = Tree::new(lab.path("tree"));
        tree.many(1, SMALL * scale(), SMALL_SIZE).sampler();
        for number in 0..LARGE * scale() {
            tree.file(format!("large/{number}"), noise(number as u64, LARGE_SIZE));
        }
        let plain = lab.machine("p").serve(&[]);
        let peer = plain.address().to_owned();
        let origin = lab.machine("o");
        let origin_node = origin.serve(&[&"--peer", &peer]);
        let published = origin.publish(tree.root());
        let mut mirrors = Vec::new();
        for name in ["m1", "m2"] {
            let machine = lab.machine(name);
            let node = machine.serve(&[&"--bootstrap", &peer]);
            let dest = lab.path(&format!("{name}-tree"));
            machine.ok(&[&"mirror", &published.reference, &dest]);
            mirrors.push((machine, node, dest));
        }
        Self { lab, tree, plain, origin, origin_node: Some(origin_node), mirrors, published }
    }

    /// Waits until a stranger finds both mirrors through the plain node.
    fn wait_for_mirrors(&self) {
        let (probe, peer) = (self.lab.machine("probe"), self.plain.address());
        let wanted: Vec<&str> = self.mirrors.iter().map(|(_, node, _)| node.peer_id()).collect();
        until("both mirrors are found through the DHT", || {
            let run = probe.run(&[&"--json", &"--peer", &peer, &"resolve", &self.published.reference]);
            let text = run.text();
            wanted.iter().all(|id| text.contains(id)).then_some(())
        });
    }
}

/// Bytes received by peer.
fn shares(done: &Value) -> BTreeMap<String, u64> {
    let rows = done["sources"].as_array().expect("sources");
    let row = |row: &Value| (row["peer_id"].as_str().expect("id").to_owned(), row["received"].as_u64().expect("bytes"));
    rows.iter().map(row).collect()
}

#[test]
fn a_newcomer_gets_everything_from_the_mirrors_of_a_dead_origin() {
    let mut swarm = Swarm::new();
    swarm.wait_for_mirrors();
    swarm.origin_node.take().expect("still alive").kill();
    let (newcomer, dest, peer) = (swarm.lab.machine("c"), swarm.lab.path("c-tree"), swarm.plain.address());
    let done = newcomer.json(&[&"--peer", &peer, &"fetch", &swarm.published.reference, &dest]);
    assert_same(swarm.tree.root(), &dest);
    let shares = shares(&done);
    for (_, node, _) in &swarm.mirrors {
        let share = shares.get(node.peer_id()).copied().unwrap_or(0);
        assert!(share * 10 >= swarm.published.bytes, "a mirror sent less than a tenth: {shares:?}");
    }
    assert_eq!(done["from"]["origin"], 0);
}

#[test]
fn mirrors_hear_of_a_second_generation_and_fetch_only_what_changed() {
    let swarm = Swarm::new();
    let tree = &swarm.tree;
    tree.file("d001/f00011", noise(1001, SMALL_SIZE)).file("added/new", noise(1002, SMALL_SIZE));
    fs::remove_file(tree.path("d002/f00021")).unwrap();
    fs::rename(tree.path("d003"), tree.path("moved")).unwrap();
    fs::rename(tree.path("large/0"), tree.path("large/renamed")).unwrap();
    let second = swarm.origin.publish(tree.root());
    assert_eq!(second.seq, 2);
    for (machine, _, dest) in &swarm.mirrors {
        let heard = until("the mirror hears of it by itself", || {
            let status = machine.module_status();
            (status["newest_seq"] == 2).then_some(status)
        });
        assert_eq!(heard["seq"], 1, "heard of, not fetched before the next pass: {heard}");
        let done = machine.json(&[&"mirror", &second.reference, &dest]);
        assert_eq!(done["seq"], 2);
        assert_eq!(done["transferred"], 2, "renames and moves transfer nothing: {done}");
        let bytes: u64 = shares(&done).values().sum();
        assert!(bytes < 2 * SMALL_SIZE as u64 + (200 << 10), "two files and the changed pages: {done}");
        assert_same(tree.root(), dest);
    }
}

#[test]
fn a_watching_mirror_follows_without_being_asked() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.many(1, 50, 100);
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let _mirror_node = mirror.serve(&[&"--peer", &node.address()]);
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &"--watch", &published.reference, &dest]);
    tree.file("new", "new");
    origin.publish(tree.root());
    until("the new file arrives", || dest.join("new").exists().then_some(()));
    until("the pass ends", || (mirror.module_status()["seq"] == 2).then_some(()));
    assert_same(tree.root(), &dest);
}

#[test]
fn a_mirror_says_that_it_is_one() {
    let swarm = Swarm::new();
    let (probe, peer) = (swarm.lab.machine("probe"), swarm.plain.address());
    // While they were made they said how much of them was there.
    let rows = until("both nominate themselves, whole", || {
        let run = probe.run(&[&"--json", &"--peer", &peer, &"mirrors", &swarm.published.reference]);
        let is_whole = |row: &Value| row["role"] == "mirror" && row["coverage"] == 1.0;
        let rows: Vec<Value> = run.rows().into_iter().filter(is_whole).collect();
        (rows.len() >= 2).then_some(rows)
    });
    for (_, node, _) in &swarm.mirrors {
        let row = rows.iter().find(|row| row["peer_id"] == node.peer_id()).expect("a row of each");
        assert_eq!((&row["seq"], &row["coverage"]), (&Value::from(1), &Value::from(1.0)), "{row}");
    }
}

#[test]
fn a_mirror_without_a_node_is_served_by_the_next_one() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.sampler();
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (dest, copy) = (lab.path("m-tree"), lab.path("copy"));
    let run = mirror.ok(&[&"mirror", &published.link, &dest]);
    assert_eq!((run.text(), run.stderr), (String::new(), String::new()), "in silence");
    assert!(dest.join(".murmir").is_dir(), "a mirror keeps it");
    node.kill();
    let serving = mirror.serve(&[]);
    lab.machine("c").ok(&[&"--no-dht", &"fetch", &serving.link(&published.reference), &copy]);
    assert_same(tree.root(), &copy);
}

#[test]
fn a_mirror_deletes_what_the_module_lost() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.many(1, 30, 100).dir("d000/empty");
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &published.link, &dest]);
    fs::remove_dir_all(tree.path("d000")).unwrap();
    origin.publish(tree.root());
    let done = mirror.json(&[&"mirror", &published.link, &dest]);
    assert_eq!(done["deleted"], 12, "ten files and two directories: {done}");
    assert_same(tree.root(), &dest);
}

#[test]
fn forgetting_ends_the_registration_and_leaves_the_files() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.sampler();
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let mirror_node = mirror.serve(&[&"--peer", &node.address()]);
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &published.reference, &dest]);
    mirror.ok(&[&"forget", &published.reference]);
    assert_eq!(mirror.json(&[&"status"])["modules"], Value::Array(Vec::new()));
    assert_same(tree.root(), &dest);
    let (copy, link) = (lab.path("copy"), mirror_node.link(&published.reference));
    node.kill();
    let code = lab.machine("c").run(&[&"--no-dht", &"fetch", &link, &copy]).code;
    assert!([10, 24, 40].contains(&code), "nobody serves it now: {code}");
}

#[test]
fn a_second_destination_for_one_module_needs_adopt() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.sampler();
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (first, second) = (lab.path("first"), lab.path("second"));
    mirror.ok(&[&"mirror", &published.link, &first]);
    mirror.run(&[&"mirror", &published.link, &second]).expect(1);
    mirror.ok(&[&"mirror", &"--adopt", &published.link, &second]);
    assert_same(tree.root(), &second);
}
