//! Changed files: what goes over the line is what changed, from whoever can tell.

use std::path::{Path, PathBuf};

use crate::util::{Lab, Machine, Node, Proxy, Tree, assert_same, noise};

/// A client with the first generation, and a relay that counts in front of whoever serves the second.
struct Scene {
    lab: Lab,
    tree: Tree,
    origin: Machine,
    dest: PathBuf,
    reference: String,
}

impl Scene {
    fn new(fill: impl FnOnce(&Tree) -> &Tree) -> (Self, Node) {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
        fill(&tree);
        let node = origin.serve(&[]);
        let published = origin.publish(tree.root());
        let dest = lab.path("copy");
        client.ok(&[&"fetch", &published.link, &dest]);
        (Self { lab, tree, origin, dest, reference: published.reference }, node)
    }

    /// Fetches again with flags; gives the bytes that came.
    fn update(&self, node: &Node, flags: &[&str]) -> u64 {
        self.update_at(&self.dest, node, flags)
    }

    fn update_at(&self, dest: &Path, node: &Node, flags: &[&str]) -> u64 {
        let proxy = Proxy::start(node.port());
        let peer = proxy.address(node.address());
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&"--no-dht", &"--peer", &peer, &"fetch", &"--delete", &"--adopt"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<std::ffi::OsStr>));
        words.extend([&self.reference as &dyn AsRef<std::ffi::OsStr>, &dest]);
        // One that remembers no way around the relay.
        self.lab.machine("d").ok(&words);
        proxy.down()
    }
}

/// Bytes put in front, so that nothing stands where it stood.
fn pushed(seed: u64, length: usize) -> Vec<u8> {
    [b"something new in front".to_vec(), noise(seed, length)].concat()
}

#[test]
fn an_origin_with_the_new_version_only_sends_what_is_new() {
    let (scene, node) = Scene::new(|tree| tree.file("large", noise(1, 3 << 20)).file("log", noise(2, 400_000)));
    scene.tree.file("large", pushed(1, 3 << 20)).file("log", [noise(2, 400_000), noise(3, 5000)].concat());
    scene.origin.publish(scene.tree.root());
    let bytes = scene.update(&node, &[]);
    assert_same(scene.tree.root(), &scene.dest);
    assert!(bytes < 100 << 10, "{bytes} bytes of 3.5 MB");
}

#[test]
fn without_deltas_files_come_whole() {
    let (scene, node) = Scene::new(|tree| tree.file("large", noise(1, 1 << 20)));
    scene.tree.file("large", pushed(1, 1 << 20));
    scene.origin.publish(scene.tree.root());
    let bytes = scene.update(&node, &["--no-delta"]);
    assert_same(scene.tree.root(), &scene.dest);
    assert!(bytes > 1 << 20, "{bytes}");
}

#[test]
fn a_mirror_that_keeps_the_old_version_sends_a_patch_and_makes_it_once() {
    let (scene, node) = Scene::new(|tree| {
        for number in 0..40 {
            tree.file(format!("src/{number}.c"), text(number, 400));
        }
        tree
    });
    let (mirror, replica, other) = (scene.lab.machine("m"), scene.lab.path("replica"), scene.lab.path("other"));
    let link = node.link(&scene.reference);
    mirror.ok(&[&"mirror", &link, &replica]);
    scene.lab.machine("e").ok(&[&"fetch", &link, &other]);
    for number in 0..40 {
        let old = std::fs::read_to_string(scene.tree.path(format!("src/{number}.c"))).expect("text");
        scene.tree.file(format!("src/{number}.c"), old.replacen("line 200 ", "LINE 200 ", 1) + "and a line more\n");
    }
    scene.origin.publish(scene.tree.root());
    mirror.ok(&[&"mirror", &link, &replica]);
    node.kill();
    let node = mirror.serve(&[&"--no-dht"]);
    let bytes = scene.update(&node, &[]);
    assert_same(scene.tree.root(), &scene.dest);
    assert!(bytes < 40 << 10, "{bytes} bytes for 40 files of 20 KB with two lines changed");
    // Who asks later gets what was made for the first.
    std::fs::remove_dir_all(replica.join(".murmir/old")).expect("the old versions");
    let again = scene.update_at(&other, &node, &[]);
    assert_same(scene.tree.root(), &other);
    assert!(again < bytes + 1024, "{again} bytes, {bytes} for the first");
}

#[test]
fn a_large_file_is_patched_where_it_changed() {
    let (scene, node) = Scene::new(|tree| tree.file("large", noise(1, 5 << 20)));
    let (mirror, replica) = (scene.lab.machine("m"), scene.lab.path("replica"));
    let link = node.link(&scene.reference);
    mirror.ok(&[&"mirror", &link, &replica]);
    let copies = ["one", "two", "three"].map(|name| scene.lab.path(name));
    for copy in &copies {
        scene.lab.machine("e").ok(&[&"fetch", &link, copy]);
    }
    let old = noise(1, 5 << 20);
    // Edited in place, moved, appended.
    let mut new = [b"in front".to_vec(), old[3 << 20..].to_vec(), old[..3 << 20].to_vec(), noise(2, 3000)].concat();
    new[1_000_000..1_001_000].copy_from_slice(&noise(3, 1000));
    scene.tree.file("large", new);
    scene.origin.publish(scene.tree.root());
    mirror.ok(&[&"mirror", &link, &replica]);
    node.kill();
    let node = mirror.serve(&[&"--no-dht"]);
    // On a busy machine the first may come before it is known where things went to.
    let update = |copy: &PathBuf| {
        let bytes = scene.update_at(copy, &node, &["--force-delete"]);
        assert_same(scene.tree.root(), copy);
        bytes
    };
    let bytes: Vec<u64> = copies.iter().map(update).collect();
    assert!(bytes.iter().any(|bytes| *bytes < 40 << 10), "{bytes:?} bytes for 5 MiB of which 4 KB are new");
}

#[test]
fn a_few_changes_of_many_files_cost_few_pages() {
    let (scene, node) = Scene::new(|tree| tree.many(1, 3000, 20));
    for number in [5, 1000, 2500] {
        scene.tree.file(format!("d{:03}/f{number:05}", number / 10), noise(number, 20));
    }
    scene.origin.publish(scene.tree.root());
    let proxy = Proxy::start(node.port());
    let peer = proxy.address(node.address());
    // The client that has the pages of the first generation.
    let client = scene.lab.machine("c");
    client.ok(&[&"--no-dht", &"--peer", &peer, &"fetch", &"--delete", &scene.reference, &scene.dest]);
    assert_same(scene.tree.root(), &scene.dest);
    assert!(proxy.down() < 12 << 10, "{} bytes for three changes of 3000", proxy.down());
}

#[test]
fn a_dry_run_tells_what_it_would_cost() {
    let (scene, node) = Scene::new(|tree| tree.file("large", noise(1, 100_000)));
    scene.tree.file("large", pushed(1, 100_000)).file("new", noise(2, 5000));
    scene.origin.publish(scene.tree.root());
    let link = node.link(&scene.reference);
    let client = scene.lab.machine("c");
    let told = client.ok(&[&"fetch", &"-n", &"--stats", &link, &scene.dest]).text();
    assert!(told.contains("Files to bring as deltas: 1 (new versions: 100,022 bytes)"), "{told}");
    assert!(told.contains("Files to bring whole: 1 (5,000 bytes)"), "{told}");
    let told = client.ok(&[&"fetch", &"-n", &"--stats", &"--no-delta", &link, &scene.dest]).text();
    assert!(told.contains("Files to bring as deltas: 0 "), "{told}");
}

/// Lines that no compressor makes much of.
fn text(seed: usize, lines: usize) -> String {
    let line =
        |number: usize| format!("line {number} {}\n", blake3::hash(format!("{seed}/{number}").as_bytes()).to_hex());
    (0..lines).map(line).collect()
}

#[test]
fn text_travels_compressed() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    for number in 0..50 {
        tree.file(format!("{number}"), "the same words again and again\n".repeat(300));
    }
    tree.file("large", "the same words again and again\n".repeat(50_000));
    let node = origin.serve(&[]);
    let reference = origin.publish(tree.root()).reference;
    let proxy = Proxy::start(node.port());
    let peer = proxy.address(node.address());
    client.ok(&[&"--no-dht", &"--peer", &peer, &"fetch", &reference, &lab.path("copy")]);
    assert_same(tree.root(), &lab.path("copy"));
    assert!(proxy.down() < 150 << 10, "{} bytes for 2 MB of text", proxy.down());
}
