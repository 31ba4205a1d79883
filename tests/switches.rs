//! A generation switches consistently at a mirror: contents first, then late files that point at them, deletions last.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::util::{Lab, Tree, assert_same, scale, until};

/// Files that the index names, all of them others in each generation.
const FILES: usize = 20;

/// A generation: a pool of files, and an index that names them.
fn write(tree: &Tree, generation: usize) {
    let name = |generation: usize, file: usize| format!("pool/{generation}-{file}");
    for file in 0..FILES {
        tree.file(name(generation, file), format!("content {generation} {file}"));
        // There is none before the first.
        let _ = fs::remove_file(tree.path(name(generation.wrapping_sub(1), file)));
    }
    let names: Vec<String> = (0..FILES).map(|file| name(generation, file)).collect();
    tree.file("index", names.join("\n"));
}

/// Names in the index that are missing, although the index still names them afterwards.
fn missing(dest: &Path) -> Vec<String> {
    let index = || fs::read_to_string(dest.join("index")).expect("the index never vanishes");
    let before = index();
    let gone: Vec<String> = before.lines().filter(|name| !dest.join(name).exists()).map(str::to_owned).collect();
    if index() == before { gone } else { Vec::new() }
}

#[test]
fn an_index_never_names_a_missing_file() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    let node = origin.serve(&[]);
    write(&tree, 0);
    let published = origin.publish_with(tree.root(), &[&"--late", &"index"]);
    let (link, dest) = (node.link(&published.reference), lab.path("copy"));
    mirror.ok(&[&"mirror", &link, &dest]);
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let gone = missing(&dest);
                assert!(gone.is_empty(), "named and missing: {gone:?}");
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        for generation in 1..=5 * scale() {
            write(&tree, generation);
            origin.publish_with(tree.root(), &[&"--late", &"index"]);
            let before = looks.load(Ordering::SeqCst);
            mirror.ok(&[&"mirror", &link, &dest]);
            assert_same(tree.root(), &dest);
            until("the reader looks", || (reader.is_finished() || looks.load(Ordering::SeqCst) > before).then_some(()));
        }
        stop.store(true, Ordering::SeqCst);
        reader.join().expect("no index named a missing file");
    });
}
