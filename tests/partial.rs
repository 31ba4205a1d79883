//! Mirrors that hold a part only: together they are as good as the origin, and so is one that is still fetching.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::util::{Lab, Proxy, Tree, assert_same, noise, until};

/// Directories of the tree, and which of them each mirror takes: two of five, so that each is held twice.
const DIRS: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn five_partial_mirrors_complete_a_newcomer_with_the_origin_dead_and_no_dht() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    for (number, dir) in (0u64..).zip(DIRS) {
        for file in 0..8 {
            tree.file(format!("{dir}/{file}"), noise(number << 8 | file, 30_000));
        }
        tree.file(format!("{dir}/large"), noise(number << 8 | 99, 600_000));
    }
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let mut mirrors = Vec::new();
    for number in 0..DIRS.len() {
        let (machine, dest) = (lab.machine(&format!("m{number}")), lab.path(&format!("m{number}-tree")));
        let mirror = machine.serve(&[&"--no-dht", &"--peer", &node.address()]);
        let mut words = vec!["mirror".to_owned()];
        let left_out = (0..DIRS.len()).filter(|at| *at != number && *at != (number + 1) % DIRS.len());
        words.extend(left_out.map(|at| format!("--exclude=/{}", DIRS[at])));
        words.extend([published.reference.clone(), dest.display().to_string()]);
        machine.ok(&words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>).collect::<Vec<_>>());
        assert!(!dest.join(DIRS[(number + 2) % DIRS.len()]).exists(), "it holds a part only");
        mirrors.push(mirror);
    }
    // The newcomer knows one of them; that one knows the others.
    let known = &mirrors[0];
    until("it tells of the others", || {
        let (probe, link) = (lab.machine("p"), known.link(&published.reference));
        let rows = probe.run(&[&"--json", &"--no-dht", &"mirrors", &link]).rows();
        let ids: Vec<&str> = rows.iter().filter_map(|row| row["peer_id"].as_str()).collect();
        mirrors.iter().skip(1).all(|mirror| ids.contains(&mirror.peer_id())).then_some(())
    });
    node.kill();
    let (newcomer, dest) = (lab.machine("c"), lab.path("copy"));
    let done = newcomer.json(&[&"--no-dht", &"fetch", &known.link(&published.reference), &dest]);
    assert_same(tree.root(), &dest);
    let gave = |row: &&Value| row["received"].as_u64() > Some(0);
    assert!(done["sources"].as_array().expect("rows").iter().filter(gave).count() >= 3, "{done}");
}

/// Bytes that have arrived of files in flight.
fn arrived(dest: &Path) -> u64 {
    let stage = std::fs::read_dir(dest.join(".murmir/stage")).into_iter().flatten().flatten();
    let parts = stage.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    parts.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

#[test]
fn a_file_still_in_flight_can_be_had_in_part_and_is_announced() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.file("large", noise(1, 12 << 20));
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let mirror = lab.machine("m");
    let mirror_node = mirror.serve(&[&"--no-dht"]);
    let proxy = Proxy::start(node.port());
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    // The first replica comes to a halt half way.
    proxy.hold_at(6 << 20);
    let pass = mirror.start(&[&"mirror", &slow, &lab.path("m-tree")]);
    until("half has arrived", || (arrived(&lab.path("m-tree")) >= 4 << 20).then_some(()));
    let (newcomer, dest) = (lab.machine("c"), lab.path("copy"));
    let fetch = newcomer.start(&[&"--no-dht", &"fetch", &mirror_node.link(&published.reference), &dest]);
    until("a newcomer has it from there", || (arrived(&dest) >= 2 << 20).then_some(()));
    let probe = lab.machine("p");
    until("the mirror says what it has so far", || {
        let run = probe.run(&[&"--json", &"--no-dht", &"mirrors", &mirror_node.link(&published.reference)]);
        let rows = run.rows();
        let row = rows.iter().find(|row| row["peer_id"] == mirror_node.peer_id())?;
        row["coverage"].as_f64().filter(|coverage| *coverage > 0.0 && *coverage < 1.0)
    });
    proxy.hold_at(u64::MAX);
    pass.finish().expect(0);
    fetch.finish().expect(0);
    assert_same(tree.root(), &dest);
    assert_same(tree.root(), &lab.path("m-tree"));
}

/// Small files that have arrived and are not in place yet.
fn staged(dest: &Path) -> usize {
    std::fs::read_dir(dest.join(".murmir/stage")).into_iter().flatten().flatten().count()
}

#[test]
fn what_an_earlier_run_brought_can_be_had_from_the_next_at_once() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(1, 400, 20_000);
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (mirror, newcomer) = (lab.machine("m"), lab.machine("c"));
    let (dest, copy) = (lab.path("m-tree"), lab.path("copy"));
    let proxy = Proxy::start(node.port());
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    proxy.hold_at(4 << 20);
    let mirror_node = mirror.serve(&[&"--no-dht"]);
    let pass = mirror.start(&[&"mirror", &slow, &dest]);
    until("a part has arrived", || (staged(&dest) >= 100).then_some(()));
    mirror_node.kill();
    drop(pass);
    // The origin says what is newest, and gives nothing more.
    proxy.hold_at(proxy.down() + (64 << 10));
    let mirror_node = mirror.serve(&[&"--no-dht"]);
    let pass = mirror.start(&[&"mirror", &slow, &dest]);
    let (probe, link) = (lab.machine("p"), mirror_node.link(&published.reference));
    until("it is offered", || (probe.run(&[&"--no-dht", &"resolve", &link]).code == 0).then_some(()));
    let fetch = newcomer.start(&[&"--no-dht", &"fetch", &"--origin=never", &link, &copy]);
    until("a newcomer has it from there", || (staged(&copy) >= 100).then_some(()));
    proxy.hold_at(u64::MAX);
    pass.finish().expect(0);
    fetch.finish().expect(0);
    assert_same(tree.root(), &copy);
}
