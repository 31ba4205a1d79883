//! Publishing: what is printed, what is in the tree, what changes the number.

use std::fs;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::util::{Lab, Machine, Tree, assert_same};

/// Paths of the tree, as `ls --json -R` gives them (those that are UTF-8).
fn listed(machine: &Machine, reference: &str) -> Vec<String> {
    let run = machine.ok(&[&"--json", &"ls", &"-R", &reference]);
    run.rows().iter().filter_map(|row| row["path"].as_str()).map(|path| path.trim_end_matches('/').to_owned()).collect()
}

#[test]
fn the_first_line_is_the_reference_and_nothing_else() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("pub.1")));
    tree.file("a", "a");
    let run = machine.ok(&[&"publish", &tree.root()]);
    let reference = &run.lines()[0];
    let rest = reference.strip_prefix("murmir://k51").unwrap_or_else(|| panic!("{reference}"));
    assert!(rest.ends_with("/pub.1"), "the module is named after the directory: {reference}");
    assert!(!reference.contains(['?', '@']), "{reference}");
}

#[test]
fn json_counts_every_name_of_a_file_and_links_the_running_node() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.sampler();
    let node = machine.serve(&[]);
    let published = machine.publish(tree.root());
    let files: Vec<_> = crate::util::facts(tree.root()).into_values().filter(|fact| fact.kind == '-').collect();
    assert_eq!(published.seq, 1);
    assert_eq!(published.files, files.len() as u64, "hard links are counted each");
    assert_eq!(published.bytes, 2 * 300_000 + 6 + 4 + 5 + 5);
    assert!(published.root.starts_with('b'), "base32: {}", published.root);
    assert_eq!(published.link, node.link(&published.reference));
}

#[test]
fn only_a_changed_tree_gets_a_new_number() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.many(1, 30, 1000);
    let first = machine.publish(tree.root());
    let again = machine.publish(tree.root());
    assert_eq!((again.seq, &again.root), (1, &first.root));
    tree.file("new", "file");
    let second = machine.publish(tree.root());
    assert_eq!(second.seq, 2);
    fs::remove_file(tree.path("new")).unwrap();
    assert_eq!(machine.publish(tree.root()).seq, 3, "also for a tree of earlier days");
}

#[test]
fn an_edit_that_keeps_size_and_mtime_is_still_an_edit() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.file("a", "old content").mtime("a", 1_000_000_000, 0);
    machine.publish(tree.root());
    fs::File::options().write(true).open(tree.path("a")).unwrap().write_all_at(b"new", 0).unwrap();
    tree.mtime("a", 1_000_000_000, 0);
    assert_eq!(machine.publish(tree.root()).seq, 2, "the change time tells");
}

#[test]
fn an_unchanged_tree_ends_with_48_when_asked() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.file("a", "a");
    machine.publish(tree.root());
    machine.run(&[&"publish", &tree.root(), &"--module", &"tree", &"--error-on-no-transfer"]).expect(48);
}

#[test]
fn everything_that_a_tree_can_hold_arrives() {
    let lab = Lab::new();
    let (origin, other, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.sampler();
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let dest = lab.path("copy");
    other.ok(&[&"fetch", &published.link, &dest]);
    assert_same(tree.root(), &dest);
}

#[test]
fn names_with_control_characters_are_left_out_and_shown_escaped() {
    let lab = Lab::new();
    let (origin, other, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.file("a", "a").odd(b"two\nlines", "newline");
    let node = origin.serve(&[]);
    // Others would refuse the whole tree for it (tests/hostile.rs).
    for _ in 0..2 {
        let run = origin.run(&[&"publish", &tree.root(), &"--module", &"tree"]).expect(23);
        assert!(run.stderr.contains("two\\#012lines"), "{}", run.stderr);
    }
    let reference = origin.module_status()["reference"].as_str().unwrap().to_owned();
    assert_eq!(listed(&other, &node.link(&reference)), ["a"]);
}

#[test]
fn directories_that_are_not_utf_8_are_published_mirrored_and_forgotten() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    let lab = Lab::new();
    let (origin, mirror) = (lab.machine("o"), lab.machine("m"));
    let tree = Tree::new(lab.path("t").join(odd));
    tree.file("a", "a");
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let _mirror_node = mirror.serve(&[&"--peer", &node.address()]);
    let dest = lab.path("m-tree").join(odd);
    mirror.ok(&[&"mirror", &"--mkpath", &published.reference, &dest]);
    assert_same(tree.root(), &dest);
    assert_eq!(mirror.module_status()["seq"], 1);
    mirror.ok(&[&"forget", &dest]);
    assert_eq!(mirror.json(&[&"status"])["modules"].as_array().map(Vec::len), Some(0));
}

#[test]
fn sparse_files_are_files() {
    let lab = Lab::new();
    let (origin, other, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.file("sparse", "");
    let file = fs::File::options().write(true).open(tree.path("sparse")).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(b"middle", 1 << 20).unwrap();
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    assert_eq!(published.bytes, 3 << 20);
    let dest = lab.path("copy");
    other.ok(&[&"fetch", &published.link, &dest]);
    assert_same(tree.root(), &dest);
}

#[test]
fn a_directory_of_twenty_thousand_entries_is_listed_in_byte_order() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    let names: Vec<String> = (0..20_000).map(|number| format!("{number:x}")).collect();
    for name in &names {
        tree.file(name, "");
    }
    let node = machine.serve(&[]);
    let published = machine.publish(tree.root());
    assert_eq!(published.files, 20_000);
    let mut sorted = names;
    sorted.sort();
    assert_eq!(listed(&lab.machine("c"), &node.link(&published.reference)), sorted);
}

#[test]
fn a_fifo_is_left_out_and_never_opened() {
    use rustix::fs::inotify;
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.file("a", "a").fifo("pipe");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, tree.path("pipe"), inotify::WatchFlags::OPEN).unwrap();
    assert_eq!(machine.publish(tree.root()).files, 1);
    let mut buffer = [0; 256];
    let read = rustix::io::read(&watch, &mut buffer);
    assert_eq!(read.err(), Some(rustix::io::Errno::AGAIN), "somebody opened the FIFO");
}

#[test]
fn patterns_choose_what_is_published() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.file("keep.c", "").file("drop.o", "").file("sub/keep.c", "").file("sub/drop.o", "").file("cache/x.c", "");
    let node = machine.serve(&[]);
    let published = machine.publish_with(tree.root(), &[&"--exclude", &"*.o", &"--exclude", &"/cache/"]);
    let paths = listed(&lab.machine("c"), &node.link(&published.reference));
    assert_eq!(paths, ["keep.c", "sub", "sub/keep.c"]);
}

#[test]
fn a_dry_run_signs_nothing() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.file("a", "a");
    machine.publish(tree.root());
    tree.file("b", "b");
    let run = machine.ok(&[&"publish", &tree.root(), &"--module", &"tree", &"-n", &"-i"]);
    assert!(run.lines().contains(&">f+++++++++ b".to_owned()), "{}", run.text());
    assert_eq!(machine.publish(tree.root()).seq, 2, "the number was not used up");
}

#[test]
fn itemized_lines_are_rsyncs() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    tree.file("changed", "1").file("gone", "1").file("kept", "1").file("touched", "1").mtime("touched", 1, 1);
    machine.publish(tree.root());
    tree.file("changed", "22").file("new", "1").mtime("touched", 2, 2);
    fs::remove_file(tree.path("gone")).unwrap();
    let lines = machine.ok(&[&"publish", &tree.root(), &"--module", &"tree", &"-i"]).lines();
    for line in [">f+++++++++ new", "*deleting   gone"] {
        assert!(lines.iter().any(|one| one == line), "{line} in {lines:?}");
    }
    assert!(lines.iter().any(|line| line.starts_with(">fc") && line.ends_with(" changed")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with(".f..t") && line.ends_with(" touched")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.ends_with("kept")), "{lines:?}");
}

#[test]
fn keygen_never_overwrites() {
    let lab = Lab::new();
    let machine = lab.machine("o");
    let made = machine.json(&[&"keygen", &"archive"]);
    assert_eq!(made["name"], "archive");
    let id = made["publisher"].as_str().unwrap().to_owned();
    assert!(id.starts_with("k51"), "{id}");
    let keys = machine.state().join("keys");
    let before: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    machine.run(&[&"keygen", &"archive"]).expect(1);
    let after: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(before, after);
    let tree = Tree::new(lab.path("t"));
    let published = machine.publish_with(tree.root(), &[&"--key", &"archive"]);
    assert!(published.reference.contains(&id));
}

#[test]
fn the_default_key_is_made_when_absent_and_said_on_stderr() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
    let run = machine.ok(&[&"publish", &tree.root()]);
    assert!(run.stderr.contains("default"), "{}", run.stderr);
    let run = machine.ok(&[&"publish", &tree.root()]);
    assert_eq!(run.stderr, "", "silence is success");
}

#[test]
fn what_was_published_without_a_node_is_served_by_the_next() {
    let lab = Lab::new();
    let (origin, other, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.sampler();
    let published = origin.publish(tree.root());
    let node = origin.serve(&[]);
    let dest = lab.path("copy");
    other.ok(&[&"fetch", &node.link(&published.reference), &dest]);
    assert_same(tree.root(), &dest);
}

#[test]
fn ls_l_prints_rsyncs_list_lines() {
    let lab = Lab::new();
    let (origin, other, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.file("a.txt", "hello\n").mode("a.txt", 0o644).mtime("a.txt", 1_000_000_000, 0).symlink("l", "a.txt");
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let lines = other.ok(&[&"ls", &"-l", &node.link(&published.reference)]).lines();
    assert_eq!(lines[0], "-rw-r--r--              6 2001/09/09 01:46:40 a.txt");
    assert!(lines[1].starts_with("lrwxrwxrwx ") && lines[1].ends_with(" l -> a.txt"), "{lines:?}");
    let rows = other.ok(&[&"--json", &"ls", &node.link(&published.reference)]).rows();
    assert_eq!((&rows[0]["type"], &rows[0]["size"]), (&Value::from("file"), &Value::from(6)));
    assert_eq!(rows[1]["target"], "a.txt");
}
