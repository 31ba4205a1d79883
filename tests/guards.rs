//! What stops a publish: no history, a shrunken tree, unreadable files, a newer state.

use std::fs;
use std::path::Path;

use crate::util::{Lab, Machine, Run, Tree};

fn publish(machine: &Machine, dir: &Path, flag: &str) -> Run {
    machine.run(&[&"publish", &dir, &"--module", &"tree", &flag])
}

#[test]
fn a_second_machine_without_state_refuses_unless_told() {
    let lab = Lab::new();
    let (first, second, tree) = (lab.machine("o"), lab.machine("p"), Tree::new(lab.path("t")));
    tree.file("a", "a");
    first.publish(tree.root());
    second.copy_keys_from(&first);
    let refused = publish(&second, tree.root(), "--json").expect(1);
    let error = refused.last();
    assert_eq!((error["event"].as_str(), error["code"].as_u64()), (Some("error"), Some(1)));
    let last = refused.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("murmir error: ") && last.ends_with("(code 1)"), "{last}");
    assert!(refused.stderr.contains("--first"), "the hint says what to do: {}", refused.stderr);
    let continued = second.publish_with(tree.root(), &[&"--seq", &"7"]);
    assert_eq!(continued.seq, 7);
}

#[test]
fn first_begins_at_one() {
    let lab = Lab::new();
    let (first, second, tree) = (lab.machine("o"), lab.machine("p"), Tree::new(lab.path("t")));
    first.ok(&[&"keygen"]);
    second.copy_keys_from(&first);
    publish(&second, tree.root(), "--json").expect(1);
    assert_eq!(second.publish_with(tree.root(), &[&"--first"]).seq, 1);
}

#[test]
fn a_second_machine_continues_from_what_the_swarm_knows() {
    let lab = Lab::new();
    let (first, second, tree) = (lab.machine("o"), lab.machine("p"), Tree::new(lab.path("t")));
    tree.file("a", "a");
    let node = first.serve(&[]);
    first.publish(tree.root());
    second.copy_keys_from(&first);
    tree.file("b", "b");
    let peer = node.address();
    assert_eq!(second.publish_with(tree.root(), &[&"--peer", &peer]).seq, 2);
}

#[test]
fn a_tree_that_shrank_by_more_than_a_quarter_is_stopped() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.many(1, 500, 10);
    machine.publish(tree.root());
    for number in 0..10 {
        fs::remove_dir_all(tree.path(format!("d{number:03}"))).unwrap();
    }
    assert_eq!(machine.publish(tree.root()).seq, 2, "a fifth may go");
    for number in 10..25 {
        fs::remove_dir_all(tree.path(format!("d{number:03}"))).unwrap();
    }
    publish(&machine, tree.root(), "--json").expect(25);
    assert_eq!(machine.publish_with(tree.root(), &[&"--allow-shrink"]).seq, 3);
}

#[test]
fn an_unreadable_file_that_was_there_stops_the_publish() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o").without_privilege(), Tree::new(lab.path("t")));
    tree.file("secret", "1").file("plain", "1");
    machine.publish(tree.root());
    tree.file("plain", "22").mode("secret", 0);
    // Its stat is unchanged but for the mode; what cannot be read cannot be vouched for.
    tree.mtime("secret", 5, 5);
    let run = publish(&machine, tree.root(), "--json").expect(23);
    assert!(run.stderr.contains("secret"), "{}", run.stderr);
    publish(&machine, tree.root(), "--ignore-errors").expect(23);
    tree.mode("secret", 0o600);
    assert_eq!(machine.publish(tree.root()).seq, 3, "the generation without it was signed");
}

#[test]
fn a_new_unreadable_file_is_left_out_and_named() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o").without_privilege(), Tree::new(lab.path("t")));
    tree.file("plain", "1").file("secret", "1").mode("secret", 0);
    let run = publish(&machine, tree.root(), "-i").expect(23);
    assert!(run.stderr.contains("secret"), "{}", run.stderr);
    assert!(run.lines()[0].starts_with("murmir://"), "signed all the same: {}", run.text());
    assert!(!run.text().contains("secret"), "{}", run.text());
}

#[test]
fn a_directory_that_cannot_be_read_at_all_is_11() {
    let lab = Lab::new();
    let machine = lab.machine("o");
    publish(&machine, &lab.path("absent"), "--json").expect(11);
}

#[test]
fn the_state_of_a_newer_version_is_refused() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    machine.publish(tree.root());
    fs::write(machine.state().join("version"), "999\n").unwrap();
    let run = publish(&machine, tree.root(), "--json").expect(2);
    assert_eq!(run.last()["code"], 2);
}

#[test]
fn one_fetch_does_not_make_a_directory_ours() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.file("a", "theirs");
    let node = origin.serve(&[]);
    let link = node.link(&origin.publish(tree.root()).reference);
    let (mine, fresh) = (lab.path("mine"), lab.path("fresh"));
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("precious"), "x").unwrap();
    client.ok(&[&"fetch", &link, &mine]);
    client.run(&[&"fetch", &"--delete", &link, &mine]).expect(1);
    assert!(mine.join("precious").exists());
    client.ok(&[&"fetch", &"--delete", &"--adopt", &link, &mine]);
    client.ok(&[&"fetch", &"--delete", &link, &mine]);
    // What was empty holds nothing but what was brought.
    client.ok(&[&"fetch", &link, &fresh]);
    client.ok(&[&"fetch", &"--delete", &link, &fresh]);
}
