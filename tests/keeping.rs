//! What a mirror keeps of former generations, for how long, and when it claims to hold one.

use std::sync::Arc;

use murmir::service::{Service, Settings};
use murmir::sync::sweep;
use murmir::verbs::{Output, Verb, pass::Pass, perform};
use tokio::runtime::Runtime;

use crate::util::{Lab, Proxy, Tree, assert_same, loopback, noise, until};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

async fn mirror(service: &Service, link: &str, dest: &std::path::Path) {
    let rules = murmir::sync::plan::Rules { delete: true, ..murmir::sync::plan::Rules::archive() };
    let (reference, dest) = (link.to_owned(), dest.to_owned());
    let wish = Pass { mirror: true, reference, dest, rules, ..Pass::default() };
    let (output, mut events) = Output::new();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    perform(service, Verb::Pass(Box::new(wish)), &output).await.expect("a pass");
}

#[test]
fn superseded_files_pages_and_outboards_go_after_a_day() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.many(1, 100, 5000).file("large", noise(2, 300_000)).file("dir/small", "first");
    let node = origin.serve(&[]);
    let first = origin.publish(tree.root());
    let (runtime, dest) = (Runtime::new().expect("runtime"), lab.path("m-tree"));
    let settings = Settings { state: lab.path("m"), listen: vec![loopback()], serve: true, ..Settings::default() };
    let service = runtime.block_on(Service::start(settings)).expect("a node");
    runtime.block_on(mirror(&service, &first.link, &dest));
    tree.file("dir/small", "second");
    let second = origin.publish(tree.root());
    runtime.block_on(mirror(&service, &second.link, &dest));
    let outboards = dest.join(".murmir/outboards");
    std::fs::write(outboards.join(format!("{}.obao", "0".repeat(64))), "of nothing").unwrap();

    let holding = || service.node.shelf.holdings().pop().expect("a replica");
    let kept = || holding().ground.stage.as_ref().expect("a stage").kept_total();
    let page = |root: &str| service.node.index.page(&root.parse().expect("a CID")).expect("the index").is_some();
    let now = murmir::sync::unix_now();
    assert_eq!(kept(), (1, 5), "the old version of a file");
    sweep::superseded(&service.node, now + DAY - 60).unwrap();
    assert_eq!(kept().0, 1, "before its time");
    sweep::superseded(&service.node, now + DAY + 60).unwrap();
    assert_eq!(kept(), (0, 0));

    assert!(page(&first.root), "the pages of both are here");
    for _ in 0..3 {
        sweep::forgotten(&service.node, now + DAY + 60).unwrap();
    }
    assert!(!page(&first.root), "nobody needs it");
    assert_eq!(std::fs::read_dir(&outboards).unwrap().count(), 1, "that of the large file");
    // What is held is served as before, and can be loaded anew.
    node.kill();
    let address = runtime.block_on(service.addresses()).remove(0);
    client.ok(&[&"--no-dht", &"fetch", &format!("{}?peer={address}", second.reference), &lab.path("copy")]);
    assert_same(tree.root(), &lab.path("copy"));
    let shelf = Arc::clone(&service.node.shelf);
    let module = holding().bundle.module();
    shelf.remove(&module);
    let reference = murmir::sync::ModuleRef::of(&node_bundle(&service));
    runtime.block_on(service.hold(&reference)).unwrap();
    assert!(shelf.holding(&module).is_some_and(|holding| holding.is_whole()));
}

fn node_bundle(service: &Service) -> tracker_less::record::CheckedBundle {
    let (publisher, name) = service.node.state.registered().unwrap().remove(0);
    let held = service.node.state.module(&publisher, &name).unwrap().held().unwrap().expect("a bundle");
    tracker_less::record::CheckedBundle::verify(&held).unwrap()
}

#[test]
fn who_ends_after_its_pass_claims_to_hold_nothing() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.many(1, 10, 500);
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let runtime = Runtime::new().expect("runtime");
    for serve in [false, true] {
        let (state, dest) = (lab.path(&format!("state-{serve}")), lab.path(&format!("copy-{serve}")));
        let settings = Settings { state, listen: vec![loopback()], serve, ..Settings::default() };
        let service = runtime.block_on(Service::start(settings)).expect("a node");
        runtime.block_on(mirror(&service, &published.link, &dest));
        assert_same(tree.root(), &dest);
        assert_eq!(!service.node.shelf.holdings().is_empty(), serve);
        runtime.block_on(service.stop());
    }
}

#[test]
fn what_a_run_that_was_cut_off_had_brought_goes_with_the_next_whole_one() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.many(1, 300, 20_000).file("large", noise(2, 4 << 20));
    let node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (proxy, dest) = (Proxy::start(node.port()), lab.path("m-tree"));
    let slow = format!("{}?peer={}", published.reference, proxy.address(node.address()));
    let staged = || std::fs::read_dir(dest.join(".murmir/stage")).map_or(0, Iterator::count);
    proxy.hold_at(3 << 20);
    let cut_off = mirror.start(&[&"--no-dht", &"mirror", &slow, &dest]);
    until("something is staged", || (staged() > 0).then_some(()));
    drop(cut_off);
    std::fs::remove_dir_all(tree.root()).unwrap();
    tree.file("other", "tree");
    let next = origin.publish_with(tree.root(), &[&"--allow-shrink"]);
    assert!(staged() > 0, "kept for a run that goes on");
    mirror.ok(&[&"--no-dht", &"mirror", &node.link(&next.reference), &dest]);
    assert_same(tree.root(), &dest);
    assert_eq!(staged(), 0);
}

#[test]
fn a_backup_that_was_made_stays_whatever_fails_afterwards() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.file("at", "a file");
    let node = origin.serve(&[]);
    let link = node.link(&origin.publish(tree.root()).reference);
    let dest = lab.path("copy");
    std::fs::create_dir_all(dest.join("at")).unwrap();
    std::fs::write(dest.join("at/precious"), "x").unwrap();
    client.run(&[&"fetch", &"--adopt", &"--delete", &"-b", &link, &dest]).expect(23);
    assert_eq!(std::fs::read(dest.join("at/precious~")).unwrap(), b"x");
}
