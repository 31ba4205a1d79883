//! Mirrors nominate themselves by way of a stock rsync daemon.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tracker_less::record::{CheckedNomination, Coverage, ModuleId, Nomination, SecretKey};

use crate::util::{Daemon, Lab, Machine, Node, Tree, assert_same, noise, receiver, until};

/// An origin: its rsync daemon, and beside it a node that nobody else is connected to. Heads and pages come from another node with
/// the same key.
struct Origin {
    lab: Lab,
    tree: Tree,
    machine: Machine,
    reference: String,
    beside: Machine,
    node: Node,
}

impl Origin {
    fn new() -> Self {
        let lab = Lab::new();
        let (machine, beside, tree) = (lab.machine("o"), lab.machine("beside"), Tree::new(lab.path("t")));
        tree.file("large", noise(1, 3 << 20)).file("dir/a", "text");
        for name in ["large", "dir/a", "dir", ""] {
            tree.mtime(name, 1_000_000_000, 0);
        }
        let reference = machine.publish(tree.root()).reference;
        beside.copy_state_from(&machine);
        let node = machine.serve(&[&"--no-dht"]);
        Self { lab, tree, machine, reference, beside, node }
    }

    fn daemon(&self, motd: &str) -> Daemon {
        let receive = format!("early exec = {} nominate --stdin || true", receiver(&self.machine));
        let (text, dir) = (self.lab.path("motd"), self.tree.root().display());
        std::fs::write(&text, motd).unwrap();
        let head = format!("use chroot = no\nmotd file = {}\n", text.display());
        Daemon::with_config(
            &self.lab,
            &format!("{head}[tree]\npath = {dir}\n{receive}\n[other]\npath = {dir}\n{receive}\n"),
        )
    }

    /// Whom it lists beside itself.
    fn mirrors(&self) -> Vec<Value> {
        let rows = self.machine.run(&[&"--json", &"mirrors", &self.reference]).expect(0).rows();
        rows.into_iter().filter(|row| row["peer_id"] != self.node.peer_id()).collect()
    }

    /// What a stock client gets that hands this in.
    fn hand_in(&self, daemon: &Daemon, module: &str, record: &[u8]) -> PathBuf {
        let (file, copy) = (self.lab.path("early"), self.lab.path("stock"));
        std::fs::write(&file, record).unwrap();
        let url = format!("rsync://127.0.0.1:{}/{module}/dir/", daemon.port());
        let early = format!("--early-input={}", file.display());
        let run = Command::new("rsync").args(["-a", &early, &url]).arg(&copy).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_same(&self.tree.path("dir"), &copy);
        copy
    }
}

/// The word of a mirror that nobody knows.
fn word(reference: &str, seed: u8, now: u64) -> Nomination {
    let (publisher, name) = reference.trim_start_matches("murmir://").split_once('/').unwrap();
    Nomination {
        module: ModuleId::new(&publisher.parse().unwrap(), &name.parse().unwrap()),
        epoch: 0,
        seq: 1,
        root: "bafyr4icv5ougepzgucos3ya2yl4giuupm6zphnp6iutsszwofaqn6qwhzq".parse().unwrap(),
        coverage: Coverage::WHOLE,
        addresses: vec![format!("/ip4/127.0.0.1/tcp/{}", 1 + u16::from(seed)).parse().unwrap()],
        http: Vec::new(),
        rsync: Vec::new(),
        region: String::new(),
        contact: String::new(),
        issued: now,
        until: now + 3600,
    }
}

fn signed(seed: u8, word: &Nomination) -> Vec<u8> {
    CheckedNomination::sign(&SecretKey::from_seed([seed; 32]), word).unwrap().bytes().to_vec()
}

#[test]
fn a_mirror_that_came_the_classic_way_is_on_the_origins_list() {
    let origin = Origin::new();
    // Head and pages can be had from the swarm, the content from the daemon alone.
    let pages = origin.beside.serve(&[&"--no-dht"]);
    let daemon = origin.daemon(&format!("murmir: {}&nominate=early-input\n", pages.link(&origin.reference)));
    let moved = origin.lab.path("moved");
    std::fs::rename(origin.tree.root(), &moved).unwrap();
    std::fs::create_dir(origin.tree.root()).unwrap();
    // A daemon reads its settings anew for each client.
    let config = std::fs::read_to_string(origin.lab.path("rsyncd.conf")).unwrap();
    let (old, new) = (origin.tree.root().display().to_string(), moved.display().to_string());
    std::fs::write(origin.lab.path("rsyncd.conf"), config.replace(&old, &new)).unwrap();
    let mirror = origin.lab.machine("m");
    let node = mirror.serve(&[&"--no-dht"]);
    let (url, dest) = (format!("rsync://127.0.0.1:{}/tree", daemon.port()), origin.lab.path("replica"));
    mirror.ok(&[&"mirror", &"--accept-new", &url, &dest]);
    assert_same(&moved, &dest);
    assert_eq!(mirror.module_status()["role"], "mirror");
    until("the origin knows its mirror", || {
        origin.mirrors().iter().find(|row| row["peer_id"] == node.peer_id()).cloned()
    });
    // By hand, and by stock rsync with its own flag: the same word.
    mirror.ok(&[&"nominate", &url]);
    let record = mirror.ok(&[&"nominate", &origin.reference]).stdout;
    assert_eq!(CheckedNomination::verify(&record).unwrap().peer().to_string(), node.peer_id());
    assert_eq!(origin.mirrors().iter().filter(|row| row["peer_id"] == node.peer_id()).count(), 1);
    drop(node);
    mirror.run(&[&"nominate", &origin.reference]).expect(10);
}

#[test]
fn a_flood_of_nominations_does_not_get_far_and_harms_no_transfer() {
    let origin = Origin::new();
    let (daemon, now) = (origin.daemon(""), murmir::sync::unix_now());
    // What is not sound, or of another module, is not taken.
    let good = word(&origin.reference, 1, now);
    let mut broken = signed(1, &good);
    *broken.last_mut().unwrap() ^= 1;
    for record in [broken, noise(1, 5000), signed(1, &Nomination { until: now, issued: now - 10, ..good.clone() })] {
        origin.hand_in(&daemon, "tree", &record);
    }
    origin.hand_in(&daemon, "other", &signed(1, &good));
    assert_eq!(origin.mirrors().len(), 0);
    for seed in 1..30 {
        origin.hand_in(&daemon, "tree", &signed(seed, &word(&origin.reference, seed, now)));
    }
    let listed = origin.mirrors().len();
    assert!((1..=8).contains(&listed), "{listed} of one client");
    // Without a node, or without sense, nothing happens either.
    let alone = origin.lab.machine("alone");
    alone.ok(&[&"nominate", &"--stdin"]);
    alone.run(&[&"nominate"]).expect(1);
    let url = format!("rsync://127.0.0.1:{}/tree", daemon.port());
    let refused = origin.beside.run(&[&"nominate", &url]);
    assert!(refused.expect(5).stderr.contains("no nominations are taken there"));
}
