//! What an operator asks of a node: take a word back, say who answered what, find what hinders.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::util::{Lab, Machine, Tree, assert_same, noise, until};

fn lists(machine: &Machine, reference: &str, peer: &str) -> bool {
    let run = machine.run(&[&"--json", &"mirrors", &reference]);
    run.code == 0 && run.rows().iter().any(|row| row["peer_id"] == peer)
}

#[test]
fn a_withdrawn_mirror_is_dropped_by_others_and_stays_so_until_it_mirrors_again() {
    let lab = Lab::new();
    let (origin, mirror, other) = (lab.machine("o"), lab.machine("m"), lab.machine("b"));
    let tree = Tree::new(lab.path("tree"));
    tree.file("a", "first");
    let origin_node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let mirror_node = mirror.serve(&[&"--no-dht", &"--peer", &origin_node.address()]);
    let other_node = other.serve(&[&"--no-dht", &"--peer", &origin_node.address(), &"--peer", &mirror_node.address()]);
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &published.reference, &dest]);
    other.ok(&[&"mirror", &published.reference, &lab.path("b-tree")]);
    let peer = mirror_node.peer_id().to_owned();
    until("the other has heard of the mirror", || lists(&other, &published.reference, &peer).then_some(()));

    mirror.ok(&[&"withdraw", &published.reference]);
    until("the other has dropped it", || (!lists(&other, &published.reference, &peer)).then_some(()));
    assert_eq!(mirror.module_status()["withdrawn"], true);
    other_node.kill();
    origin_node.kill();
    let copy = lab.path("copy");
    lab.machine("c").run(&[&"--no-dht", &"fetch", &mirror_node.link(&published.reference), &copy]).expect(40);
    mirror_node.terminate();
    let mirror_node = mirror.serve(&[&"--no-dht"]);
    lab.machine("c").run(&[&"--no-dht", &"fetch", &mirror_node.link(&published.reference), &copy]).expect(40);

    let origin_node = origin.serve(&[&"--no-dht"]);
    mirror.ok(&[&"mirror", &origin_node.link(&published.reference), &dest]);
    origin_node.kill();
    lab.machine("c").ok(&[&"--no-dht", &"fetch", &mirror_node.link(&published.reference), &copy]);
    assert_same(tree.root(), &copy);
}

#[test]
fn a_withdrawn_publication_comes_back_with_the_next_publish() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.file("a", "first");
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    origin.ok(&[&"withdraw", &published.reference]);
    let (client, copy) = (lab.machine("c"), lab.path("copy"));
    client.run(&[&"--no-dht", &"fetch", &node.link(&published.reference), &copy]).expect(40);
    origin.publish(tree.root());
    client.ok(&[&"--no-dht", &"fetch", &node.link(&published.reference), &copy]);
    origin.run(&[&"withdraw", &"/nowhere"]).expect(1);
}

#[test]
fn resolve_tells_what_each_source_said() {
    let lab = Lab::new();
    let (origin, plain, tree) = (lab.machine("o"), lab.machine("p"), Tree::new(lab.path("tree")));
    tree.file("a", "first");
    let (node, plain_node) = (origin.serve(&[&"--no-dht"]), plain.serve(&[&"--no-dht"]));
    let published = origin.publish(tree.root());
    let dead = "/ip4/127.0.0.1/tcp/1";
    let client = lab.machine("c");
    let both = plain_node.link(&node.link(&published.reference));
    let head = client.json(&[&"--no-dht", &"--peer", &dead, &"resolve", &both]);
    let answers = head["answers"].as_array().unwrap();
    let of = |key: &str, who: &str| {
        answers.iter().find(|row| row[key] == who).unwrap_or_else(|| panic!("{who} in {head}")).clone()
    };
    let row = of("peer_id", node.peer_id());
    assert_eq!(row["way"], "hello", "{row}");
    assert_eq!(
        (row["seq"].as_u64(), row["stale"].as_bool(), row["whole"].as_bool()),
        (Some(1), Some(false), Some(true))
    );
    let row = of("peer_id", plain_node.peer_id());
    assert_eq!((row["seq"].clone(), row["error"].clone()), (Value::Null, Value::Null), "{row}");
    assert!(of("address", dead)["error"].as_str().is_some());
    let shown = client.ok(&[&"--no-dht", &"resolve", &"-v", &both]).text();
    assert!(shown.lines().any(|line| line.contains(node.peer_id()) && line.contains("holds @1")), "{shown}");
    assert!(shown.lines().any(|line| line.contains("cache") && line.contains("@1")), "{shown}");
    // Where nothing comes of it, the error tells what each said.
    let other = format!("{}x", published.reference);
    let run = client.run(&[&"--no-dht", &"resolve", &"-v", &plain_node.link(&other)]).expect(40);
    assert!(run.stderr.contains("knows nothing of it"), "{}", run.stderr);
    assert!(run.text().contains(plain_node.peer_id()), "{}", run.text());
}

#[test]
fn the_doctor_names_what_is_wrong() {
    let lab = Lab::new();
    let machine = lab.machine("o");
    machine.ok(&[&"keygen"]);
    let rows = machine.ok(&[&"--json", &"doctor"]).rows();
    let of = |rows: &[Value], check: &str| {
        rows.iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("{check} in {rows:?}")).clone()
    };
    for check in ["state", "keys", "clock", "index", "disk", "descriptors", "node", "rsync"] {
        assert_ne!(of(&rows, check)["level"], "fail", "{check}");
    }
    let key = machine.state().join("keys/default.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let run = machine.run(&[&"--json", &"doctor"]).expect(11);
    let row = of(&run.rows(), "keys");
    assert!(row["level"] == "fail" && row["hint"].as_str().is_some(), "{row}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let _node = machine.serve(&[&"--no-dht"]);
    let text = machine.ok(&[&"doctor"]).text();
    assert!(text.lines().any(|line| line.starts_with("ok    node: /ip4/127.0.0.1/tcp/")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("warn  node: no address")), "{text}");
}

#[test]
fn settings_tell_where_they_come_from() {
    let lab = Lab::new();
    let machine = lab.machine("o");
    let file = lab.path("settings.toml");
    fs::write(&file, "mdns = true\nlisten = [\"/ip4/127.0.0.1/tcp/7\"]\npeer = [\"/ip4/127.0.0.1/tcp/9\"]\n").unwrap();
    let mut command = machine.command(&[&"--config", &file, &"--json", &"config"]);
    command.env("MURMIR_NO_DHT", "true");
    let run = crate::util::Running::start(command).finish().expect(0);
    let rows = run.rows();
    let of = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}"));
    let from_file = file.display().to_string();
    assert_eq!((&of("mdns")["value"], &of("mdns")["from"]), (&true.into(), &from_file.into()));
    assert_eq!(of("peer")["value"][0], "/ip4/127.0.0.1/tcp/9");
    assert_eq!((&of("no-dht")["value"], &of("no-dht")["from"]), (&true.into(), &"environment".into()));
    assert_eq!((&of("listen")["value"][0], &of("listen")["from"]), (&"/ip4/127.0.0.1/tcp/0".into(), &"flag".into()));
    assert_eq!(of("bootstrap")["from"], "default");
}

#[test]
fn transfers_are_shown_while_they_run() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.file("large", noise(1, 8 << 20));
    origin.run(&[&"transfers"]).expect(10);
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let mirror_node = mirror.serve(&[&"--no-dht"]);
    let running = mirror.start(&[&"mirror", &"--bwlimit=64", &published.link, &lab.path("m-tree")]);
    let row = until("the mirror shows its pass", || {
        let rows = mirror.ok(&[&"--json", &"transfers"]).rows();
        rows.into_iter().find(|row| row["kind"] == "pass" && row["total"].as_u64() == Some(8 << 20))
    });
    assert!(row["reference"].as_str().unwrap().starts_with(&published.reference), "{row}");
    until("the origin shows what it serves", || {
        let rows = origin.ok(&[&"--json", &"transfers"]).rows();
        let mut served = rows.iter().filter(|row| row["kind"] == "serve" && row["peer_id"] == mirror_node.peer_id());
        served.any(|row| row["bytes"].as_u64() > Some(0)).then_some(())
    });
    running.kill();
    drop(node);
}

#[test]
fn status_tells_what_changed_since_it_was_published() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.file("a", "first").file("b", noise(9, 4096)).file("c", "gone");
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let of = |machine: &Machine| machine.json(&[&"status", &"-v"])["modules"][0].clone();
    assert_eq!(of(&origin)["changed"], 0);
    let mirror_node = mirror.serve(&[&"--no-dht"]);
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &published.link, &dest]);
    assert_eq!((of(&mirror)["kept"]["bytes"].clone(), of(&mirror)["changed"].clone()), (0.into(), Value::Null));
    tree.file("a", "another").file("d", "new");
    fs::remove_file(tree.root().join("c")).unwrap();
    assert_eq!(of(&origin)["changed"], 3);
    origin.publish(tree.root());
    assert_eq!(of(&origin)["changed"], 0);
    mirror.ok(&[&"mirror", &published.link, &dest]);
    assert_eq!(of(&mirror)["kept"]["bytes"], "first".len() + "gone".len(), "kept for those who are behind");
    drop((node, mirror_node));
}
