//! A peer that lies, built from the public wire types, beside an honest one: the fetch completes, and blames the right one.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cid::Cid;
use libp2p::PeerId;
use murmir::manifest::ContentId;
use murmir::reference::Reference;
use murmir::service::{Service, Settings};
use murmir::sync::shelf::Shelf;
use murmir::verbs::{Output, Verb, pass::Pass, perform};
use murmir::wire::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use murmir::wire::msg::Held;
use murmir::wire::{Have, Provider};
use tokio::runtime::Runtime;
use tracker_less::record::{CheckedBundle, ModuleId};

use crate::util::{Lab, Tree, assert_same, loopback, noise, serve};

/// How it lies about bytes.
#[derive(Debug, Clone, Copy)]
enum Lie {
    Flip,
    Short,
    Long,
    /// Claims to hold what it does not give.
    Nothing,
    /// Flips bits of deltas only.
    Deltas,
}

/// Holds everything, and gives it away changed.
struct Liar {
    truth: Arc<Shelf>,
    lie: Lie,
    told: AtomicU64,
}

impl Liar {
    fn change(&self, bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut bytes = bytes?;
        self.told.fetch_add(1, Ordering::SeqCst);
        match self.lie {
            Lie::Flip | Lie::Deltas => {
                let middle = bytes.len() / 2;
                *bytes.get_mut(middle)? ^= 1;
            }
            Lie::Short => drop(bytes.pop()),
            Lie::Long => bytes.push(0),
            Lie::Nothing => return None,
        }
        Some(bytes)
    }

    /// What is no delta.
    fn change_bytes(&self, bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
        if matches!(self.lie, Lie::Deltas) { bytes } else { self.change(bytes) }
    }

    /// A frame, if there is one.
    fn change_made(&self, made: Made) -> Made {
        let frame = Some(made.frame).filter(|frame| !frame.is_empty());
        match self.change(frame) {
            Some(frame) => Made { frame, ..made },
            None => Made { slots: vec![None; made.slots.len()], frame: Vec::new() },
        }
    }
}

impl Provider for Liar {
    fn bundle(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.truth.bundle(module)
    }

    fn held(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.truth.held(module)
    }

    fn holds(&self, module: &ModuleId) -> Vec<Held> {
        self.truth.holds(module)
    }

    fn nominations(&self, module: &ModuleId) -> Vec<Vec<u8>> {
        self.truth.nominations(module)
    }

    fn page(&self, module: &ModuleId, cid: &Cid) -> Option<Vec<u8>> {
        self.change_bytes(self.truth.page(module, cid))
    }

    fn page_patches(&self, module: &ModuleId, pages: &[(Short, Short)]) -> PagePatches {
        let made = self.truth.page_patches(module, pages);
        match self.change_bytes(Some(made.frame).filter(|frame| !frame.is_empty())) {
            Some(frame) => PagePatches { frame, ..made },
            None => PagePatches { sizes: vec![None; made.sizes.len()], frame: Vec::new() },
        }
    }

    fn small(&self, module: &ModuleId, id: &Short, size: u64) -> Option<Vec<u8>> {
        self.change_bytes(self.truth.small(module, id, size))
    }

    fn range(&self, module: &ModuleId, id: &ContentId, size: u64, range: Range<u64>) -> Option<Vec<u8>> {
        self.change_bytes(self.truth.range(module, id, size, range))
    }

    fn patches(&self, module: &ModuleId, pairs: &[Pair]) -> Made {
        self.change_made(self.truth.patches(module, pairs))
    }

    fn outboard(&self, module: &ModuleId, id: &ContentId, size: u64, start: u64) -> Option<Vec<u8>> {
        self.change_bytes(self.truth.outboard(module, id, size, start))
    }

    fn sums(&self, module: &ModuleId, part: &Part) -> Option<Vec<u8>> {
        self.change(self.truth.sums(module, part))
    }

    fn slices(&self, module: &ModuleId, parts: &[Lacking]) -> Made {
        self.change_made(self.truth.slices(module, parts))
    }

    fn have(&self, module: &ModuleId, root: &Cid) -> Have {
        self.truth.have(module, root)
    }

    fn heard(&self, _: PeerId, _: Vec<Vec<u8>>, _: Vec<Vec<u8>>) {}
}

/// A running liar.
struct Stage {
    /// Whatever the liar runs on; ends with it.
    runtime: Runtime,
    mirror: Service,
    liar: Arc<Liar>,
    address: String,
}

/// Mirrors `link` honestly into `dest`, then serves it through a liar.
fn raise(lie: Lie, link: &str, state: &Path, dest: &Path) -> Stage {
    let runtime = Runtime::new().expect("runtime");
    let (mirror, liar, address) = runtime.block_on(async {
        let settings = Settings { state: state.to_owned(), listen: vec![loopback()], ..Settings::default() };
        let mirror = Service::start(settings).await.expect("mirror");
        copy(&mirror, link, dest).await;
        let liar = Arc::new(Liar { truth: Arc::clone(&mirror.node.shelf), lie, told: AtomicU64::new(0) });
        let address = serve(Arc::clone(&liar)).await;
        (mirror, liar, address)
    });
    Stage { runtime, mirror, liar, address }
}

/// One honest pass of a mirror.
async fn copy(mirror: &Service, link: &str, dest: &Path) {
    let wish = Pass {
        mirror: true,
        reference: link.to_owned(),
        dest: dest.to_owned(),
        rules: murmir::sync::plan::Rules::archive(),
        ..Pass::default()
    };
    let (output, mut events) = Output::new();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    perform(mirror, Verb::Pass(Box::new(wish)), &output).await.expect("an honest copy");
    // By hand: it is no lasting node, which others would find behind the liar's back.
    let module = Reference::parse(link).expect("a link").module;
    mirror.hold(&module).await.expect("its copy");
}

fn completes_beside(lie: Lie, is_blamed: bool) {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.many(1, 200, 6000).file("large", noise(3, 6 << 20));
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let stage = raise(lie, &published.link, &lab.path("liar"), &lab.path("liar-tree"));
    let (link, dest) = (format!("{}&peer={}", published.link, stage.address), lab.path("copy"));
    let done = client.json(&[&"--no-dht", &"fetch", &link, &dest]);
    assert_same(tree.root(), &dest);
    assert!(stage.liar.told.load(Ordering::SeqCst) > 0, "the liar was asked: {done}");
    let liar_id = stage.address.rsplit('/').next().expect("an id");
    for row in done["sources"].as_array().expect("rows") {
        let bad = row["bad"].as_u64().expect("a number");
        if row["peer_id"] == liar_id {
            assert!(!is_blamed || (1..=10).contains(&bad), "blamed, and not for long: {row}");
        } else {
            assert_eq!(bad, 0, "the honest one is not blamed: {row}");
        }
    }
}

#[test]
fn flipped_bits() {
    completes_beside(Lie::Flip, true);
}

#[test]
fn short_answers() {
    completes_beside(Lie::Short, true);
}

#[test]
fn long_answers() {
    completes_beside(Lie::Long, true);
}

#[test]
fn empty_promises() {
    completes_beside(Lie::Nothing, false);
}

/// A liar for benches/mirrors, which says whom it mirrors and where, and ends it by closing its input.
#[test]
#[ignore = "run by benches/mirrors"]
fn for_benches() {
    let told = |name: &str| std::env::var(name).expect("told by the bench");
    let (link, place) = (told("MURMIR_LIAR_LINK"), PathBuf::from(told("MURMIR_LIAR_PLACE")));
    let stage = raise(Lie::Flip, &link, &place.join("state"), &place.join("tree"));
    writeln!(io::stdout(), "liar {}", stage.address).expect("somebody listens");
    io::copy(&mut io::stdin(), &mut io::sink()).expect("an end");
}

#[test]
fn false_deltas() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    // What is superseded is kept up to a twentieth of the module.
    tree.many(1, 100, 6000).file("large", noise(3, 1_400_000)).file("ballast", noise(4, 50 << 20));
    let _node = origin.serve(&[]);
    let published = origin.publish(tree.root());
    let (liar_tree, dest) = (lab.path("liar-tree"), lab.path("copy"));
    let stage = raise(Lie::Deltas, &published.link, &lab.path("liar"), &liar_tree);
    client.ok(&[&"--no-dht", &"fetch", &published.link, &dest]);
    let changed = [noise(3, 700_000), b"something new".to_vec(), noise(5, 700_000)].concat();
    tree.many(2, 40, 6000).file("large", changed);
    origin.publish(tree.root());
    stage.runtime.block_on(copy(&stage.mirror, &published.link, &liar_tree));
    let link = format!("{}&peer={}", published.link, stage.address);
    let done = client.json(&[&"--no-dht", &"fetch", &"--delete", &"--force-delete", &link, &dest]);
    assert_same(tree.root(), &dest);
    assert!(stage.liar.told.load(Ordering::SeqCst) > 0, "the liar was asked: {done}");
    let liar_id = stage.address.rsplit('/').next().expect("an id");
    for row in done["sources"].as_array().expect("rows") {
        let bad = row["bad"].as_u64().expect("a number");
        assert_eq!(bad > 0, row["peer_id"] == liar_id, "the liar alone is blamed: {row}");
    }
}
