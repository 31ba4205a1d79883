//! Disks that fill up or turn read-only under a mirror: nothing torn, it keeps serving what it has, and the next pass
//! completes. Needs root for small file systems of its own; says so and passes without.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::{Lab, Tree, assert_same, facts, noise};

/// A small file system in memory, gone with the test.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount.
    fn mount(at: PathBuf, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("mount point");
        let disk = Self(at);
        if disk.call(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]) {
            return Some(disk);
        }
        eprintln!("not shown: this user may not mount a tmpfs");
        None
    }

    fn remount(&self, options: &str) {
        assert!(self.call(&["-o", &format!("remount,{options}")]), "remounting with {options}");
    }

    fn call(&self, words: &[&str]) -> bool {
        Command::new("mount").args(words).arg(&self.0).output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node may have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Every visible file of `dest` is one of the two trees'.
#[track_caller]
fn assert_untorn(dest: &Path, trees: [&Path; 2]) {
    let whole = trees.map(facts);
    for (name, fact) in facts(dest) {
        let known = whole.iter().any(|tree| tree.get(&name).is_some_and(|one| one.content == fact.content));
        assert!(known, "{} is torn", String::from_utf8_lossy(&name));
    }
}

/// A mirror on a small disk meets a generation that `spoil` keeps it from placing.
fn survives(spoil: fn(&Disk), heal: fn(&Disk), message: &str) {
    let lab = Lab::new();
    let Some(disk) = Disk::mount(lab.path("disk"), 6) else { return };
    let (origin, mirror) = (lab.machine("o"), lab.machine("m"));
    let (first, second) = (Tree::new(lab.path("first")), Tree::new(lab.path("tree")));
    first.many(1, 20, 50_000);
    second.many(1, 20, 50_000);
    let node = origin.serve(&[]);
    let published = origin.publish(second.root());
    let dest = disk.0.join("copy");
    let mirror_node = mirror.serve(&[&"--peer", &node.address()]);
    mirror.ok(&[&"mirror", &published.reference, &dest]);
    second.many(2, 25, 100_000).file("large", noise(3, 5 << 20));
    origin.publish(second.root());
    spoil(&disk);
    let failed = mirror.run(&[&"mirror", &"--force-delete", &published.reference, &dest]).expect(11);
    assert!(failed.stderr.contains(message), "{}", failed.stderr);
    assert_untorn(&dest, [first.root(), second.root()]);
    assert_eq!(mirror.module_status()["seq"], 1, "what is placed is what is told");
    let (client, copy) = (lab.machine("c"), lab.path("served"));
    let link = mirror_node.link(&published.reference);
    let link = link.replace("/tree?", "/tree@1?");
    client.ok(&[&"--no-dht", &"fetch", &link, &copy]);
    assert_untorn(&copy, [first.root(), first.root()]);
    assert_eq!(facts(&copy).len(), facts(first.root()).len());
    heal(&disk);
    mirror.ok(&[&"mirror", &"--force-delete", &published.reference, &dest]);
    assert_same(second.root(), &dest);
    assert_eq!(mirror.module_status()["seq"], 2);
}

#[test]
fn a_full_disk() {
    survives(|_| {}, |disk| disk.remount("size=64m"), "No space left");
}

#[test]
fn a_disk_that_turns_read_only() {
    survives(|disk| disk.remount("ro"), |disk| disk.remount("rw,size=64m"), "Read-only file system");
}
