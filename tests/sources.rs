//! Whom a pass asks, what it finds on this machine, and what it leaves for others.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::util::{Lab, Node, Published, Tree, assert_same, noise, until};

/// An origin and a mirror of one tree, both up.
struct Pair {
    lab: Lab,
    tree: Tree,
    published: Published,
    origin: Node,
    mirror: Node,
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::new();
        let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
        tree.many(1, 40, 3000).file("large", noise(2, 3 << 20));
        let origin_node = origin.serve(&[&"--no-dht"]);
        let published = origin.publish(tree.root());
        let mirror_node = mirror.serve(&[&"--no-dht"]);
        mirror.ok(&[&"mirror", &published.link, &lab.path("m-tree")]);
        Self { lab, tree, published, origin: origin_node, mirror: mirror_node }
    }

    /// Fetches from both with these flags; gives the last row.
    fn fetch(&self, name: &str, flags: &[&str]) -> Value {
        let (dest, both) = (self.lab.path(name), self.mirror.link(&self.origin.link(&self.published.reference)));
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--no-dht", &"fetch"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<std::ffi::OsStr>));
        words.extend([&both as &dyn AsRef<std::ffi::OsStr>, &dest]);
        let done = self.lab.machine(&format!("{name}-home")).json(&words);
        assert_same(self.tree.root(), &dest);
        done
    }
}

#[test]
fn the_origin_is_spared_or_asked_alone() {
    let pair = Pair::new();
    let done = pair.fetch("never", &["--origin", "never"]);
    assert_eq!(done["from"]["origin"], 0, "{done}");
    assert!(done["from"]["peers"].as_u64() >= Some(pair.published.bytes), "{done}");
    let done = pair.fetch("only", &["--origin=only"]);
    assert_eq!(done["from"]["peers"], 0, "{done}");
    pair.fetch("last", &["--origin=last"]);
    pair.lab.machine("c").run(&[&"fetch", &"--origin=sometimes", &"x", &"y"]).expect(1);
}

#[test]
fn no_more_sources_than_asked_for() {
    let pair = Pair::new();
    let done = pair.fetch("one", &["--sources", "1"]);
    let busy = done["sources"].as_array().unwrap().iter().filter(|row| row["requests"].as_u64() > Some(0));
    assert_eq!(busy.count(), 1, "{done}");
    pair.lab.machine("c").run(&[&"fetch", &"--sources=0", &"x", &"y"]).expect(1);
}

#[test]
fn what_is_the_same_elsewhere_on_the_machine_is_copied() {
    let pair = Pair::new();
    let other = Tree::new(pair.lab.path("other"));
    other.file("deep/under/another-name", noise(2, 3 << 20)).file("unrelated", "x");
    let done = pair.fetch("reuse", &["--reuse", other.root().to_str().unwrap()]);
    assert_eq!(done["reused"], 3 << 20, "{done}");
    let brought = done["from"]["peers"].as_u64().unwrap() + done["from"]["origin"].as_u64().unwrap();
    assert_eq!(brought, pair.published.bytes - (3 << 20), "{done}");
    assert_eq!(std::fs::read(other.root().join("unrelated")).unwrap(), b"x");
}

#[test]
fn another_run_on_dest_can_be_waited_for() {
    let pair = Pair::new();
    let (dest, client) = (pair.lab.path("dest"), pair.lab.machine("c"));
    std::fs::create_dir(&dest).unwrap();
    let lock = File::open(&dest).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let link = pair.origin.link(&pair.published.reference);
    client.run(&[&"--no-dht", &"fetch", &link, &dest]).expect(46);
    client.run(&[&"--no-dht", &"fetch", &"--wait-lock", &"1s", &link, &dest]).expect(46);
    let waiting = client.start(&[&"--no-dht", &"fetch", &"--wait-lock=10m", &link, &dest]);
    drop(lock);
    waiting.finish().expect(0);
    assert_same(pair.tree.root(), &dest);
}

#[test]
fn what_was_fetched_is_served_for_a_while() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(3, 10, 2000).file("large", noise(4, 1 << 20));
    let hub = lab.machine("hub").serve(&[]);
    let node = origin.serve(&[&"--peer", &hub.address()]);
    let published = origin.publish(tree.root());
    let dest = lab.path("first");
    let link = node.link(&published.reference);
    let mut seeding = lab.machine("c").start(&[&"--peer", &hub.address(), &"fetch", &"--seed=10m", &link, &dest]);
    until("it is fetched", || (dest.join("large").exists() && !dest.join(".murmir").exists()).then_some(()));
    node.kill();
    let (second, copy) = (lab.machine("d"), lab.path("second"));
    until("another has it from the first", || {
        let run = second.run(&[&"--peer", &hub.address(), &"fetch", &published.reference, &copy]);
        (run.code == 0).then_some(())
    });
    assert_same(tree.root(), &copy);
    assert!(seeding.is_running());
}

#[test]
fn a_sample_looks_at_some_of_the_files() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(5, 200, 50);
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let (client, dest) = (lab.machine("c"), lab.path("copy"));
    client.ok(&[&"--no-dht", &"fetch", &node.link(&published.reference), &dest]);
    let checked = client.json(&[&"verify", &"--sample", &"20%", &dest])["checked"].as_u64().unwrap();
    assert!((1..200).contains(&checked), "{checked}");
    std::fs::write(dest.join("extra"), "not looked at").unwrap();
    let first = std::fs::read_dir(&dest).unwrap().flatten().find(|entry| entry.file_name() != "extra").unwrap();
    let broken = if first.path().is_dir() {
        std::fs::read_dir(first.path()).unwrap().flatten().next().unwrap().path()
    } else {
        first.path()
    };
    std::fs::write(&broken, "damaged").unwrap();
    client.run(&[&"verify", &"--sample=100", &dest]).expect(44);
    client.run(&[&"verify", &"--sample=0", &dest]).expect(1);
}
