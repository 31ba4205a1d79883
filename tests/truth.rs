//! What is known of a file's content is what was read from it or written to it, and nothing else.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::util::{Lab, Proxy, Tree, assert_same, noise, until};

#[test]
fn what_a_flag_left_alone_does_not_count_as_the_modules() {
    for flag in ["--size-only", "--ignore-existing"] {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
        tree.file("d/same size", "theirs").file("d/other", "new here");
        let node = origin.serve(&[]);
        let published = origin.publish(tree.root());
        let dest = lab.path("copy");
        fs::create_dir_all(dest.join("d")).unwrap();
        fs::write(dest.join("d/same size"), "mine..").unwrap();
        let link = node.link(&published.reference);
        client.ok(&[&"fetch", &flag, &link, &dest]);
        assert_eq!(fs::read(dest.join("d/same size")).unwrap(), b"mine..", "{flag} leaves it alone");
        client.ok(&[&"fetch", &link, &dest]);
        assert_same(tree.root(), &dest);
    }
}

#[test]
fn a_file_that_is_written_to_during_a_pass_is_looked_at_again() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.file("d/stays", "as it was");
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let dest = lab.path("copy");
    client.ok(&[&"fetch", &node.link(&published.reference), &dest]);
    tree.file("d/large", noise(1, 4 << 20));
    origin.publish(tree.root());
    let proxy = Proxy::start(node.port());
    proxy.hold_at(1 << 20);
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    let fetch = client.start(&[&"--no-dht", &"fetch", &slow, &dest]);
    until("it is under way", || (proxy.down() >= 1 << 20).then_some(()));
    let path = dest.join("d/stays");
    fs::write(&path, "is edited").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
    proxy.hold_at(u64::MAX);
    fetch.finish().expect(0);
    assert_eq!(fs::read(&path).unwrap(), b"is edited");
    client.ok(&[&"fetch", &node.link(&published.reference), &dest]);
    assert_same(tree.root(), &dest);
}

/// Whoever sends a little now and then keeps every deadline.
#[test]
fn a_source_that_trickles_holds_nobody_up() {
    let lab = Lab::new();
    let (origin, mirror, client) = (lab.machine("o"), lab.machine("m"), lab.machine("c"));
    let tree = Tree::new(lab.path("tree"));
    // Each level is known only when the page above is here: so many rounds of questions.
    for (level, number) in (0..10).flat_map(|level| (0..400).map(move |number| (level, number))) {
        tree.file(format!("{}f{number}", "l/".repeat(level)), noise((level << 16 | number) as u64, 10));
    }
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    mirror.ok(&[&"mirror", &published.link, &lab.path("m-tree")]);
    let good = mirror.serve(&[&"--no-dht"]);
    let proxy = Proxy::start(node.port());
    // Enough for a greeting; then at most 16 KiB in so many seconds.
    proxy.hold_at(24 << 10);
    proxy.trickle(Duration::from_secs(9));
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    client.ok(&[&"--no-dht", &"fetch", &good.link(&slow), &lab.path("copy")]);
    assert_same(tree.root(), &lab.path("copy"));
}
