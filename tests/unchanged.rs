//! What has not changed is seen at a glance; what has is seen all the same, whatever it looks like.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::util::{Lab, Machine, Running, Tree, assert_same, noise, until};

/// What the log says of a run that ended at a glance.
const GLANCE: &str = "all is as it was left";

/// Runs until a glance is enough: files must be some seconds old for that, and have been looked at once.
fn settle(machine: &Machine, args: &[&dyn AsRef<OsStr>]) {
    until("a run that ends at a glance", || {
        let mut command = machine.command(args);
        command.env("MURMIR_LOG", "murmir=debug");
        Running::start(command).finish().expect(0).stderr.contains(GLANCE).then_some(())
    });
}

/// Other bytes, of the same number and time.
fn change_unseen(path: &Path) {
    let (before, mut bytes) = (fs::metadata(path).unwrap(), fs::read(path).unwrap());
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    let times = FileTimes::new().set_modified(before.modified().unwrap());
    File::options().write(true).open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn a_replica_that_was_tampered_with_is_mended() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.many(1, 60, 3000).file("sub/large", noise(5, 1 << 20)).symlink("link", "sub/large");
    let _node = origin.serve(&[]);
    let link = origin.publish(tree.root()).link;
    let copy = lab.path("copy");
    let words: [&dyn AsRef<OsStr>; 4] = [&"--no-dht", &"mirror", &link, &copy];
    mirror.ok(&words);
    settle(&mirror, &words);
    let changes: [&dyn Fn(); 4] = [
        &|| change_unseen(&copy.join("sub/large")),
        &|| fs::remove_file(copy.join("link")).unwrap(),
        &|| fs::write(copy.join("sub/foreign"), "x").unwrap(),
        &|| fs::set_permissions(copy.join("sub"), Permissions::from_mode(0o700)).unwrap(),
    ];
    for change in changes {
        change();
        mirror.ok(&words);
        assert_same(tree.root(), &copy);
    }
    settle(&mirror, &words);
    let done = mirror.json(&words);
    assert_eq!(done["files"], 61, "a glance tells what there is: {done}");
    tree.file("new", "n");
    origin.publish(tree.root());
    mirror.ok(&words);
    assert_same(tree.root(), &copy);
}

#[test]
fn a_published_tree_that_changed_is_published_anew() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(1, 60, 3000).file("large", noise(5, 1 << 20));
    let (root, file) = (tree.root().to_owned(), tree.root().join("large"));
    let words: [&dyn AsRef<OsStr>; 4] = [&"publish", &root, &"--module", &"tree"];
    origin.ok(&words);
    settle(&origin, &words);
    let glance = origin.json(&words);
    assert_eq!((&glance["seq"], &glance["files"]), (&1.into(), &61.into()), "{glance}");
    change_unseen(&file);
    assert_eq!(origin.json(&words)["seq"], 2);
    settle(&origin, &words);
    let mut filtered = words.to_vec();
    filtered.push(&"--exclude=large");
    assert_eq!(origin.json(&filtered)["seq"], 3, "other wishes, another tree");
}
