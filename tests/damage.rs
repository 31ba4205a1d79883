//! Bit rot on a mirror: no client gets a wrong byte, the mirror knows, and it can be healed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::util::{Lab, Machine, Node, Published, Tree, assert_same, noise, until};

/// Files whose bytes go bad.
const ROTTEN: [&str; 2] = ["d001/f00012", "large"];

/// An origin and two mirrors with whole copies.
struct Scene {
    lab: Lab,
    tree: Tree,
    origin: Node,
    published: Published,
    mirror: Machine,
    node: Node,
    copy: PathBuf,
    other: Node,
    _other_copy: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let tree = Tree::new(lab.path("tree"));
        tree.many(1, 40, 3000).file("large", noise(5, 1 << 20));
        let machine = lab.machine("o");
        let origin = machine.serve(&[]);
        let published = machine.publish(tree.root());
        let (mirror, node, copy) = join(&lab, "m1", &origin, &published);
        let (_, other, _other_copy) = join(&lab, "m2", &origin, &published);
        Self { lab, tree, origin, published, mirror, node, copy, other, _other_copy }
    }
}

fn join(lab: &Lab, name: &str, origin: &Node, published: &Published) -> (Machine, Node, PathBuf) {
    let (machine, copy) = (lab.machine(name), lab.path(&format!("{name}-tree")));
    let node = machine.serve(&[&"--peer", &origin.address()]);
    machine.ok(&[&"mirror", &published.reference, &copy]);
    (machine, node, copy)
}

/// Flips a byte and puts the modification time back, as a failing disk would.
fn rot(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    let middle = file.metadata().unwrap().len() / 2;
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    file.set_modified(modified).unwrap();
}

fn names(row: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        row.as_array().expect("a list").iter().map(|name| name.as_str().expect("a path").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_client_of_a_damaged_mirror_gets_the_right_bytes() {
    let scene = Scene::new();
    ROTTEN.iter().for_each(|name| rot(&scene.copy.join(name)));
    scene.origin.kill();
    let (client, dest) = (scene.lab.machine("c"), scene.lab.path("copy"));
    let link = scene.other.link(&scene.node.link(&scene.published.reference));
    client.ok(&[&"--no-dht", &"fetch", &link, &dest]);
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn a_damaged_mirror_alone_gives_what_is_right_and_shows_the_rest() {
    let scene = Scene::new();
    ROTTEN.iter().for_each(|name| rot(&scene.copy.join(name)));
    scene.origin.kill();
    scene.other.kill();
    let (client, dest) = (scene.lab.machine("c"), scene.lab.path("copy"));
    let run = client.run(&[&"--no-dht", &"fetch", &scene.node.link(&scene.published.reference), &dest]);
    run.expect(24);
    for name in ROTTEN {
        assert!(!dest.join(name).exists(), "{name}: no wrong byte is ever visible");
    }
    let shown = until("the damage is shown", || {
        let damaged = names(&scene.mirror.module_status()["damaged"]);
        (damaged.len() == ROTTEN.len()).then_some(damaged)
    });
    assert_eq!(shown, ROTTEN);
}

#[test]
fn verify_names_the_damage_and_repair_heals_it() {
    let scene = Scene::new();
    ROTTEN.iter().for_each(|name| rot(&scene.copy.join(name)));
    fs::remove_file(scene.copy.join("d002/f00020")).unwrap();
    let run = scene.mirror.run(&[&"--json", &"verify", &scene.copy]).expect(44);
    let report = run.rows().into_iter().find(|row| row["checked"].is_u64()).expect("a report");
    assert_eq!(report["checked"], 41);
    assert_eq!(names(&report["damaged"]), ROTTEN);
    assert_eq!(names(&report["missing"]), ["d002/f00020"]);
    scene.origin.kill();
    let peer = scene.other.address();
    scene.mirror.ok(&[&"--peer", &peer, &"verify", &"--repair", &scene.copy]);
    assert_same(scene.tree.root(), &scene.copy);
    let kept = fs::read_dir(scene.copy.join(".murmir/outboards")).expect("what a mirror keeps for others stays");
    assert!(kept.count() > 0);
    let clean = scene.mirror.json(&[&"verify", &scene.copy]);
    assert_eq!((names(&clean["damaged"]), names(&clean["missing"])), (Vec::new(), Vec::new()));
    assert_eq!(scene.mirror.module_status()["damaged"], Value::Array(Vec::new()));
}

#[test]
fn verify_works_on_a_plain_fetch_too() {
    let scene = Scene::new();
    let (client, dest) = (scene.lab.machine("c"), scene.lab.path("copy"));
    client.ok(&[&"fetch", &scene.published.link, &dest]);
    assert_eq!(client.json(&[&"verify", &dest])["checked"], 41);
    rot(&dest.join("large"));
    client.run(&[&"verify", &dest]).expect(44);
    client.ok(&[&"--peer", &scene.origin.address(), &"verify", &"--repair", &dest]);
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn a_file_replaced_on_a_mirror_is_never_served_as_the_old_one() {
    let scene = Scene::new();
    fs::write(scene.copy.join("large"), noise(6, 1 << 20)).unwrap();
    scene.origin.kill();
    scene.other.kill();
    let link = scene.node.link(&format!("{}/large", scene.published.reference));
    let run = scene.lab.machine("c").run(&[&"--no-dht", &"fetch", &link, &"-"]).expect(24);
    assert_eq!(run.stdout, b"");
}

#[test]
fn a_node_that_lost_its_index_gets_the_trees_back_and_serves_on() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.many(1, 30, 2000).file("large", noise(2, 400_000));
    let node = origin.serve(&[]);
    let published = origin.publish_with(tree.root(), &[&"--late", &"large"]);
    let mirror_node = mirror.serve(&[&"--peer", &node.address()]);
    mirror.ok(&[&"mirror", &published.reference, &lab.path("m-tree")]);
    let serves = |name: &str, node: &Node| {
        let dest = lab.path(&format!("{name}-copy"));
        until("it serves again", || {
            let run = lab.machine(name).run(&[&"--no-dht", &"fetch", &node.link(&published.reference), &dest]);
            (run.code == 0).then_some(())
        });
        assert_same(tree.root(), &dest);
    };
    // A mirror gets the pages from others.
    mirror_node.kill();
    fs::remove_dir_all(mirror.state().join("index")).unwrap();
    let mirror_node = mirror.serve(&[&"--peer", &node.address()]);
    until("the pages are back", || mirror.module_status()["held"].as_bool().filter(|held| *held));
    node.kill();
    serves("c1", &mirror_node);
    // A publisher without anybody to ask makes them anew.
    mirror_node.kill();
    fs::remove_dir_all(origin.state().join("index")).unwrap();
    let node = origin.serve(&[&"--no-dht"]);
    serves("c2", &node);
}

#[test]
fn a_repair_needs_nobody_who_holds_the_same_generation() {
    let scene = Scene::new();
    ROTTEN.iter().for_each(|name| rot(&scene.copy.join(name)));
    scene.tree.file("new", "of the next generation");
    scene.lab.machine("o").publish(scene.tree.root());
    scene.other.kill();
    scene.mirror.ok(&[&"--peer", &scene.origin.address(), &"verify", &"--repair", &scene.copy]);
    assert!(!scene.copy.join("new").exists(), "it is the placed generation that is repaired");
    fs::remove_file(scene.tree.path("new")).unwrap();
    for name in ROTTEN {
        assert_eq!(fs::read(scene.copy.join(name)).unwrap(), fs::read(scene.tree.path(name)).unwrap(), "{name}");
    }
}
