//! Keys that are stolen, changed, or kept on another machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::util::{Lab, Machine, Tree, assert_same, until};

/// A number that nobody reaches by publishing.
const HUGE: u64 = 1 << 60;

/// Takes the root key out of a machine's state.
fn lock_away(machine: &Machine, lab: &Lab) -> PathBuf {
    let away = lab.path("root.key");
    fs::rename(machine.state().join("keys/default.key"), &away).unwrap();
    away
}

/// Gives a machine the head key of another, and nothing else.
fn steal_head(thief: &Machine, from: &Machine) {
    fs::create_dir_all(thief.state().join("keys")).unwrap();
    fs::copy(from.state().join("keys/default.head"), thief.state().join("keys/default.head")).unwrap();
}

#[test]
fn a_thiefs_huge_number_is_left_behind_by_a_rotation() {
    let lab = Lab::new();
    let (origin, mirror, thief) = (lab.machine("o"), lab.machine("m"), lab.machine("t"));
    let (tree, evil) = (Tree::new(lab.path("tree")), Tree::new(lab.path("evil")));
    tree.file("a", "first").file("b", "both");
    evil.file("a", "stolen");
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let rotated = origin.json(&[&"rotate"]);
    assert_eq!((rotated["epoch"].as_u64(), rotated["modules"][0]["seq"].as_u64()), (Some(1), Some(2)), "{rotated}");
    let root = lock_away(&origin, &lab);
    tree.file("a", "second");
    assert_eq!(origin.publish(tree.root()).seq, 3, "the head key is enough to publish");

    let dest = lab.path("m-tree");
    let mirror_node = mirror.serve(&[&"--no-dht", &"--peer", &node.address()]);
    mirror.ok(&[&"mirror", &published.link, &dest]);
    assert_same(tree.root(), &dest);
    steal_head(&thief, &origin);
    let huge = HUGE.to_string();
    thief.publish_with(evil.root(), &[&"--seq", &huge, &"--no-dht", &"--peer", &node.address()]);
    let peers: [&dyn AsRef<std::ffi::OsStr>; 5] =
        [&"--no-dht", &"--peer", &node.address(), &"--peer", &mirror_node.address()];
    let thief_node = thief.serve(&peers);
    until("the mirror believes the thief", || {
        (mirror.module_status()["newest_seq"].as_u64() == Some(HUGE)).then_some(())
    });

    origin.run(&[&"rotate"]).expect(1);
    origin.run(&[&"rotate", &"--root", &thief.state().join("node.key")]).expect(42);
    let rotated = origin.json(&[&"rotate", &"--root", &root]);
    assert_eq!((rotated["epoch"].as_u64(), rotated["modules"][0]["seq"].as_u64()), (Some(2), Some(4)), "{rotated}");
    until("the mirror hears of the new epoch", || {
        (mirror.module_status()["newest_seq"].as_u64() == Some(4)).then_some(())
    });
    assert_eq!(mirror.module_status()["behind"], true, "another epoch is news, whatever the numbers say");
    mirror.ok(&[&"mirror", &published.reference, &dest]);
    assert_same(tree.root(), &dest);
    let status = mirror.module_status();
    assert_eq!(
        (status["seq"].as_u64(), status["epoch"].as_u64(), status["behind"].as_bool()),
        (Some(4), Some(2), Some(false))
    );

    // Both answer: the thief's number counts for nothing, and so does one that it signs now.
    let both = thief_node.link(&node.link(&published.reference));
    let copy = lab.path("copy");
    lab.machine("c").ok(&[&"--no-dht", &"fetch", &both, &copy]);
    assert_same(tree.root(), &copy);
    let above = (HUGE + 1).to_string();
    evil.file("a", "stolen again");
    thief.run(&[&"publish", &evil.root(), &"--module", &"tree", &"--offline", &"--seq", &above]);
    let head = lab.machine("d").json(&[&"--no-dht", &"resolve", &both]);
    assert_eq!((head["epoch"].as_u64(), head["seq"].as_u64()), (Some(2), Some(4)), "{head}");
}

#[test]
fn a_rotation_leads_out_of_a_fork() {
    let lab = Lab::new();
    let (origin, clone, mirror) = (lab.machine("o"), lab.machine("clone"), lab.machine("m"));
    let tree = Tree::new(lab.path("tree"));
    tree.file("a", "first");
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &published.link, &dest]);
    node.terminate();
    clone.copy_state_from(&origin);
    fs::remove_file(clone.state().join("node.key")).unwrap();
    tree.file("a", "another second");
    assert_eq!(clone.publish_with(tree.root(), &[&"--offline"]).seq, 2);
    tree.file("a", "one second");
    assert_eq!(origin.publish_with(tree.root(), &[&"--offline"]).seq, 2);
    let (one, two) = (origin.serve(&[&"--no-dht"]), clone.serve(&[&"--no-dht"]));
    let _mirror_node = mirror.serve(&[&"--no-dht", &"--peer", &one.address(), &"--peer", &two.address()]);
    until("the mirror has seen both", || {
        let _ = mirror.run(&[&"resolve", &published.reference]);
        (mirror.module_status()["forked"] == true).then_some(())
    });
    mirror.run(&[&"mirror", &published.reference, &dest]);
    assert_eq!(fs::read(dest.join("a")).unwrap(), b"first", "neither is believed");
    until("the publisher has seen both", || {
        let _ = origin.run(&[&"resolve", &two.link(&published.reference)]);
        (origin.module_status()["forked"] == true).then_some(())
    });
    tree.file("b", "more");
    origin.run(&[&"publish", &tree.root()]).expect(43);
    fs::remove_file(tree.root().join("b")).unwrap();

    origin.ok(&[&"rotate"]);
    until("the mirror is out of the fork", || {
        let status = mirror.module_status();
        (status["forked"] == false && status["newest_seq"].as_u64() == Some(3)).then_some(())
    });
    mirror.ok(&[&"mirror", &published.reference, &dest]);
    assert_same(tree.root(), &dest);
    tree.file("b", "more");
    assert_eq!(origin.publish(tree.root()).seq, 4);
}

#[test]
fn a_mirror_that_watches_follows_a_rotation() {
    let lab = Lab::new();
    let (origin, mirror) = (lab.machine("o"), lab.machine("m"));
    let tree = Tree::new(lab.path("tree"));
    tree.file("a", "first");
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let _mirror_node = mirror.serve(&[&"--no-dht", &"--peer", &node.address()]);
    let dest = lab.path("m-tree");
    mirror.ok(&[&"mirror", &"--watch", &published.link, &dest]);
    origin.ok(&[&"rotate", &published.reference]);
    until("the mirror holds the new epoch", || (mirror.module_status()["epoch"].as_u64() == Some(1)).then_some(()));
    assert_same(tree.root(), &dest);
    tree.file("a", "second");
    let second = origin.publish(tree.root());
    until("the mirror holds what the new key signed", || {
        (mirror.module_status()["seq"].as_u64() == Some(second.seq)).then_some(())
    });
    assert_same(tree.root(), &dest);
}

/// A server without a key, a machine with one, and a tree.
struct Vault {
    lab: Lab,
    server: Machine,
    vault: Machine,
    id: String,
    tree: Tree,
}

impl Vault {
    fn new() -> Self {
        let lab = Lab::new();
        let (server, vault, tree) = (lab.machine("s"), lab.machine("v"), Tree::new(lab.path("tree")));
        let id = vault.ok(&[&"keygen"]).lines().remove(0);
        tree.file("a", "first");
        Self { lab, server, vault, id, tree }
    }

    /// Publishes as far as it goes without the key.
    fn request(&self) -> PathBuf {
        let row = self.server.json(&[&"publish", &self.tree.root(), &"--key", &self.id, &"--first"]);
        assert_eq!(row["request"], "tree.request", "{row}");
        self.lab.path("s").join("tree.request")
    }

    fn sign(&self, request: &Path) -> PathBuf {
        self.vault.ok(&[&"sign", &request]);
        self.lab.path("s").join("tree.request.signed")
    }
}

#[test]
fn a_key_may_stay_on_another_machine() {
    let it = Vault::new();
    let node = it.server.serve(&[&"--no-dht"]);
    let request = it.request();
    assert!(fs::metadata(&request).unwrap().len() < 16 << 10);
    assert!(it.server.json(&[&"status"])["modules"].as_array().unwrap().is_empty(), "nothing is published yet");
    let shown = it.vault.ok(&[&"sign", &"-n", &request]).text();
    assert!(shown.contains(&it.id) && shown.contains("@1"), "{shown}");
    let signed = it.sign(&request);
    let published = it.server.publish_with(it.tree.root(), &[&"--signed", &signed]);
    assert_eq!(published.seq, 1);
    assert!(!it.server.state().join("keys/default.key").exists());
    let copy = it.lab.path("copy");
    it.lab.machine("c").ok(&[&"--no-dht", &"fetch", &node.link(&published.reference), &copy]);
    assert_same(it.tree.root(), &copy);

    it.tree.file("b", "second");
    let signed = it.sign(&it.request());
    it.server.publish_with(it.tree.root(), &[&"--signed", &signed]);
    it.lab.machine("c").ok(&[&"--no-dht", &"fetch", &node.link(&published.reference), &copy]);
    assert_same(it.tree.root(), &copy);
    // The key's machine rotates; what serves takes it in.
    it.vault.ok(&[&"rotate"]);
    let rotated = it.lab.path("v").join("tree.signed");
    assert_eq!(it.server.publish_with(it.tree.root(), &[&"--signed", &rotated]).seq, 3);
    it.tree.file("c", "third");
    let signed = it.sign(&it.request());
    assert_eq!(it.server.publish_with(it.tree.root(), &[&"--signed", &signed]).seq, 4);
    let head = it.lab.machine("c").json(&[&"--no-dht", &"resolve", &node.link(&published.reference)]);
    assert_eq!((head["epoch"].as_u64(), head["seq"].as_u64()), (Some(1), Some(4)), "{head}");
}

#[test]
fn what_is_not_as_it_was_signed_is_not_published() {
    let it = Vault::new();
    let request = it.request();
    let signed = it.sign(&request);
    it.tree.file("a", "changed since");
    let args = |signed: &PathBuf| [PathBuf::from("publish"), it.tree.root().into(), "--signed".into(), signed.clone()];
    let publish = |signed: &PathBuf| {
        let words = args(signed);
        it.server.run(&[&words[0], &words[1], &words[2], &words[3], &"--module", &"tree"])
    };
    publish(&signed).expect(24);
    let mut bytes = fs::read(&signed).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = it.lab.path("forged");
    fs::write(&forged, bytes).unwrap();
    publish(&forged).expect(42);
    // What was signed counts, though it is not published: the next request goes on from it.
    let second = it.request();
    let signed = it.sign(&second);
    assert_eq!(it.server.publish_with(it.tree.root(), &[&"--signed", &signed]).seq, 2);
    // Another first generation of the same module would be a fork.
    let other = it.lab.machine("s2");
    other.ok(&[&"publish", &it.tree.root(), &"--key", &it.id, &"--first", &"--no-dht"]);
    let refused = it.vault.run(&[&"sign", &it.lab.path("s2").join("tree.request")]).expect(43);
    assert!(refused.stderr.contains("@2 was signed here"), "{}", refused.stderr);
    it.vault.run(&[&"sign", &it.tree.root().join("a")]).expect(1);
    let stranger = it.lab.machine("x");
    stranger.ok(&[&"keygen"]);
    stranger.run(&[&"sign", &request]).expect(1);
}
