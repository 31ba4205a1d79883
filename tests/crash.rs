//! SIGKILL in mid-fetch: it goes on where it was, and nobody ever sees half a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::util::{Fact, Lab, Proxy, Tree, assert_same, facts, noise, scale, until};

/// How often the fetch is killed: `MURMIR_KILLS` (set by `.ci/sweep`), or what CI has time for.
fn kills() -> u64 {
    std::env::var("MURMIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// What a kill may cost in bytes that are fetched again (docs/SAFETY.md).
const COST: u64 = 8 << 20;

/// Looks at every visible file over and over while a fetch goes on.
struct Watch {
    end: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    fn start(source: &Path, dest: PathBuf) -> Self {
        let (end, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count, right) = (Arc::clone(&end), Arc::clone(&looks), facts(source));
        let thread = std::thread::spawn(move || {
            let mut torn = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                look(&dest, &dest, &right, &mut torn);
                count.fetch_add(1, Ordering::SeqCst);
            }
            torn
        });
        Self { end, looks, thread }
    }

    /// What was seen that should not have been.
    fn finish(self) -> Vec<String> {
        let looks = self.looks.load(Ordering::SeqCst);
        until("one more look", || (self.looks.load(Ordering::SeqCst) > looks).then_some(()));
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watch")
    }
}

/// Compares visible files; things may come and go meanwhile.
fn look(root: &Path, dir: &Path, right: &BTreeMap<Vec<u8>, Fact>, torn: &mut Vec<String>) {
    use std::os::unix::ffi::OsStrExt;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes();
        if name == b".murmir" {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            look(root, &path, right, torn);
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let known = right.get(name).is_some_and(|fact| fact.content == blake3::hash(&bytes).as_bytes());
        if !known && !torn.contains(&path.display().to_string()) {
            torn.push(path.display().to_string());
        }
    }
}

#[test]
fn kills_cost_little_and_tear_nothing() {
    let kills = kills();
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.many(1, 200, 20_000);
    for number in 0..6 * scale() as u64 {
        tree.file(format!("large/{number}"), noise(number, 5 << 20));
    }
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (proxy, dest) = (Proxy::start(node.port()), lab.path("copy"));
    let link = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    let watch = Watch::start(tree.root(), dest.clone());
    let moments = noise(u64::from(std::process::id()), kills as usize);
    for (kill, random) in (1..=kills).zip(moments) {
        // The line goes dead at a random point of the next tenth; then the fetch is killed, at rest or at work.
        let share = published.bytes / (kills + 1);
        let stop = proxy.down() + share * u64::from(random) / 256 + 10_000;
        proxy.hold_at(stop);
        let mut fetch = client.start(&[&"--no-dht", &"fetch", &link, &dest]);
        until("the fetch gets there", || (proxy.down() >= stop || !fetch.is_running()).then_some(()));
        assert!(fetch.is_running(), "kill {kill}: {:?}", fetch.finish());
        fetch.kill();
        proxy.hold_at(u64::MAX);
    }
    client.ok(&[&"--no-dht", &"fetch", &link, &dest]);
    assert_eq!(watch.finish(), Vec::<String>::new(), "files that were visible and not whole");
    assert_same(tree.root(), &dest);
    assert!(!dest.join(".murmir").exists());
    let (spent, bound) = (proxy.down(), published.bytes * 21 / 20 + kills * COST);
    assert!(spent <= bound, "{spent} bytes for a tree of {}", published.bytes);
    assert!(spent < published.bytes * 2, "what had arrived was used: {spent} of {}", published.bytes);
}

#[test]
fn an_update_switches_each_file_at_once() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.file("f", noise(1, 3 << 20));
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let dest = lab.path("copy");
    client.ok(&[&"fetch", &published.link, &dest]);
    let old = std::fs::read(tree.path("f")).unwrap();
    tree.file("f", noise(2, 3 << 20));
    let new = std::fs::read(tree.path("f")).unwrap();
    origin.publish(tree.root());
    let mut fetch = client.start(&[&"fetch", &published.link, &dest]);
    while fetch.is_running() {
        let seen = std::fs::read(dest.join("f")).expect("the path never vanishes");
        assert!(seen == old || seen == new, "neither the old nor the new file");
    }
    fetch.finish().expect(0);
    assert_eq!(std::fs::read(dest.join("f")).unwrap(), new);
}

#[test]
fn a_node_killed_with_sigkill_comes_back_with_all_it_had() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.sampler();
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    node.kill();
    let node = origin.serve(&[]);
    client.ok(&[&"fetch", &node.link(&published.reference), &lab.path("copy")]);
    assert_same(tree.root(), &lab.path("copy"));
    tree.file("more", "more");
    assert_eq!(origin.publish(tree.root()).seq, 2);
}
