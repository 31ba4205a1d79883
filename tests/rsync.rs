//! `murmir rsync` does what rsync does: generated trees and flags, side by side with the real one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::{Fact, Lab, Machine, Node, Random, Tree, cases, facts, first_seed};

const NAMES: [&str; 10] = ["a", "b", "c.txt", "d.o", "e f", "g~", "h.bak", "x", "y", "z.c"];
/// Flags that may be combined at will.
const FLAGS: [&str; 26] = [
    "-H",
    "-O",
    "-J",
    "-m",
    "-u",
    "--existing",
    "--ignore-existing",
    "--delete",
    "--delete-excluded",
    "--max-size=40",
    "--min-size=10",
    "--exclude=*.o",
    "--exclude=a/",
    "--include=*.c",
    "--filter=P x",
    "--filter=hide b",
    "--filter=R y",
    "-C",
    "--no-p",
    "--no-t",
    "--no-l",
    "--chmod=Dgo-w,Fa-x",
    "-E",
    "--exclude=/b",
    "-b",
    "--safe-links",
];

fn fill(random: &mut Random, tree: &Tree, at: &str, depth: usize) {
    for _ in 0..2 + random.below(5) {
        let name = format!("{at}{}", random.pick::<&str>(&NAMES));
        if fs::symlink_metadata(tree.path(&name)).is_ok() {
            continue;
        }
        match random.below(10) {
            0..=2 if depth < 3 => {
                tree.dir(&name);
                fill(random, tree, &format!("{name}/"), depth + 1);
                tree.mode(&name, *random.pick(&[0o755, 0o700, 0o775]));
            }
            3 => drop(tree.symlink(&name, random.pick::<&str>(&["a", "c.txt", "../x", "/etc/passwd", "nowhere"]))),
            _ => {
                let text = random.pick::<&str>(&[
                    "",
                    "short",
                    "another text that is longer than forty bytes in all",
                    "x1",
                    "x2",
                ]);
                tree.file(&name, text).mode(&name, *random.pick(&[0o644, 0o600, 0o755, 0o444]));
            }
        }
        tree.mtime(&name, 1_000_000_000 + random.below(3) as i64 * 1000, 0);
    }
}

/// Another state of the same tree.
fn change(random: &mut Random, from: &Path, to: &Tree) {
    copy(from, to.root());
    let paths: Vec<_> = facts(to.root()).into_iter().collect();
    for (path, fact) in paths {
        let name = String::from_utf8(path).expect("a text");
        if fs::symlink_metadata(to.path(&name)).is_err() {
            continue;
        }
        match (random.below(8), fact.kind) {
            (0, 'd') => fs::remove_dir_all(to.path(&name)).expect("removed"),
            (0 | 1, '-' | 'l') => fs::remove_file(to.path(&name)).expect("removed"),
            (2, '-') => drop(to.mode(&name, 0o640)),
            (3, _) => drop(to.mtime(&name, 1_000_005_000, 0)),
            (4, '-') => {
                fs::remove_file(to.path(&name)).expect("removed");
                to.file(&name, *random.pick(&["changed", "x1", "x2", "short"])).mtime(&name, 1_000_001_000, 0);
            }
            _ => {}
        }
    }
    fill(random, to, "", 2);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(copied.expect("cp").success());
}

fn changes_kinds(old: &Path, new: &Path) -> bool {
    let new = facts(new);
    facts(old).iter().any(|(path, fact)| new.get(path).is_some_and(|other| other.kind != fact.kind))
}

/// What a run left and said.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    lines: BTreeSet<String>,
    tree: Vec<(String, Fact)>,
}

fn outcome(run: std::process::Output, dest: &Path, times: bool) -> Outcome {
    let text = String::from_utf8_lossy(&run.stdout);
    let lines = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let tree = facts(dest).into_iter().map(|(path, fact)| {
        // Times that are not kept are those of the run.
        let mtime = if times && fact.mtime.0 < 1_100_000_000 { fact.mtime } else { (0, 0) };
        (path.escape_ascii().to_string(), Fact { mtime, ..fact })
    });
    Outcome { code: run.status.code(), lines, tree: tree.collect() }
}

struct Scene {
    lab: Lab,
    origin: Machine,
    node: Node,
    client: Machine,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let (origin, client) = (lab.machine("o"), lab.machine("c"));
        let node = origin.serve(&[]);
        Self { lab, origin, node, client }
    }

    fn publish(&self, dir: &Path, module: &str) -> String {
        let row = self.origin.json(&[&"publish", &dir, &"--module", &module, &"--first"]);
        row["reference"].as_str().expect("a reference").to_owned()
    }

    fn ours(&self, flags: &[String], reference: &str, dest: &Path) -> std::process::Output {
        let link = self.node.link(reference);
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"rsync"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.extend([&link as &dyn AsRef<OsStr>, &dest]);
        self.client.command(&words).output().expect("murmir")
    }
}

fn theirs(flags: &[String], source: &Path, dest: &Path) -> std::process::Output {
    let mut from = source.as_os_str().to_owned();
    from.push("/");
    Command::new("rsync")
        .args(flags)
        .arg(from)
        .arg(dest)
        .env("HOME", "/nonexistent")
        .env("TZ", "UTC")
        .output()
        .expect("rsync")
}

fn show(one: &Outcome, other: &Outcome) -> String {
    let lines: Vec<_> = one.lines.difference(&other.lines).collect();
    let tree: Vec<_> = one.tree.iter().filter(|entry| !other.tree.contains(entry)).take(4).collect();
    format!("code {:?}, lines {lines:?}, tree {tree:?}", one.code)
}

#[test]
fn trees_lines_and_codes_are_rsyncs() {
    let scene = Scene::new();
    let (cases, mut failures) = (cases(50), Vec::new());
    for seed in first_seed()..first_seed() + cases as u64 {
        let mut random = Random::new(seed);
        let name = |what: &str| -> PathBuf { scene.lab.path(&format!("{what}{seed}")) };
        let (new, old) = (Tree::new(name("new")), Tree::new(name("old")));
        fill(&mut random, &new, "", 0);
        change(&mut random, new.root(), &old);
        new.mtime(".", 1_000_000_000, 0);
        let mut flags =
            vec![if random.once_in(5) { "-rlpt" } else { "-a" }.to_owned(), "-c".to_owned(), "-i".to_owned()];
        flags.extend((0..random.below(5)).map(|_| (*random.pick(&FLAGS)).to_owned()));
        // Where a file stands in the way of a directory, rsync itself does odd things with these.
        if changes_kinds(old.root(), new.root()) {
            flags.retain(|flag| !["--existing", "--ignore-existing", "-b", "--no-p"].contains(&flag.as_str()));
        }
        let copied = Tree::new(name("copy"));
        copy(old.root(), copied.root());
        let reference = scene.publish(new.root(), &format!("m{seed}"));
        let run = scene.ours(&flags, &reference, copied.root());
        let errors = String::from_utf8_lossy(&run.stderr).into_owned();
        let times = !flags.iter().any(|flag| flag == "--no-t");
        let ours = outcome(run, copied.root(), times);
        let theirs = outcome(theirs(&flags, new.root(), old.root()), old.root(), times);
        if ours != theirs {
            let (only_we, only_rsync) = (show(&ours, &theirs), show(&theirs, &ours));
            failures.push(format!("seed {seed} {flags:?}\n  rsync {only_rsync}\n  ours  {only_we}\n  {errors}"));
        }
    }
    assert!(failures.is_empty(), "{} of {cases}:\n{}", failures.len(), failures.join("\n"));
}
