//! `murmir rsync` does what rsync does: generated trees and flags, side by side with the real one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::{Fact, Lab, Machine, Node, Random, Tree, cases, facts, first_seed};

const NAMES: [&str; 13] = ["a", "b", "c.txt", "d.o", "e f", "g~", "h.bak", "x", "y", "z.c", "é", "x#1", "core"];
/// Flags that may be combined at will. BASE is another state of the tree.
const FLAGS: [&str; 57] = [
    "-H",
    "-O",
    "-J",
    "-m",
    "-u",
    "--existing",
    "--ignore-existing",
    "--delete",
    "--delete",
    "--delete-after",
    "--delete-delay",
    "--delete-excluded",
    "--max-delete=0",
    "--max-delete=2",
    "--max-size=40",
    "--min-size=10",
    "--exclude=*.o",
    "--exclude=a/",
    "--include=*.c",
    "--filter=P x",
    "--filter=hide b",
    "--filter=R y",
    "--filter=-p core",
    "--filter=: .rules",
    "-F",
    "-FF",
    "-C",
    "--no-p",
    "--no-t",
    "--no-l",
    "--chmod=Dgo-w,Fa-x",
    "--chmod=ugo=rwX",
    "--chmod=D775,F664",
    "-E",
    "--exclude=/b",
    "-b",
    "--backup",
    "--backup-dir=.old",
    "--suffix=.orig",
    "--safe-links",
    "-L",
    "-k",
    "--size-only",
    "-I",
    "--modify-window=1",
    "--link-dest=BASE",
    "--copy-dest=BASE",
    "--compare-dest=BASE",
    "-R",
    "-n",
    "-ii",
    "--delay-updates",
    "--partial-dir=.part",
    "-x",
    "--no-r",
    "-d",
    "--force",
];
/// What may stand in a file of rules of a directory.
const RULES: [&str; 8] = ["- *.o", "+ a", "- /b", "- x/", "!", "P y", "-p core", "hide c.txt"];
/// Where symlinks lead.
const TARGETS: [&str; 11] =
    ["a", "b", "c.txt", "x/a", "../x", "../b/y", "/etc/passwd", "nowhere", ".", "a/../b", "../../.."];

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
            3 => drop(tree.symlink(&name, random.pick::<&str>(&TARGETS))),
            4 if random.once_in(2) => {
                let files = facts(tree.root()).into_iter().filter(|(_, fact)| fact.kind == '-');
                let files = files.filter_map(|(path, _)| String::from_utf8(path).ok());
                // Of two names in one directory rsync may take either for the first.
                let files: Vec<_> = files
                    .filter(|path| path.rsplit_once('/').map_or("", |(dir, _)| dir) != at.trim_end_matches('/'))
                    .collect();
                if files.is_empty() {
                    tree.file(&name, "")
                } else {
                    tree.hard_link(&name, random.pick::<String>(&files))
                };
            }
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
    for rules in [".rules", ".rsync-filter"] {
        if random.once_in(8) {
            let lines: Vec<&str> = (0..1 + random.below(3)).map(|_| *random.pick(&RULES)).collect();
            tree.file(format!("{at}{rules}"), lines.join("\n") + "\n").mtime(&format!("{at}{rules}"), 1_000_000_000, 0);
        }
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
            (4, '-') if !name.ends_with(".rules") && !name.ends_with(".rsync-filter") => {
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

/// Gives every name of a file a file of its own.
fn part_names(root: &Path, keeps: impl Fn(&[u8]) -> bool) {
    for (path, fact) in facts(root) {
        if fact.twin.is_some() && !keeps(&path) {
            let (path, aside) = (root.join(OsStr::from_bytes(&path)), root.join(".aside"));
            let copied = Command::new("cp").arg("-p").arg(&path).arg(&aside).status();
            assert!(copied.expect("cp").success());
            fs::rename(&aside, &path).expect("renamed");
        }
    }
}

/// Takes away symlinks that rsync follows out of the tree or around in circles; and those to nothing, which keep it from
/// deleting.
fn leave_plain_links(root: &Path, deletes: bool) {
    let root = root.canonicalize().expect("a root");
    for (path, _) in facts(&root).into_iter().filter(|(_, fact)| fact.kind == 'l') {
        let path = root.join(OsStr::from_bytes(&path));
        let target = fs::read_link(&path).expect("a target");
        let plain = match path.canonicalize() {
            Ok(there) if there.is_dir() => {
                let has_links = || facts(&there).into_values().any(|fact| fact.kind == 'l');
                there.starts_with(&root) && !path.starts_with(&there) && !has_links()
            }
            Ok(there) => there.starts_with(&root),
            Err(error) => !deletes && !target.is_absolute() && error.kind() == std::io::ErrorKind::NotFound,
        };
        if !plain {
            let dir = path.parent().expect("a directory");
            let time = fs::metadata(dir).and_then(|meta| meta.modified()).expect("a time");
            fs::remove_file(&path).expect("removed");
            fs::File::open(dir).and_then(|dir| dir.set_modified(time)).expect("the time as it was");
        }
    }
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

pub struct Scene {
    pub lab: Lab,
    origin: Machine,
    node: Node,
    client: Machine,
}

impl Scene {
    pub fn new() -> Self {
        let lab = Lab::new();
        let (origin, client) = (lab.machine("o"), lab.machine("c"));
        let node = origin.serve(&[]);
        Self { lab, origin, node, client }
    }

    fn publish(&self, dir: &Path, module: &str) -> String {
        let row = self.origin.json(&[&"publish", &dir, &"--module", &module, &"--first"]);
        row["reference"].as_str().expect("a reference").to_owned()
    }

    fn ours(&self, flags: &[String], reference: &str, sources: &[String], dest: &Path) -> std::process::Output {
        let links: Vec<String> =
            sources.iter().map(|at| self.node.link(&format!("{reference}/{}", quoted(at)))).collect();
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"rsync"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.extend(links.iter().map(|link| link as &dyn AsRef<OsStr>));
        words.push(&dest);
        self.client.command(&words).env("LC_ALL", "C.UTF-8").output().expect("murmir")
    }
}

/// A path in a reference.
fn quoted(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn theirs(flags: &[String], source: &Path, sources: &[String], dest: &Path) -> std::process::Output {
    // With -R the path below the root counts, as it does below a module.
    let from = sources.iter().map(|at| format!("{}/./{at}", source.display()));
    Command::new("rsync")
        .args(flags)
        .args(from)
        .arg(dest)
        .env("HOME", "/nonexistent")
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("rsync")
}

/// What is asked for: mostly the whole tree, else up to three places in it.
fn sources(random: &mut Random, new: &Path) -> Vec<String> {
    if !random.once_in(4) {
        return vec![String::new()];
    }
    let all: Vec<(Vec<u8>, Fact)> = facts(new).into_iter().collect();
    let place = |random: &mut Random| {
        if all.is_empty() || random.once_in(6) {
            return String::new();
        }
        let (path, fact) = random.pick(&all);
        let slash = if fact.kind == 'd' && random.once_in(2) { "/" } else { "" };
        String::from_utf8_lossy(path).into_owned() + slash
    };
    (0..1 + random.below(3)).map(|_| place(random)).collect()
}

fn show(one: &Outcome, other: &Outcome) -> String {
    let lines: Vec<_> = one.lines.difference(&other.lines).collect();
    let tree: Vec<_> = one.tree.iter().filter(|entry| !other.tree.contains(entry)).take(4).collect();
    format!("code {:?}, lines {lines:?}, tree {tree:?}", one.code)
}

/// One case.
pub struct Case {
    pub flags: Vec<String>,
    pub sources: Vec<String>,
    pub new: Tree,
    pub old: Tree,
}

impl Case {
    fn new(random: &mut Random, name: impl Fn(&str) -> PathBuf) -> Self {
        let (new, old, base) = (Tree::new(name("new")), Tree::new(name("old")), Tree::new(name("base")));
        fill(random, &new, "", 0);
        change(random, new.root(), &old);
        change(random, new.root(), &base);
        new.mtime(".", 1_000_000_000, 0);
        let mut flags =
            vec![if random.once_in(5) { "-rlpt" } else { "-a" }.to_owned(), "-c".to_owned(), "-i".to_owned()];
        for _ in 0..random.below(6) {
            let flag = random.pick::<&str>(&FLAGS).replace("BASE", &base.root().display().to_string());
            let is_when = |flag: &String| flag.starts_with("--delete-") && flag != "--delete-excluded";
            if is_when(&flag) && flags.iter().any(is_when) {
                continue;
            }
            if flag == "--backup-dir=.old" {
                // Else a later deletion takes the backups of an earlier one for the user's files, and backs them up.
                flags.push("--filter=P .old".to_owned());
            }
            flags.push(flag);
        }
        if random.once_in(8) {
            let list = name("list");
            let all: Vec<_> = facts(new.root()).into_keys().filter_map(|path| String::from_utf8(path).ok()).collect();
            let names = (0..1 + random.below(4)).map(|_| match random.below(6) {
                // rsync deletes nothing where a name is missing, or only what it came by before.
                0 if !flags.iter().any(|flag| flag.starts_with("--del")) => "no/such".to_owned(),
                _ if all.is_empty() => ".".to_owned(),
                _ => random.pick(&all).clone(),
            });
            fs::write(&list, names.collect::<Vec<_>>().join("\n")).expect("list");
            flags.push(format!("--files-from={}", list.display()));
        }
        // What happens to one name of a file here happens to the others, as rsync comes by; -H sees to those that the module
        // has too.
        let keeps = flags.iter().any(|flag| flag == "-H") && !flags.iter().any(|flag| flag.starts_with("--exclude"));
        part_names(old.root(), |path| keeps && new.path(OsStr::from_bytes(path)).is_file());
        if flags.iter().any(|flag| flag.starts_with("--compare-dest")) {
            // rsync takes away without a word what the other directory has as well: that is not done here.
            fs::remove_dir_all(old.root()).and_then(|()| fs::create_dir(old.root())).expect("an empty directory");
        }
        if flags.iter().any(|flag| flag == "-L" || flag == "-k") {
            let deletes = flags.iter().any(|flag| flag.starts_with("--del"));
            leave_plain_links(new.root(), deletes);
        }
        let is_list = flags.iter().any(|flag| flag.starts_with("--files-from"));
        let sources = if is_list { vec![String::new()] } else { sources(random, new.root()) };
        if flags.iter().any(|flag| flag.contains("-dest=")) {
            // rsync's link takes the place of a file without a backup, and names what stays by the other directory.
            flags.retain(|flag| {
                !["-b", "--backup", "-ii"].contains(&flag.as_str()) && !flag.starts_with("--backup-dir")
            });
        }
        // Where a file stands in the way of a directory, rsync itself does odd things with these.
        if changes_kinds(old.root(), new.root()) {
            flags.retain(|flag| !["--existing", "--ignore-existing", "-b", "--no-p"].contains(&flag.as_str()));
        }
        Self { flags, sources, new, old }
    }

    /// Runs both; the difference, if any.
    pub fn compare(&self, scene: &Scene, module: &str) -> Option<String> {
        let Self { flags, sources, new, old } = self;
        let copied = Tree::new(scene.lab.path(&format!("copy-{module}")));
        copy(old.root(), copied.root());
        let reference = scene.publish(new.root(), module);
        let run = scene.ours(flags, &reference, sources, copied.root());
        let errors = String::from_utf8_lossy(&run.stderr).into_owned();
        let times = !flags.iter().any(|flag| flag == "--no-t");
        let ours = outcome(run, copied.root(), times);
        let run = theirs(flags, new.root(), sources, old.root());
        let their_errors = String::from_utf8_lossy(&run.stderr).into_owned();
        let theirs = outcome(run, old.root(), times);
        (ours != theirs).then(|| {
            let (only_we, only_rsync) = (show(&ours, &theirs), show(&theirs, &ours));
            format!("{flags:?} {sources:?}\n  rsync {only_rsync}\n  ours  {only_we}\n  {errors}\n  {their_errors}")
        })
    }
}

#[test]
fn trees_lines_and_codes_are_rsyncs() {
    let scene = Scene::new();
    let (cases, mut failures) = (cases(50), Vec::new());
    for seed in first_seed()..first_seed() + cases as u64 {
        let case = Case::new(&mut Random::new(seed), |what| scene.lab.path(&format!("{what}{seed}")));
        if let Some(difference) = case.compare(&scene, &format!("m{seed}")) {
            // The same once more, to look at.
            let kept = std::env::temp_dir().join(format!("murmir-case-{seed}"));
            let _ = fs::remove_dir_all(&kept);
            Case::new(&mut Random::new(seed), |what| kept.join(what));
            failures.push(format!("seed {seed}, {}: {difference}", kept.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {cases}:\n{}", failures.len(), failures.join("\n"));
}
