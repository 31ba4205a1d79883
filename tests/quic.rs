//! Where only UDP passes.

use serde_json::Value;

use crate::util::{Lab, Tree, assert_same, noise, until};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Where the peers of a running node are.
fn ways(peers: &[Value]) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}

#[test]
fn a_tree_comes_by_quic_alone() {
    let lab = Lab::new();
    let [origin, mirror, client] = ["o", "m", "c"].map(|name| lab.machine(name).listening(QUIC));
    let tree = Tree::new(lab.path("tree"));
    tree.many(1, 100, 4 << 10).sampler().file("large", noise(2, 8 << 20));
    let origin_node = origin.serve(&[]);
    assert!(origin_node.address().contains("/quic-v1/p2p/"), "{}", origin_node.address());
    let published = origin.publish(tree.root());
    assert!(published.link.contains("/quic-v1/p2p/"), "{}", published.link);
    let mirror_node = mirror.serve(&[&"--peer", &origin_node.address()]);
    let (dest, copy) = (lab.path("m-tree"), lab.path("copy"));
    let done = mirror.json(&[&"mirror", &published.reference, &dest]);
    assert_same(tree.root(), &dest);
    assert!(done["received"].as_u64() >= Some(8 << 20), "counted above QUIC: {done}");
    let peers = until("the mirror shows its peer", || {
        let rows = mirror.ok(&[&"--json", &"peers"]).rows();
        ways(&rows).iter().any(|row| row.contains(origin_node.peer_id())).then_some(rows)
    });
    assert!(ways(&peers).iter().all(|row| !row.contains("/tcp/")), "{peers:?}");
    origin_node.kill();
    client.ok(&[&"fetch", &mirror_node.link(&published.reference), &copy]);
    assert_same(tree.root(), &copy);
}

#[test]
fn a_taken_port_of_quic_ends_with_its_name() {
    let lab = Lab::new();
    let first = lab.machine("o").listening(QUIC).serve(&[]);
    let taken = first.address().split("/p2p/").next().expect("an address").to_owned();
    let run = lab.machine("second").run(&[&"--listen", &taken, &"serve"]).expect(10);
    assert!(run.stderr.contains(&taken), "{}", run.stderr);
}
