//! Limits that the user sets on rates and waiting. Floors of time only: nothing here is a figure of speed.

use std::ffi::OsStr;
use std::time::Instant;

use crate::util::{Lab, Machine, Node, Proxy, Tree, assert_same, noise};

/// Bytes of the one large file.
const SIZE: usize = 600_000;

struct Scene {
    lab: Lab,
    tree: Tree,
    _origin: Machine,
    node: Node,
    reference: String,
}

impl Scene {
    fn new(serve: &[&str]) -> Self {
        Self::of(SIZE, serve)
    }

    fn of(size: usize, serve: &[&str]) -> Self {
        let lab = Lab::new();
        let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("t")));
        tree.file("small", noise(1, 20_000)).file("large", noise(2, size));
        let flags: Vec<&dyn AsRef<OsStr>> = serve.iter().map(|flag| flag as &dyn AsRef<OsStr>).collect();
        let node = origin.serve(&flags);
        let reference = origin.publish(tree.root()).reference;
        Self { lab, tree, _origin: origin, node, reference }
    }

    /// Seconds of a fetch by a machine that was never here.
    fn seconds(&self, name: &str, flags: &[&str]) -> f64 {
        let (machine, link, dest) =
            (self.lab.machine(name), self.node.link(&self.reference), self.lab.path(&format!("{name}-copy")));
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"fetch"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.extend([&link as &dyn AsRef<OsStr>, &dest]);
        let start = Instant::now();
        machine.json(&words);
        assert_same(self.tree.root(), &dest);
        start.elapsed().as_secs_f64()
    }
}

#[test]
fn a_rate_of_what_comes_in_is_kept() {
    let scene = Scene::new(&[]);
    // 620 KB, the first half second of which may come at once.
    for (name, flag) in [("both", "--bwlimit=300"), ("down", "--bwlimit=1:300"), ("alone", "--bwlimit=:300k")] {
        let seconds = scene.seconds(name, &[flag]);
        assert!(seconds > 0.4, "{flag}: {seconds} s");
    }
}

#[test]
fn a_node_sends_no_more_than_it_may_to_all_together() {
    let scene = Scene::new(&["--bwlimit=400:"]);
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(|| scene.seconds("one", &[])), scene.seconds("other", &[]));
        (one.join().expect("a fetch"), other)
    });
    // 1.2 MB in all, a second and a half of which may have been saved up.
    assert!(one.max(other) > 1.5, "{one} and {other} s");
}

#[test]
fn passes_of_a_node_keep_its_rate() {
    let scene = Scene::new(&[]);
    let (mirror, dest) = (scene.lab.machine("m"), scene.lab.path("m-copy"));
    let _node = mirror.serve(&["--bwlimit=:300"].map(|flag| flag).each_ref().map(|flag| flag as &dyn AsRef<OsStr>));
    let start = Instant::now();
    mirror.ok(&[&"mirror", &scene.node.link(&scene.reference), &dest]);
    assert_same(scene.tree.root(), &dest);
    assert!(start.elapsed().as_secs_f64() > 0.4);
}

#[test]
fn silence_ends_with_30_and_the_next_run_goes_on() {
    let scene = Scene::new(&[]);
    let (client, dest) = (scene.lab.machine("c"), scene.lab.path("copy"));
    let proxy = Proxy::start(scene.node.port());
    let peer = proxy.address(scene.node.address());
    proxy.hold_at(200_000);
    let words: [&dyn AsRef<OsStr>; 8] =
        [&"--no-dht", &"--peer", &peer, &"fetch", &"--timeout=2", &scene.reference, &dest, &"--no-delta"];
    let run = client.run(&words).expect(30);
    assert!(run.stderr.contains("io timeout after 2 seconds"), "{}", run.stderr);
    assert!(!dest.join("large").exists(), "nothing half is visible");
    proxy.hold_at(u64::MAX);
    client.ok(&words);
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn a_slow_pace_is_no_silence() {
    // After the first piece of a megabyte nothing is asked for, for longer than the silence that is borne.
    let scene = Scene::of(1_300_000, &[]);
    let seconds = scene.seconds("slow", &["--bwlimit=200", "--timeout=3"]);
    assert!(seconds > 4.0, "{seconds} s");
}
