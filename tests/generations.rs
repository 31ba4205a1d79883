//! Order, rollback, staleness, forks.

use std::fs;

use crate::util::{Lab, Node, Published, Tree, assert_same, until};

/// A module with two generations: the second at the origin, the first still at a mirror that knows of nothing else.
struct Two {
    lab: Lab,
    origin_node: Node,
    mirror_node: Node,
    first: std::path::PathBuf,
    tree: Tree,
    published: Published,
}

impl Two {
    fn new() -> Self {
        let lab = Lab::new();
        let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
        tree.file("a", "first").file("b", "both");
        let node = origin.serve(&[]);
        let published = origin.publish(tree.root());
        let first = lab.path("m-tree");
        mirror.ok(&[&"mirror", &published.link, &first]);
        node.kill();
        // Published while nobody can hear of it.
        tree.file("a", "second");
        assert_eq!(origin.publish_with(tree.root(), &[&"--offline"]).seq, 2);
        let origin_node = origin.serve(&[]);
        let mirror_node = mirror.serve(&[&"--no-dht"]);
        Self { lab, origin_node, mirror_node, first, tree, published }
    }
}

#[test]
fn the_newest_generation_that_can_be_had_is_taken() {
    let two = Two::new();
    let (client, dest) = (two.lab.machine("c"), two.lab.path("copy"));
    let both = two.mirror_node.link(&two.origin_node.link(&two.published.reference));
    client.ok(&[&"fetch", &both, &dest]);
    assert_same(two.tree.root(), &dest);
}

#[test]
fn a_generation_can_be_named() {
    let two = Two::new();
    let client = two.lab.machine("c");
    let both = |at: &str| {
        let reference = format!("{}{at}", two.published.reference);
        two.mirror_node.link(&two.origin_node.link(&reference))
    };
    client.ok(&[&"fetch", &both("@1"), &two.lab.path("one")]);
    assert_same(&two.first, &two.lab.path("one"));
    client.ok(&[&"fetch", &both(&format!("@{}", two.published.root)), &two.lab.path("root")]);
    assert_same(&two.first, &two.lab.path("root"));
    client.ok(&[&"fetch", &both(""), &two.lab.path("newest")]);
    assert_same(two.tree.root(), &two.lab.path("newest"));
}

#[test]
fn going_back_is_43_unless_allowed() {
    let two = Two::new();
    let (client, dest) = (two.lab.machine("c"), two.lab.path("copy"));
    client.ok(&[&"fetch", &two.origin_node.link(&two.published.reference), &dest]);
    let old = two.mirror_node.link(&format!("{}@1", two.published.reference));
    client.run(&[&"fetch", &old, &dest]).expect(43);
    assert_same(two.tree.root(), &dest);
    client.ok(&[&"fetch", &"--allow-downgrade", &old, &dest]);
    assert_same(&two.first, &dest);
}

#[test]
fn an_older_mirror_never_takes_anybody_back() {
    let two = Two::new();
    let (client, dest) = (two.lab.machine("c"), two.lab.path("copy"));
    client.ok(&[&"fetch", &two.origin_node.link(&two.published.reference), &dest]);
    let old = two.mirror_node.link(&two.published.reference);
    two.origin_node.kill();
    client.run(&[&"--no-dht", &"fetch", &old, &dest]);
    assert_same(two.tree.root(), &dest);
}

#[test]
fn something_newer_that_nobody_has_is_45_and_what_can_be_had_is_placed() {
    let two = Two::new();
    let (client, dest) = (two.lab.machine("c"), two.lab.path("copy"));
    client.ok(&[&"resolve", &two.origin_node.link(&two.published.reference)]);
    let old = two.mirror_node.link(&two.published.reference);
    two.origin_node.kill();
    client.run(&[&"--no-dht", &"fetch", &old, &dest]).expect(45);
    assert_same(&two.first, &dest);
}

#[test]
fn a_word_that_is_too_old_is_45() {
    let two = Two::new();
    let client = two.lab.machine("c");
    let (link, dest) = (two.origin_node.link(&two.published.reference), two.lab.path("copy"));
    client.ok(&[&"fetch", &"--max-age", &"1d", &link, &dest]);
    until("the head is older than a second", || {
        let run = client.run(&[&"fetch", &"--max-age", &"1s", &link, &dest]);
        (run.code == 45).then_some(())
    });
    assert_same(two.tree.root(), &dest);
}

#[test]
fn resolve_tells_the_newest_head() {
    let two = Two::new();
    let both = two.mirror_node.link(&two.origin_node.link(&two.published.reference));
    let head = two.lab.machine("c").json(&[&"resolve", &both]);
    assert_eq!((head["seq"].as_u64(), head["stale"].as_bool()), (Some(2), Some(false)), "{head}");
    assert_eq!(head["reference"], two.published.reference.as_str());
    assert!(head["fresh_until"].as_u64() > head["created"].as_u64());
}

#[test]
fn a_fork_is_kept_and_shown_and_stops_nobody_below_it() {
    let lab = Lab::new();
    let (origin, clone, mirror) = (lab.machine("o"), lab.machine("clone"), lab.machine("m"));
    let tree = Tree::new(lab.path("tree"));
    tree.file("a", "first");
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &published.link, &dest]);
    node.terminate();
    // A backup of the publisher's machine comes to life: two different second generations.
    clone.copy_state_from(&origin);
    fs::remove_file(clone.state().join("node.key")).unwrap();
    tree.file("a", "one second");
    assert_eq!(origin.publish_with(tree.root(), &[&"--offline"]).seq, 2);
    tree.file("a", "another second");
    assert_eq!(clone.publish_with(tree.root(), &[&"--offline"]).seq, 2);
    let (one, two) = (origin.serve(&[&"--no-dht"]), clone.serve(&[&"--no-dht"]));
    let node = mirror.serve(&[&"--no-dht", &"--peer", &one.address(), &"--peer", &two.address()]);
    until("the mirror has seen both", || {
        let _ = mirror.run(&[&"resolve", &published.reference]);
        (mirror.module_status()["forked"] == true).then_some(())
    });
    assert_eq!(fs::read(dest.join("a")).unwrap(), b"first", "what was held is held");
    let copy = lab.path("copy");
    let first = node.link(&format!("{}@1", published.reference));
    lab.machine("c").ok(&[&"--no-dht", &"fetch", &first, &copy]);
    assert_same(&dest, &copy);
}

#[test]
fn an_old_whole_mirror_is_not_in_the_way_of_new_ones_that_hold_parts() {
    let two = Two::new();
    let (client, dest) = (two.lab.machine("c"), two.lab.path("copy"));
    client.ok(&[&"fetch", &two.origin_node.link(&two.published.reference), &dest]);
    two.tree.file("a", "third").file("b", "third too");
    let link = two.origin_node.link(&two.published.reference);
    two.lab.machine("o").publish(two.tree.root());
    let part = |name: &str, without: &str| {
        let (machine, dest) = (two.lab.machine(name), two.lab.path(&format!("{name}-tree")));
        machine.ok(&[&"mirror", &format!("--exclude=/{without}"), &link, &dest]);
        machine.serve(&[&"--no-dht"])
    };
    let parts = [part("p1", "a"), part("p2", "b")];
    two.origin_node.kill();
    let old = two.mirror_node.link(&two.published.reference);
    let all = parts.iter().fold(old, |link, node| node.link(&link));
    client.ok(&[&"--no-dht", &"fetch", &all, &dest]);
    assert_same(two.tree.root(), &dest);
}
