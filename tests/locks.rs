//! Runs that meet: one of them says so and changes nothing.

use crate::util::{Lab, Proxy, Running, Tree, assert_same, cases, noise, until};

#[test]
fn the_second_run_on_a_destination_is_46_and_a_kill_frees_it() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.file("large", noise(1, 4 << 20));
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (proxy, dest) = (Proxy::start(node.port()), lab.path("copy"));
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    proxy.hold_at(1 << 20);
    let first = client.start(&[&"--no-dht", &"fetch", &slow, &dest]);
    until("the first is at work", || (proxy.down() >= 1 << 20).then_some(()));
    client.run(&[&"fetch", &published.link, &dest]).expect(46);
    lab.machine("d").run(&[&"fetch", &published.link, &dest]).expect(46);
    first.kill();
    proxy.hold_at(u64::MAX);
    client.ok(&[&"fetch", &published.link, &dest]);
    assert_same(tree.root(), &dest);
}

#[test]
fn of_two_runs_started_at_once_one_says_so_and_the_other_completes() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.file("large", noise(1, 1 << 20));
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    for round in 0..cases(3).min(100) {
        let (proxy, dest) = (Proxy::start(node.port()), lab.path(&format!("copy{round}")));
        let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
        // Whoever comes first is held at work until the other has given up.
        proxy.hold_at(400_000);
        let start = |name: &str| lab.machine(name).start(&[&"--no-dht", &"fetch", &slow, &dest]);
        let mut runs = vec![start("a"), start("b")];
        let loser = until("one gives up", || runs.iter_mut().position(|run| !run.is_running()));
        runs.remove(loser).finish().expect(46);
        proxy.hold_at(u64::MAX);
        runs.remove(0).finish().expect(0);
        assert_same(tree.root(), &dest);
    }
}

#[test]
fn two_runs_on_one_state_do_not_collide() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.file("large", noise(1, 4 << 20));
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let proxy = Proxy::start(node.port());
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    proxy.hold_at(1 << 20);
    let first = client.start(&[&"--no-dht", &"fetch", &slow, &lab.path("one")]);
    until("the first is at work", || (proxy.down() >= 1 << 20).then_some(()));
    client.ok(&[&"fetch", &published.link, &lab.path("two")]);
    assert_same(tree.root(), &lab.path("two"));
    proxy.hold_at(u64::MAX);
    first.finish().expect(0);
    assert_same(tree.root(), &lab.path("one"));
}

#[test]
fn a_second_node_on_a_state_is_46_and_a_kill_frees_it() {
    let lab = Lab::new();
    let machine = lab.machine("o");
    let node = machine.serve(&[]);
    machine.run(&[&"serve"]).expect(46);
    let id = node.peer_id().to_owned();
    node.kill();
    assert_eq!(machine.serve(&[]).peer_id(), id, "the identity lasts");
}

#[test]
fn a_node_ends_well_on_sigterm() {
    let lab = Lab::new();
    let node = lab.machine("o").serve(&[]);
    assert_eq!(node.terminate().code(), Some(0));
}

#[test]
fn id_answers_with_and_without_a_node() {
    let lab = Lab::new();
    let machine = lab.machine("o");
    let alone = machine.ok(&[&"id"]).lines();
    assert_eq!(alone.len(), 1);
    machine.run(&[&"status"]).expect(10);
    let node = machine.serve(&[]);
    assert_eq!(machine.ok(&[&"id"]).lines(), [node.peer_id(), node.address()]);
    assert_eq!(alone[0], node.peer_id());
    assert_eq!(machine.json(&[&"status"])["peer_id"], node.peer_id());
}

#[test]
fn a_state_path_longer_than_a_socket_name_works() {
    let lab = Lab::new();
    let machine = lab.machine(&format!("{}/{}", "a".repeat(120), "b".repeat(120)));
    let node = machine.serve(&[]);
    assert_eq!(machine.json(&[&"status"])["peer_id"], node.peer_id());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(1, 3000, 1);
    let node = machine.serve(&[]);
    let link = node.link(&machine.publish(tree.root()).reference);
    let command = machine.command(&[&"ls", &"-l", &"-R", &link]);
    let mut shell = std::process::Command::new("bash");
    let script = "set -o pipefail; \"$@\" | head -n 1";
    shell.args(["-c", script, "bash"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    assert_eq!(Running::start(shell).finish().expect(0).lines().len(), 1);
}
