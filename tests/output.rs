//! What `murmir rsync` prints, byte for byte beside the real rsync, which brings the same tree from a daemon. Figures of the line
//! itself (bytes sent, rates, times) are masked: those are nobody's to promise.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex_automata::dfa::regex::Regex;

use crate::util::{Daemon, Lab, Machine, Node, Tree, facts};

/// Where what stands differs from what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Nothing.
    Nothing,
    /// An older state.
    Old,
    /// The same.
    Same,
}

use Stands::{Nothing, Old, Same};

struct Scene {
    lab: Lab,
    tree: Tree,
    daemon: Daemon,
    _origin: Machine,
    _node: Node,
    client: Machine,
    reference: String,
}

fn output_of(mut command: Command) -> Output {
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output().expect("a run")
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
        tree.file("a", "a\n").file("b", "b\n").hard_link("hl", "b").file("empty", "").file("sub/f", "long text\n");
        tree.dir("zdir").hard_link("zdir/hl2", "sub/f").symlink("lnk", "a").file("sub/deep/x", "x\n");
        tree.odd(b"caf\xe9", "q")
            .file("\u{e9}t\u{e9}", "z")
            .file("we\\#012ird", "w")
            .file("sp ace", "s")
            .symlink("odd", "tar\nget");
        tree.file("many/1", "1")
            .hard_link("many/2", "many/1")
            .hard_link("sub/3", "many/1")
            .hard_link("zdir/4", "many/1");
        tree.file("big", "0123456789".repeat(130_000));
        settle(&tree);
        let node = origin.serve(&[]);
        let reference = node.link(&origin.publish(tree.root()).reference);
        let daemon = Daemon::start(&lab, tree.root(), "", "");
        Self { lab, tree, daemon, _origin: origin, _node: node, client, reference }
    }

    /// A home in which `dst` stands as told.
    fn home(&self, name: &str, stands: Stands) -> PathBuf {
        let home = self.lab.path(name);
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).expect("a home");
        if stands != Nothing {
            let dst = Tree::new(home.join("dst"));
            let copied = Command::new("cp").arg("-a").arg(self.tree.path(".")).arg(dst.root()).status();
            assert!(copied.expect("cp").success());
            if stands == Old {
                age(&dst);
            }
        }
        home
    }

    fn ours(&self, flags: &[&str], path: &str, dest: Option<&str>, home: &Path) -> Output {
        let reference = self.reference.replacen("/tree", &format!("/tree/{path}"), 1);
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"rsync"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.push(&reference);
        words.extend(dest.iter().map(|dest| dest as &dyn AsRef<OsStr>));
        let mut command = self.client.command(&words);
        command.current_dir(home);
        output_of(command)
    }

    fn theirs(&self, flags: &[&str], path: &str, dest: Option<&str>, home: &Path) -> Output {
        let mut command = Command::new("rsync");
        command.arg("--no-motd").arg(format!("--port={}", self.daemon.port())).args(flags);
        command.arg(format!("127.0.0.1::tree/{path}")).args(dest).current_dir(home);
        output_of(command)
    }
}

/// Times that anybody can repeat.
fn settle(tree: &Tree) {
    let all: Vec<_> = facts(tree.root()).into_keys().chain([b".".to_vec()]).collect();
    for path in all {
        let path = tree.root().join(std::os::unix::ffi::OsStrExt::from_bytes(path.as_slice()) as &OsStr);
        let touched = Command::new("touch").args(["-h", "-d", "@1000000000"]).arg(path).status();
        assert!(touched.expect("touch").success());
    }
}

/// An older state: attributes, contents, links and kinds that differ, and what is gone.
fn age(dst: &Tree) {
    dst.file("gone/sub/g", "g").file("gone2", "g").symlink("gonel", "x").file("b2", "B");
    dst.mode("a", 0o600).mtime("lnk", 1_100_000_000, 0).mtime("empty", 1_100_000_000, 0).mode("sub", 0o700);
    for name in ["sub/deep/x", "zdir/hl2", "big", "odd", "many/1", "many/2"] {
        fs::remove_file(dst.path(name)).expect("removed");
    }
    dst.file("sub/deep/x", "changed\n").file("zdir/hl2", "other\n").file("big", "9876543210").symlink("odd", "other");
    dst.file("many/2", "two").mtime("sub/deep", 1_100_000_000, 0).mode("many", 0o755);
    for name in ["gone/sub/g", "zdir/hl2", "sub/deep/x", "big", "many/2"] {
        dst.mtime(name, 1_100_000_000, 0);
    }
    dst.mtime("zdir", 1_100_000_000, 0).mtime("many", 1_000_000_000, 0).mtime(".", 1_100_000_000, 0);
}

/// Takes out what belongs to the line and to the clock.
fn masked(output: &[u8]) -> Vec<String> {
    const MASKS: [(&str, &str); 14] = [
        (
            r"sent [0-9.,KMG]+ bytes  received [0-9.,KMG]+ bytes  [0-9.,KMG]+ bytes/sec",
            "sent N, received N, N a second",
        ),
        (r"sent [0-9]+ bytes  received [0-9]+ bytes  total size", "sent N, received N, total size"),
        (r"speedup is [0-9.,KMG]+", "speedup is N"),
        (r"Literal data: [0-9.,KMG]+ bytes", "Literal data: N"),
        (r"Matched data: [0-9.,KMG]+ bytes", "Matched data: N"),
        (r"File list size: [0-9.,KMG]+", "File list size: N"),
        (r"Total bytes sent: [0-9.,KMG]+", "Total bytes sent: N"),
        (r"Total bytes received: [0-9.,KMG]+", "Total bytes received: N"),
        (r"File list generation time: [0-9.]+ seconds", "File list generation time: N"),
        (r"File list transfer time: [0-9.]+ seconds", "File list transfer time: N"),
        (r" +[0-9.]+[kMG]B/s +[0-9?]+:[0-9?][0-9?]:[0-9?][0-9?]", " RATE"),
        (r"[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9:]{8} \[[0-9]+\] ", "TIME "),
        // Of the order in which rsync's list grows: ours is another.
        (r"to-chk=[0-9]+/", "to-chk=N/"),
        // Between the beginning of a file and its end, as the clock has it.
        (r"\r *[1-9][0-9,]* +[0-9]{1,2}% RATE  \r", "\r"),
    ];
    let text = String::from_utf8_lossy(output).into_owned();
    let masked = MASKS.iter().fold(text, |text, (pattern, to)| replaced(&text, pattern, to));
    masked.split('\n').map(str::to_owned).collect()
}

fn replaced(text: &str, pattern: &str, to: &str) -> String {
    let regex = Regex::new(pattern).expect("an expression");
    let (mut out, mut last) = (String::new(), 0);
    for found in regex.find_iter(text) {
        out.push_str(&text[last..found.start()]);
        out.push_str(to);
        last = found.end();
    }
    out + &text[last..]
}

fn compare(what: &str, ours: &[String], theirs: &[String], failures: &mut Vec<String>) {
    if ours != theirs {
        let at = ours.iter().zip(theirs).take_while(|(one, other)| one == other).count();
        let show = |lines: &[String]| {
            lines.iter().skip(at).take(6).map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
        };
        failures.push(format!("{what}: from line {at} on rsync\n{}\n  ours\n{}", show(theirs), show(ours)));
    }
}

/// Flags, and what stands. All with -c: contents are what counts here.
const RUNS: [(&str, Stands); 45] = [
    ("-aHcv --delete-after --delay-updates", Old),
    ("-aHciv --delete-delay", Old),
    ("-aHcnv --delete-before", Old),
    ("-acvm --exclude=*.x", Nothing),
    ("-acv --no-inc-recursive", Nothing),
    ("-aHcv", Nothing),
    ("-aHcv", Same),
    ("-aHcv --delete", Old),
    ("-aHci", Nothing),
    ("-aHci --delete", Old),
    ("-aHcii --delete", Old),
    ("-aHcii", Same),
    ("-aHciv --delete", Old),
    ("-acv", Nothing),
    ("-rci", Old),
    ("-rlcv", Nothing),
    ("-rcv", Nothing),
    ("-aHcnv", Nothing),
    ("-aHcnv --delete", Old),
    ("-aHcni --delete", Old),
    ("-aHcq", Nothing),
    ("-aHciq --delete", Old),
    ("-aHcvq --stats --delete", Old),
    ("-aHcq --out-format=%n", Nothing),
    ("-aHc --stats", Nothing),
    ("-aHc --stats --delete", Old),
    ("-aHchv --stats", Nothing),
    ("-aHchhv --stats --delete", Old),
    ("-aHcv --no-h --stats", Nothing),
    ("-aHc --info=name", Old),
    ("-aHc --info=name0 -v", Old),
    ("-aHc --info=del --delete", Old),
    ("-aHc --info=stats", Same),
    ("-aHc --info=stats2,name", Nothing),
    ("-aHc --info=flist2", Nothing),
    ("-aHc --out-format=%n", Nothing),
    ("-aHc --out-format=%f --delete", Old),
    ("-aHc --delete --out-format=%o_%n", Old),
    ("-aHc --delete -ii --out-format=%n%L", Old),
    (
        "-aHcv --delete --out-format=[%i|%n|%f|%L|%l|%o|%M|%B|%a|%h|%m|%P|%u|%%|%10l|%-10l|%'l|%'10l|%q|%20n|%-20f|%10L|%-9i]",
        Old,
    ),
    ("-aHc --out-format=[%i|%n|%L|%l|%''l|%B]", Nothing),
    ("-aHc --progress", Nothing),
    ("-aHcv --progress --delete", Old),
    ("-aHcP", Nothing),
    ("-aHcv --max-size=100 --existing --delete", Old),
];

#[test]
fn lines_are_rsyncs() {
    let scene = Scene::new();
    let mut failures = Vec::new();
    for (line, stands) in RUNS {
        let flags: Vec<&str> = line.split(' ').collect();
        let (here, there) = (scene.home("here", stands), scene.home("there", stands));
        let ours = scene.ours(&flags, "", Some("dst"), &here);
        let theirs = scene.theirs(&flags, "", Some("dst"), &there);
        let errors = String::from_utf8_lossy(&ours.stderr).into_owned();
        assert_eq!(ours.status.code(), theirs.status.code(), "{line}: {errors}");
        compare(
            &format!("{line} where {stands:?} stands"),
            &masked(&ours.stdout),
            &masked(&theirs.stdout),
            &mut failures,
        );
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), RUNS.len(), failures.join("\n"));
}

#[test]
fn what_stays_is_told_of_where_that_is_wanted() {
    // rsync's processes each print some of these lines, in whatever order: they are compared as sets.
    let scene = Scene::new();
    let mut failures = Vec::new();
    for (line, stands) in
        [("-aHc --info=name2", Old), ("-aHc --info=name2 -v", Same), ("-aHc --info=name2 --out-format=%n", Old)]
    {
        let flags: Vec<&str> = line.split(' ').collect();
        let sorted = |output: &Output| {
            let mut lines = masked(&output.stdout);
            lines.sort();
            lines
        };
        let ours = scene.ours(&flags, "", Some("dst"), &scene.home("here", stands));
        let theirs = scene.theirs(&flags, "", Some("dst"), &scene.home("there", stands));
        compare(line, &sorted(&ours), &sorted(&theirs), &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_last_line_of_progress_is_rsyncs() {
    let scene = Scene::new();
    for (line, stands) in [("-aHc --info=progress2", Nothing), ("-aHc --info=progress2", Old)] {
        let flags: Vec<&str> = line.split(' ').collect();
        let last = |output: &Output| {
            let text = masked(&output.stdout).join("\n");
            text.trim_end().rsplit('\r').next().unwrap_or_default().trim().to_owned()
        };
        let ours = scene.ours(&flags, "", Some("dst"), &scene.home("here", stands));
        let theirs = scene.theirs(&flags, "", Some("dst"), &scene.home("there", stands));
        assert_eq!(last(&ours), last(&theirs), "{line} where {stands:?} stands");
    }
}

#[test]
fn lists_are_rsyncs() {
    let scene = Scene::new();
    let (home, mut failures) = (scene.home("here", Nothing), Vec::new());
    let lines = [
        "",
        "-r",
        "-rl",
        "-a",
        "-d",
        "-h",
        "-rhh",
        "-r --no-h",
        "-rq",
        "-v",
        "-rv",
        "-r --stats",
        "-rl --list-only -h --stats",
        "-ai --list-only",
        "-a --exclude=sub",
        "-r --include=*/ --include=*.x --exclude=*",
        "-aH --progress",
    ];
    for line in lines {
        let flags: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        for path in ["", "sub", "sub/", "a", "lnk"] {
            let ours = scene.ours(&flags, path, None, &home);
            let theirs = scene.theirs(&flags, path, None, &home);
            assert_eq!(ours.status.code(), theirs.status.code(), "{line} {path}");
            compare(&format!("{line} {path}"), &masked(&ours.stdout), &masked(&theirs.stdout), &mut failures);
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn log_files_are_rsyncs() {
    let scene = Scene::new();
    let mut failures = Vec::new();
    let lines = [
        "-aHc --delete",
        "-aHcv --delete",
        "-aHci --delete",
        "-aHcq --delete",
        "-aHcnv --delete",
        "-aHc --stats --delete",
        "-aHcii",
        "-ac --log-file-format=%n",
        "-ac --delete --log-file-format=%o_%n_%l",
    ];
    for line in lines {
        let mut flags: Vec<&str> = line.split(' ').collect();
        flags.push("--log-file=log");
        let (here, there) = (scene.home("here", Old), scene.home("there", Old));
        // The log of names that are not UTF-8 has their bytes in rsync, and rsync's own escapes here.
        for home in [&here, &there] {
            fs::write(home.join("dst").join(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9")), "q")
                .expect("the same");
        }
        flags.push("--exclude=caf*");
        scene.ours(&flags, "", Some("dst"), &here);
        scene.theirs(&flags, "", Some("dst"), &there);
        let log = |home: &Path| masked(&fs::read(home.join("log")).expect("a log"));
        compare(line, &log(&here), &log(&there), &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
