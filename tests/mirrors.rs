//! Who mirrors a module, and by whose word: an origin probes what is claimed and signs a roster; mirrors keep it and tell it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cid::Cid;
use libp2p::{PeerId, StreamProtocol};
use murmir::manifest::ContentId;
use murmir::service::{Service, Settings};
use murmir::sync::shelf::Shelf;
use murmir::verbs::{Output, Verb, pass::Pass, perform};
use murmir::wire::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use murmir::wire::msg::{Held, Hello, Told};
use murmir::wire::server::{Limits, serve_stream};
use murmir::wire::{Deadlines, Have, PROTOCOL, PeerClient, Provider};
use serde_json::Value;
use tokio::runtime::Runtime;
use tracker_less::machine::Event;
use tracker_less::net::{self, DhtMode, Swarm};
use tracker_less::nominate::Profile;
use tracker_less::record::{CheckedBundle, CheckedNomination, Coverage, ModuleId, Nomination, SecretKey};

use crate::util::{Lab, Machine, Tree, assert_same, loopback, noise, until};

/// Probes come at once, their pauses double after failures, rosters gather for some seconds: on a busy machine this adds up.
const DEADLINE: Duration = Duration::from_secs(240);

/// The row of `peer` in `mirrors`, as `machine` sees it.
fn row(machine: &Machine, more: &[&str], reference: &str, peer: &str) -> Option<Value> {
    let words: Vec<&str> = ["--json"].into_iter().chain(more.iter().copied()).chain(["mirrors", reference]).collect();
    let words: Vec<&dyn AsRef<std::ffi::OsStr>> =
        words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>).collect();
    machine.run(&words).rows().into_iter().find(|row| row["peer_id"] == peer)
}

/// Looks for as long as rosters may take.
#[track_caller]
fn patiently(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_mirror_keeps_the_roster_and_leads_newcomers_when_the_origin_is_dead() {
    let lab = Lab::new();
    let (origin, mirror, tree) = (lab.machine("o"), lab.machine("m"), Tree::new(lab.path("tree")));
    tree.many(1, 40, 3000).file("large", noise(5, 1 << 20));
    let origin_node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let mirror_node = mirror.serve(&[&"--no-dht", &"--peer", &origin_node.address()]);
    mirror.ok(&[&"mirror", &published.reference, &lab.path("m-tree")]);
    let id = mirror_node.peer_id();
    patiently("the origin measures it", || {
        let row = row(&origin, &[], &published.reference, id);
        row.is_some_and(|row| row["by"] == "own" && row["rate"].as_u64() > Some(0) && row["lag_s"] == 0)
    });
    // One that holds a part is probed in that part, and listed with it.
    let part = lab.machine("part");
    let said = ["--region", "eu-north", "--contact", "ops@example.org"];
    let part_node =
        part.serve(&[&"--no-dht", &"--peer", &origin_node.address(), &said[0], &said[1], &said[2], &said[3]]);
    part.ok(&[&"mirror", &"--exclude", &"large", &published.reference, &lab.path("part-tree")]);
    patiently("the origin measures the part", || {
        let row = row(&origin, &[], &published.reference, part_node.peer_id());
        row.is_some_and(|row| {
            let said = (row["region"].as_str(), row["contact"].as_str()) == (Some("eu-north"), Some("ops@example.org"));
            said && row["by"] == "own" && row["failed"] == false && row["coverage"].as_f64() < Some(0.5)
        })
    });
    let own = row(&origin, &[], &published.reference, origin_node.peer_id()).expect("its own row");
    assert_eq!(own["role"], "origin");
    part_node.kill();
    let kept = mirror.state().join("modules");
    patiently("the mirror keeps the roster on its disk", || {
        let publishers = std::fs::read_dir(&kept).expect("modules").flatten();
        publishers.into_iter().any(|publisher| publisher.path().join("tree.rosters").exists())
    });
    origin_node.kill();
    let newcomer = lab.machine("c");
    let address = mirror_node.address().to_owned();
    let told = until("a newcomer hears of it from the mirror alone", || {
        row(&newcomer, &["--no-dht", "--peer", &address], &published.reference, id)
    });
    assert_eq!((&told["by"], &told["role"], &told["coverage"]), (&"tracker".into(), &"mirror".into(), &1.0.into()));
    // Of all ways in only the cached roster is left.
    let peers = newcomer.state().join("peers");
    if peers.exists() {
        std::fs::remove_file(peers).expect("the peer cache");
    }
    let (copy, plain) = (lab.path("copy"), lab.machine("p").serve(&[&"--no-dht"]));
    // Local addresses are dialled only beside a local connection: here to a node that knows nobody.
    newcomer.ok(&[&"--no-dht", &"--peer", &plain.address(), &"fetch", &published.reference, &copy]);
    assert_same(tree.root(), &copy);
}

/// Serves what an honest mirror has, and claims every newer generation as well.
struct Boaster {
    truth: Arc<Shelf>,
    newest: std::sync::Mutex<Option<CheckedBundle>>,
    boasts: AtomicBool,
}

impl Provider for Boaster {
    fn bundle(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.truth.bundle(module)
    }

    fn held(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.truth.held(module)
    }

    fn holds(&self, module: &ModuleId) -> Vec<Held> {
        let newest = self.newest.lock().expect("unbroken").clone();
        match newest.filter(|_| self.boasts.load(Ordering::SeqCst)) {
            Some(bundle) => {
                let at = bundle.generation();
                vec![Held { epoch: at.epoch, seq: at.seq, root: *bundle.root(), whole: true }]
            }
            None => self.truth.holds(module),
        }
    }

    fn nominations(&self, _: &ModuleId) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn page(&self, module: &ModuleId, cid: &Cid) -> Option<Vec<u8>> {
        self.truth.page(module, cid)
    }

    fn small(&self, module: &ModuleId, id: &Short, size: u64) -> Option<Vec<u8>> {
        self.truth.small(module, id, size)
    }

    fn range(&self, module: &ModuleId, id: &ContentId, size: u64, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
        self.truth.range(module, id, size, range)
    }

    fn page_patches(&self, module: &ModuleId, pages: &[(Short, Short)]) -> PagePatches {
        self.truth.page_patches(module, pages)
    }

    fn patches(&self, module: &ModuleId, pairs: &[Pair]) -> Made {
        self.truth.patches(module, pairs)
    }

    fn outboard(&self, module: &ModuleId, id: &ContentId, size: u64, start: u64) -> Option<Vec<u8>> {
        self.truth.outboard(module, id, size, start)
    }

    fn sums(&self, module: &ModuleId, part: &Part) -> Option<Vec<u8>> {
        self.truth.sums(module, part)
    }

    fn slices(&self, module: &ModuleId, parts: &[Lacking]) -> Made {
        self.truth.slices(module, parts)
    }

    fn have(&self, module: &ModuleId, root: &Cid) -> Have {
        self.truth.have(module, root)
    }

    fn heard(&self, _: PeerId, _: Vec<Vec<u8>>, _: Vec<Vec<u8>>) {}
}

/// A swarm of its own that serves `provider`.
async fn serve(provider: Arc<Boaster>, peer: &str) -> Swarm {
    let config = net::Config {
        key: SecretKey::from_seed([9; 32]),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
        external: Vec::new(),
        profile: Profile::default(),
        peers: vec![peer.parse().expect("address")],
        cached: Vec::new(),
        narrow: false,
        dht: DhtMode::Off,
        gossip: true,
        mdns: false,
        names: None,
        bulk: StreamProtocol::new(PROTOCOL),
        records: net::Saved::default(),
    };
    let (swarm, mut events, mut incoming) = net::start(config).await.expect("swarm");
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    tokio::spawn(async move {
        let limits = Limits::new(Deadlines::default());
        while let Some((peer, stream)) = incoming.recv().await {
            let (provider, limits) = (Arc::clone(&provider), limits.clone());
            tokio::spawn(async move { serve_stream(stream, peer, provider, limits).await });
        }
    });
    swarm
}

/// Mirrors `link` into `dest`, in a state of its own.
async fn pass(service: &Service, link: &str, dest: &std::path::Path) {
    let rules = murmir::sync::plan::Rules::archive();
    let (reference, dest) = (link.to_owned(), dest.to_owned());
    let wish = Pass { mirror: true, reference, dest, rules, ..Pass::default() };
    let (output, mut events) = Output::new();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    perform(service, Verb::Pass(Box::new(wish)), &output).await.expect("an honest copy");
}

#[test]
fn who_lacks_what_it_claims_leaves_the_roster_and_comes_back_with_it() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("tree")));
    tree.many(1, 30, 2000);
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let runtime = Runtime::new().expect("runtime");
    let settings =
        Settings { state: lab.path("boaster"), listen: vec![loopback()], serve: true, ..Settings::default() };
    let service = runtime.block_on(Service::start(settings)).expect("service");
    let dest = lab.path("boaster-tree");
    runtime.block_on(pass(&service, &published.link, &dest));
    let truth = Arc::clone(&service.node.shelf);
    let boaster = Arc::new(Boaster { truth, newest: std::sync::Mutex::default(), boasts: AtomicBool::new(false) });
    let swarm = runtime.block_on(serve(Arc::clone(&boaster), node.address()));
    let id = swarm.peer_id().to_string();
    let claim = |bundle: CheckedBundle| {
        let hold = Event::Hold { bundle, coverage: Coverage::WHOLE, http: Vec::new() };
        runtime.block_on(swarm.tell(hold));
    };
    let listed = || {
        let row = row(&client, &["--no-dht", "--peer", node.address()], &published.reference, &id);
        row.map(|row| (row["by"] == "tracker", row["seq"].as_u64().expect("a number")))
    };
    let first = boaster.truth.bundle(&module_of(&published.reference)).expect("the head");
    claim(first.clone());
    patiently("it is listed with what it holds", || listed() == Some((true, 1)));

    tree.many(2, 60, 2000);
    assert_eq!(origin.publish(tree.root()).seq, 2);
    let second = until("it hears of the second", || {
        runtime.block_on(swarm.newest(first.module())).filter(|newest| newest.generation().seq == 2)
    });
    *boaster.newest.lock().expect("unbroken") = Some(second.clone());
    boaster.boasts.store(true, Ordering::SeqCst);
    claim(second.clone());
    patiently("its claim is heard, and not believed", || listed() == Some((false, 2)));

    boaster.boasts.store(false, Ordering::SeqCst);
    runtime.block_on(pass(&service, &published.link, &dest));
    patiently("it is listed again with the second", || listed() == Some((true, 2)));

    // A word that lasts for seconds only: it goes without anybody's doing.
    let key = SecretKey::from_seed([10; 32]);
    let brief = key.public().peer_id().expect("an id").to_string();
    let now = murmir::sync::unix_now();
    let said = nomination(&second, now);
    runtime.block_on(tell(&swarm, &node, CheckedNomination::sign(&key, &said).expect("a nomination")));
    let seen = || row(&origin, &[], &published.reference, &brief).is_some();
    if murmir::sync::unix_now() + 5 < said.until {
        until("it is seen", || (seen() || murmir::sync::unix_now() >= said.until).then_some(()));
    }
    patiently("it is gone", || murmir::sync::unix_now() > said.until && !seen());
}

fn module_of(reference: &str) -> ModuleId {
    murmir::reference::Reference::parse(reference).expect("a reference").module.id
}

/// What a mirror at an address of no one says for twenty seconds.
fn nomination(bundle: &CheckedBundle, now: u64) -> Nomination {
    let at = bundle.generation();
    Nomination {
        module: bundle.module(),
        epoch: at.epoch,
        seq: at.seq,
        root: *bundle.root(),
        coverage: Coverage::WHOLE,
        addresses: Vec::new(),
        http: Vec::new(),
        rsync: Vec::new(),
        region: String::new(),
        contact: String::new(),
        issued: now,
        until: now + 20,
    }
}

/// Tells a node by hello.
async fn tell(swarm: &Swarm, node: &crate::util::Node, nomination: CheckedNomination) {
    let peer = node.peer_id().parse().expect("an id");
    let stream = swarm.open(peer).await.expect("a stream");
    let client = PeerClient::start(stream, Hello::ours(), Deadlines::default());
    let told = Told { bundle: None, nominations: vec![nomination.bytes().to_vec().into()] };
    client.head(nomination.nomination().module, None, Some(told), 0, 0).await.expect("an answer");
}
