//! Command lines that people have in their crontabs, and what reads their output.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use regex_automata::dfa::regex::Regex;

use crate::util::{Lab, Machine, Node, Tree, assert_same, facts, noise};

/// Flags of published mirror scripts, as they stand there.
const RECIPES: [(&str, &[&str]); 7] = [
    (
        "Debian's ftpsync, first stage",
        &[
            "-prltvHSB8192",
            "--safe-links",
            "--chmod=D755,F644",
            "--timeout",
            "120",
            "--stats",
            "--no-human-readable",
            "--no-inc-recursive",
            "--include=*.diff/",
            "--exclude=*.diff/Index",
            "--exclude=Packages*",
            "--exclude=Sources*",
            "--exclude=Release*",
            "--exclude=InRelease",
            "--include=i18n/by-hash",
            "--exclude=i18n/*",
            "--exclude=ls-lR*",
        ],
    ),
    (
        "Debian's ftpsync, second stage",
        &[
            "-prltvHSB8192",
            "--safe-links",
            "--chmod=D755,F644",
            "--timeout",
            "120",
            "--stats",
            "--no-human-readable",
            "--no-inc-recursive",
            "--max-delete=40000",
            "--delay-updates",
            "--delete",
            "--delete-delay",
            "--delete-excluded",
        ],
    ),
    (
        "Arch",
        &[
            "-rlptH",
            "--safe-links",
            "--delete-delay",
            "--delay-updates",
            "--timeout=600",
            "--contimeout=60",
            "--no-motd",
            "--quiet",
        ],
    ),
    ("CTAN", &["-av", "--delete"]),
    (
        "tunasync",
        &[
            "-aHvh",
            "--no-o",
            "--no-g",
            "--stats",
            "--filter",
            "risk .~tmp~/",
            "--exclude",
            ".~tmp~/",
            "--delete",
            "--delete-after",
            "--delay-updates",
            "--safe-links",
            "--timeout=120",
            "-4",
        ],
    ),
    ("quick-fedora-mirror", &["-aSH", "-f", "R .~tmp~", "--stats", "--delay-updates", "--out-format=@ %i %10l  %n%L"]),
    (
        "a home backup",
        &["-aC", "--delete", "--backup", "--backup-dir=.old", "--filter=P .old", "-m", "--max-size=1M", "-u"],
    ),
];

struct Scene {
    lab: Lab,
    tree: Tree,
    _origin: Machine,
    node: Node,
    client: Machine,
    reference: String,
}

impl Scene {
    /// A small archive with everything that the recipes name.
    fn new() -> Self {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
        tree.file("pool/main/a/a_1.deb", noise(1, 40_000)).file("pool/main/b/b_1.deb", noise(2, 400_000));
        tree.file("dists/sid/Release", "release")
            .file("dists/sid/InRelease", "inrelease")
            .file("dists/sid/main/Packages.gz", noise(3, 900));
        tree.file("dists/sid/main/x.diff/Index", "index")
            .file("dists/sid/i18n/Translation-en", "en")
            .file("ls-lR.gz", "list");
        tree.file(".~tmp~/junk", "junk")
            .file("core", "dump")
            .file("src/x.o", "object")
            .dir("empty")
            .file("doc/read me", "read me");
        tree.symlink("latest", "pool/main/b/b_1.deb")
            .symlink("out", "/etc/passwd")
            .hard_link("pool/twin.deb", "pool/main/a/a_1.deb");
        tree.mode("doc/read me", 0o600).mode("empty", 0o700);
        // rsync leaves times alone that differ by less than a second.
        for name in facts(tree.root()).into_keys().rev().chain([b".".to_vec()]) {
            tree.mtime(std::str::from_utf8(&name).expect("a text"), 1_000_000_000, 0);
        }
        let node = origin.serve(&[]);
        let reference = node.link(&origin.publish(tree.root()).reference);
        Self { lab, tree, _origin: origin, node, client, reference }
    }

    fn ours(&self, flags: &[&str], dest: &Path) -> Output {
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"rsync"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.extend([&self.reference as &dyn AsRef<OsStr>, &dest]);
        self.client.command(&words).output().expect("murmir")
    }

    fn theirs(&self, flags: &[&str], dest: &Path) -> Output {
        let mut from = self.tree.root().as_os_str().to_owned();
        from.push("/");
        // Without a daemon rsync refuses this one.
        let flags = flags.iter().filter(|flag| !flag.starts_with("--contimeout"));
        Command::new("rsync").args(flags).arg(from).arg(dest).env("TZ", "UTC").output().expect("rsync")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn published_recipes_run_as_they_are() {
    let scene = Scene::new();
    for (name, flags) in RECIPES {
        let (left, right) = (Tree::new(scene.lab.path("left")), Tree::new(scene.lab.path("right")));
        for old in [&left, &right] {
            old.file("gone/file", "gone").file("pool/main/a/a_1.deb", "old").file("dists/sid/Release", "old");
            old.mtime("gone/file", 900_000_000, 0).mtime("pool/main/a/a_1.deb", 900_000_000, 0).mtime(
                "dists/sid/Release",
                900_000_000,
                0,
            );
        }
        let (ours, theirs) = (scene.ours(flags, left.root()), scene.theirs(flags, right.root()));
        let errors = String::from_utf8_lossy(&ours.stderr);
        assert_eq!(ours.status.code(), theirs.status.code(), "{name}: {errors}");
        // What is made on the way has the time of the run, and so have the directories that hold it.
        let below =
            [".old/pool/main/a", ".old/pool/main", ".old/pool", ".old/dists/sid", ".old/dists", ".old/gone", ".old"];
        for made in below.into_iter().chain(["dists/sid/main", "dists/sid", "dists", "gone", "."]) {
            for tree in [&left, &right] {
                if tree.path(made).exists() {
                    tree.mtime(made, 1, 0);
                }
            }
        }
        assert_same(left.root(), right.root());
        fs::remove_dir_all(left.root()).expect("removed");
        fs::remove_dir_all(right.root()).expect("removed");
    }
}

#[test]
fn what_mirror_tools_read_is_there() {
    let scene = Scene::new();
    let dest = scene.lab.path("copy");
    let run = text(&scene.ours(&["-aHvh", "--stats"], &dest));
    // tunasync's expression for the size of a mirror.
    let size = Regex::new(r"^Total file size: ([0-9\.]+[KMGTP]?) bytes").expect("an expression");
    assert!(run.lines().any(|line| size.is_match(line)), "{run}");
    for line in ["receiving incremental file list", "pool/main/b/b_1.deb", "latest -> pool/main/b/b_1.deb"] {
        assert!(run.lines().any(|one| one == line), "{line} in {run}");
    }
    assert!(run.lines().any(|line| line.starts_with("sent ") && line.ends_with(" bytes/sec")), "{run}");
    assert!(run.lines().any(|line| line.starts_with("total size is ") && line.contains("  speedup is ")), "{run}");
    let list = |flags: &[&str]| {
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"rsync"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.push(&scene.reference);
        text(&scene.client.command(&words).env("TZ", "UTC").output().expect("list"))
    };
    // mirrorbits takes lines of files by this one, the size with its commas.
    let listed = Regex::new(r"^.+\s+([0-9,]+)\s+([0-9/]+)\s+([0-9:]+)\s+(.*)$").expect("an expression");
    let files = list(&["-r", "--no-motd", "--timeout=30", "--contimeout=30"]);
    assert!(files.lines().all(|line| listed.is_match(line)), "{files}");
    // MirrorManager and MirrorBrain cut lines in five words, however many blanks are between them, and read names to the end.
    let all = list(&["--no-motd", "--timeout=14400", "-r", "--exclude=.snapshot", "--exclude=*.~tmp~", "--no-h"]);
    let mut names = 0;
    for line in all.lines() {
        let mut rest = line;
        let [mode, size, date, time] = [(); 4].map(|()| {
            let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = more.trim_start();
            word
        });
        assert!(mode.len() == 10 && size.parse::<u64>().is_ok(), "{line}");
        assert!(date.split('/').count() == 3 && time.split(':').count() == 3, "{line}");
        names += usize::from(rest == "doc/read me" || rest == ".");
    }
    assert_eq!(names, 2, "{all}");
}

#[test]
fn stats_count_as_rsync_counts() {
    let scene = Scene::new();
    let (left, right) = (Tree::new(scene.lab.path("left")), Tree::new(scene.lab.path("right")));
    for old in [&left, &right] {
        old.file("gone/file", "gone").file("core", "older");
    }
    let flags = ["-a", "--stats", "--delete", "-c"];
    let (ours, theirs) = (text(&scene.ours(&flags, left.root())), text(&scene.theirs(&flags, right.root())));
    for line in theirs.lines().filter(|line| line.starts_with("Number of") || line.starts_with("Total file size")) {
        assert!(ours.lines().any(|one| one == line), "{line} in {ours}");
    }
}

#[test]
fn cron_hears_nothing_but_failures() {
    let scene = Scene::new();
    let dest = scene.lab.path("copy");
    let run = scene.client.ok(&[&"fetch", &scene.reference, &dest]);
    assert_eq!(run.text(), "");
    let failed = scene.client.run(&[
        &"fetch",
        &"--contimeout=5",
        &"murmir://k51qzi5uqu5dips0khg63h0ys1c5r0yemjk8o9u4d2zpek1a3dxfwgejao5uuf/no",
        &dest,
    ]);
    let code = failed.code;
    assert!([10, 35, 40].contains(&code), "{code}");
    let last = failed.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("murmir error: ") && last.ends_with(&format!("(code {code})")), "{last}");
}

#[test]
fn explain_says_what_each_flag_does_here() {
    let scene = Scene::new();
    let run = scene.client.ok(&[&"rsync", &"--explain", &"-az", &"--delete-before", &"host::m/", &"y"]);
    for flag in ["-a (--archive): -rlpt", "--delete-before: deletes what", "-z (--compress): of no effect: answers are"]
    {
        assert!(run.lines().iter().any(|line| line.starts_with(flag)), "{flag} in {}", run.text());
    }
}

#[test]
fn names_from_a_list_come_whole_or_are_missed() {
    let scene = Scene::new();
    let (list, left, right) = (scene.lab.path("list"), scene.lab.path("left"), scene.lab.path("right"));
    fs::write(&list, "# names\ndoc/read me\npool/main/a\n/core\n").expect("list");
    let from = format!("--files-from={}", list.display());
    let (ours, theirs) = (scene.ours(&["-a", &from], &left), scene.theirs(&["-a", &from], &right));
    assert_eq!((ours.status.code(), theirs.status.code()), (Some(0), Some(0)));
    assert_same(&left, &right);
    fs::write(&list, "core\nno/such\n").expect("list");
    let ours = scene.ours(&["-a", &from], &left);
    let errors = String::from_utf8_lossy(&ours.stderr);
    assert!(ours.status.code() == Some(23) && errors.contains("no/such"), "{errors}");
}

#[test]
fn looking_around_in_a_module() {
    let scene = Scene::new();
    let reference = &scene.reference;
    let found = scene.client.ok(&[&"find", reference, &"*.deb"]);
    assert_eq!(found.lines(), ["pool/main/a/a_1.deb", "pool/main/b/b_1.deb", "pool/twin.deb"]);
    let found = scene.client.ok(&[&"find", reference, &"--regex", &r"^pool/.*/b_\d\.deb$"]);
    assert_eq!(found.lines(), ["pool/main/b/b_1.deb"]);
    let found = scene.client.ok(&[&"find", reference, &"--min-size=300K"]);
    assert_eq!(found.lines(), ["pool/main/b/b_1.deb"]);
    let log = scene.client.json(&[&"log", reference]);
    assert_eq!((log["seq"].as_u64(), log["holders"].as_u64()), (Some(1), Some(1)), "{log}");
    let other = Tree::new(scene.lab.path("other"));
    let copied = Command::new("cp").arg("-a").arg(scene.tree.path(".")).arg(other.root()).status();
    assert!(copied.expect("cp").success());
    assert_eq!(scene.client.ok(&[&"diff", reference, &other.root()]).text(), "");
    fs::remove_file(other.path("core")).expect("removed");
    other.file("ls-lR.gz", "another list").mtime(".", 1_000_000_000, 0);
    let lines = scene.client.ok(&[&"diff", reference, &other.root()]).lines();
    assert!(lines.contains(&"*deleting   core".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with(">fcst") && line.ends_with(" ls-lR.gz")), "{lines:?}");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(scene.node.port() > 0);
}

#[test]
fn the_manual_and_completions_print() {
    let lab = Lab::new();
    let machine = lab.machine("m");
    assert!(machine.ok(&[&"man"]).text().contains("COMING FROM RSYNC"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(machine.ok(&[&"completions", &shell]).text().contains("murmir"), "{shell}");
    }
}

#[test]
fn basis_directories_spare_what_they_hold() {
    let scene = Scene::new();
    let yesterday = scene.lab.path("yesterday");
    scene.ours(&["-aH"], &yesterday);
    fs::write(yesterday.join("core"), "other").expect("changed");
    for flag in ["--link-dest", "--copy-dest", "--compare-dest"] {
        let (left, right) = (scene.lab.path("left"), scene.lab.path("right"));
        let option = format!("{flag}={}", yesterday.display());
        let (ours, theirs) = (scene.ours(&["-aHci", &option], &left), scene.theirs(&["-aHci", &option], &right));
        assert_eq!((ours.status.code(), theirs.status.code()), (Some(0), Some(0)), "{flag}");
        assert_same(&left, &right);
        if flag == "--link-dest" {
            use std::os::unix::fs::MetadataExt;
            let inode = |path: &Path| fs::metadata(path.join("pool/main/b/b_1.deb")).expect("stat").ino();
            assert_eq!(inode(&left), inode(&yesterday));
            let brought: Vec<String> =
                text(&ours).lines().filter(|line| line.starts_with(">f")).map(str::to_owned).collect();
            // Told against yesterday's, as by rsync.
            assert_eq!(brought, [">fcst...... core"]);
        }
        fs::remove_dir_all(&left).expect("removed");
        fs::remove_dir_all(&right).expect("removed");
    }
}

#[test]
fn a_rate_is_kept_and_a_time_limit_stops_without_harm() {
    let scene = Scene::new();
    let dest = scene.lab.path("copy");
    let done = scene.client.json(&[&"fetch", &"--bwlimit=200", &scene.reference, &dest]);
    let seconds = done["seconds"].as_f64().expect("seconds");
    // 441 KB at 200 KiB/s: a floor, not a figure of speed.
    assert!(seconds > 0.3, "{done}");
    let late = scene.lab.path("late");
    scene.client.run(&[&"fetch", &"--bwlimit=1", &"--stop-at=2000-01-01T00:00", &scene.reference, &late]).expect(1);
    let stopped = scene.client.run(&[&"fetch", &"--bwlimit=1", &"--stop-after=0", &scene.reference, &late]).expect(30);
    assert!(stopped.stderr.contains("stopping at requested limit"), "{}", stopped.stderr);
    scene.client.ok(&[&"fetch", &scene.reference, &late]);
    assert_same(scene.tree.root(), &late);
}
