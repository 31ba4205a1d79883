//! rsync's own words for sources, and what stays guarded where rsync does the work.

use std::fs;

use crate::util::{Daemon, Lab, Machine, Node, Tree, assert_same, noise};

fn url(daemon: &Daemon) -> String {
    format!("rsync://127.0.0.1:{}/tree", daemon.port())
}

#[test]
fn an_origin_that_is_emptied_takes_nothing_from_a_replica() {
    let lab = Lab::new();
    let (client, tree, dest) = (lab.machine("c"), Tree::new(lab.path("t")), lab.path("replica"));
    tree.many(1, 200, 20);
    let daemon = Daemon::start(&lab, tree.root(), "Welcome.\n", "");
    let mirror = |more: &str| client.run(&[&"--no-dht", &"mirror", &more, &url(&daemon), &dest]);
    mirror("-q").expect(0);
    fs::remove_dir_all(tree.path("d000")).unwrap();
    mirror("-q").expect(0);
    assert!(!dest.join("d000").exists(), "a little may go");
    for number in 1..20 {
        fs::remove_dir_all(tree.path(format!("d{number:03}"))).unwrap();
    }
    let stopped = mirror("-q").expect(25);
    assert!(stopped.stderr.contains("entries would be deleted or replaced"), "{}", stopped.stderr);
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 20, "19 directories and ours");
    mirror("-n").expect(0);
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 20, "a dry run may say what would go");
    mirror("--force-delete").expect(0);
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 1, "said to be meant");
}

#[test]
fn programs_are_told_when_rsync_is_done() {
    let lab = Lab::new();
    let (client, tree) = (lab.machine("c"), Tree::new(lab.path("t")));
    tree.file("a", noise(1, 5000)).file("b", "text");
    let daemon = Daemon::start(&lab, tree.root(), "Welcome.\n", "");
    let done = client.json(&[&"--no-dht", &"fetch", &url(&daemon), &lab.path("copy")]);
    assert_eq!((done["event"].as_str(), done["transferred"].as_u64()), (Some("done"), Some(2)), "{done}");
    assert!(done["from"]["classic"].as_u64() > Some(5000), "{done}");
}

/// A tree in the swarm, and the daemon that leads there.
struct Scene {
    lab: Lab,
    tree: Tree,
    client: Machine,
    daemon: Daemon,
    _node: Node,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
        tree.file("dir/a1", "one")
            .file("dir/a2", "two")
            .file("dir/.a3", "hidden")
            .file("dir/b", "b")
            .file("other/a4", "4");
        tree.file("dir/deep/a5", "five")
            .file("top", "a file beside")
            .file("dir/b[1]", "as it is")
            .file("dir/b1", "alike");
        let node = origin.serve(&[]);
        let published = origin.publish(tree.root());
        let daemon = Daemon::start(&lab, tree.root(), &format!("murmir: {}\n", published.link), "");
        client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &"--no-classic", &url(&daemon), &lab.path("all")]);
        Self { lab, tree, client, daemon, _node: node }
    }

    /// The same by murmir and by rsync.
    fn both(&self, name: &str, sources: &[&str]) {
        let base = url(&self.daemon);
        let sources: Vec<String> = sources.iter().map(|source| format!("{base}/{source}")).collect();
        let [ours, theirs] = ["ours", "theirs"].map(|who| self.lab.path(&format!("{name}-{who}/")));
        let mut words = vec!["--no-dht".to_owned(), "rsync".into(), "-a".into(), "--no-classic".into()];
        words.extend(sources.iter().cloned());
        words.push(ours.display().to_string());
        let words: Vec<&dyn AsRef<std::ffi::OsStr>> = words.iter().map(|word| word as _).collect();
        self.client.ok(&words);
        let rsync = std::process::Command::new("rsync").arg("-a").args(&sources).arg(&theirs).output();
        let rsync = rsync.expect("rsync is installed");
        assert!(rsync.status.success(), "{name}: {}", String::from_utf8_lossy(&rsync.stderr));
        assert_same(&theirs, &ours);
    }
}

#[test]
fn sources_are_written_as_for_rsync() {
    let scene = Scene::new();
    for (name, sources) in [
        ("wildcard", &["dir/a*"][..]),
        ("wildcards on the way", &["*/a[14]"]),
        ("content of all that are alike", &["d*/"]),
        ("two slashes", &["dir//deep"]),
        ("a dot", &["./dir/./deep/"]),
        ("up again", &["dir/deep/../b"]),
        ("several", &["dir/a1", "other/a4", "dir/deep"]),
    ] {
        scene.both(name, sources);
    }
    let (literal, place) = (format!("{}/dir/b[1]", url(&scene.daemon)), scene.lab.path("literal"));
    scene.client.ok(&[&"--no-dht", &"fetch", &literal, &format!("{}/", place.display())]);
    assert!(place.join("b[1]").exists() && !place.join("b1").exists(), "a name that is there means itself");
    let none = [&"--no-dht" as &dyn AsRef<std::ffi::OsStr>, &"rsync", &"-a", &"--no-classic"];
    let nothing = format!("{}/dir/x*", url(&scene.daemon));
    scene.client.run(&[&none[..], &[&nothing, &scene.lab.path("x")]].concat()).expect(23);
    assert!(scene.tree.path("dir/b").exists());
}
