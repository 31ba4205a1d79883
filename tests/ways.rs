//! Ways into the swarm: whichever of them fails, the others lead a newcomer to the tree. A dozen nodes in this process.

use std::path::{Path, PathBuf};

use libp2p::Multiaddr;
use murmir::reference::Reference;
use murmir::service::{Service, Settings};
use murmir::sync::plan::Rules;
use murmir::verbs::inspect::Target;
use murmir::verbs::pass::Pass;
use murmir::verbs::{Output, Verb, perform};
use murmir::wire::Provider;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::util::{Lab, Published, Tree, assert_same, free_port, name_server, until};

/// Nodes that hold nothing, and mirrors: twelve with the origin.
const PLAIN: usize = 2;
const MIRRORS: usize = 9;

/// What of the swarm works.
#[derive(Clone, Copy)]
struct Weather {
    dht: bool,
    gossip: bool,
}

const FINE: Weather = Weather { dht: true, gossip: true };

/// Twelve nodes, and who lives on.
struct Town {
    runtime: Runtime,
    lab: Lab,
    tree: Tree,
    published: Published,
    weather: Weather,
    plain: Vec<Service>,
    origin: Option<Service>,
    mirrors: Vec<Service>,
}

impl Town {
    fn new(weather: Weather) -> Self {
        let runtime = Runtime::new().unwrap();
        let lab = Lab::new();
        let tree = Tree::new(lab.path("tree"));
        tree.many(1, 60, 4 << 10).sampler();
        let origin = lab.machine("origin");
        let published = origin.publish(tree.root());
        let mut town = Self { runtime, lab, tree, published, weather, plain: vec![], origin: None, mirrors: vec![] };
        for number in 0..PLAIN {
            let known = town.plain.iter().map(|node| town.address(node)).collect();
            let node = town.serve(&format!("plain{number}"), known);
            town.plain.push(node);
        }
        let ways: Vec<Multiaddr> = town.plain.iter().map(|node| town.address(node)).collect();
        let origin = town.start(origin.state(), true, &ways, &[]);
        let way = town.address(&origin);
        town.origin = Some(origin);
        for number in 0..MIRRORS {
            // Each begins at another node of the town, or at the origin where plain nodes cannot lead to it.
            let known = if weather.dht { ways[number % PLAIN].clone() } else { way.clone() };
            let node = town.serve(&format!("mirror{number}"), vec![known]);
            town.pass(&node, true, &format!("mirror{number}-tree")).unwrap();
            town.mirrors.push(node);
        }
        town
    }

    fn start(&self, state: PathBuf, serve: bool, peers: &[Multiaddr], bootstrap: &[Multiaddr]) -> Service {
        let settings = Settings {
            state,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            peers: peers.to_vec(),
            bootstrap: bootstrap.to_vec(),
            dht: self.weather.dht,
            no_gossip: !self.weather.gossip,
            serve,
            ..Settings::default()
        };
        self.runtime.block_on(Service::start(settings)).unwrap()
    }

    fn serve(&self, name: &str, peers: Vec<Multiaddr>) -> Service {
        self.start(self.lab.machine(name).state(), true, &peers, &[])
    }

    /// A command of a machine that may have been here before.
    fn visit(&self, name: &str, peers: &[Multiaddr], bootstrap: &[Multiaddr], dest: &str) -> Result<Value, String> {
        let node = self.start(self.lab.machine(name).state(), false, peers, bootstrap);
        let done = self.pass(&node, false, dest);
        self.stop(node);
        done
    }

    fn pass(&self, node: &Service, mirror: bool, dest: &str) -> Result<Value, String> {
        let request = Pass {
            mirror,
            reference: self.published.reference.clone(),
            dest: self.lab.path(dest),
            rules: Rules { delete: mirror, ..Rules::archive() },
            ..Pass::default()
        };
        self.runtime.block_on(perform_quietly(node, Verb::Pass(Box::new(request))))
    }

    fn stop(&self, node: Service) {
        self.runtime.block_on(async {
            node.stop().await;
            drop(node);
        });
    }

    fn stop_origin(&mut self) {
        let origin = self.origin.take().unwrap();
        self.stop(origin);
    }

    fn address(&self, node: &Service) -> Multiaddr {
        self.runtime.block_on(node.addresses()).pop().unwrap().parse().unwrap()
    }

    fn assert_came(&self, dest: &str) {
        assert_same(self.tree.root(), Path::new(&self.lab.path(dest)));
    }

    /// How many mirrors a node knows by their own word.
    fn known_mirrors(&self, node: &Service) -> usize {
        let module = Reference::parse(&self.published.reference).unwrap().module.id;
        self.runtime.block_on(node.node.swarm.mirrors(module)).len()
    }

    /// Waits until the first mirror has heard of all others, and has it for those who ask.
    fn wait_for_nominations(&self) {
        let module = Reference::parse(&self.published.reference).unwrap().module.id;
        until("the mirrors hear of each other", || {
            let shared = self.mirrors[0].node.shelf.nominations(&module).len();
            (self.known_mirrors(&self.mirrors[0]) >= MIRRORS && shared >= MIRRORS).then_some(())
        });
    }
}

async fn perform_quietly(node: &Service, verb: Verb) -> Result<Value, String> {
    let (out, mut events) = Output::new();
    let work = async move {
        let done = perform(node, verb, &out).await;
        drop(out);
        done
    };
    let drain = async { while events.recv().await.is_some() {} };
    let done = tokio::join!(work, drain).0;
    done.map_err(|failure| format!("{failure} {}", failure.hint.as_deref().unwrap_or_default()))
}

fn peers_of(done: &Value) -> Vec<String> {
    let rows = done["sources"].as_array().unwrap();
    let gave = rows.iter().filter(|row| row["received"].as_u64().unwrap_or(0) > 0);
    gave.filter_map(|row| row["peer_id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_origin_dies_and_then_every_way_in_and_the_cache_still_leads_there() {
    let mut town = Town::new(FINE);
    let ways: Vec<Multiaddr> = town.plain.iter().map(|node| town.address(node)).collect();
    town.visit("early", &[], &ways[..1], "early-tree").unwrap();
    town.stop_origin();
    town.visit("late", &[], &ways[1..], "late-tree").unwrap();
    town.assert_came("late-tree");
    // A way in is remembered: it need not be named again.
    town.visit("late", &[], &[], "late-again").unwrap();
    town.assert_came("late-again");
    for node in std::mem::take(&mut town.plain) {
        town.stop(node);
    }
    town.visit("early", &[], &[], "early-again").unwrap();
    town.assert_came("early-again");
    let failure = town.visit("stranger", &[], &ways, "nothing").unwrap_err();
    assert!(failure.contains("(code 10)"), "{failure}");
    assert!(ways.iter().all(|way| failure.contains(&way.to_string())), "what was tried: {failure}");
}

#[test]
fn without_the_dht_one_mirror_leads_to_the_others() {
    let mut town = Town::new(Weather { dht: false, ..FINE });
    town.wait_for_nominations();
    town.stop_origin();
    let first = town.mirrors.remove(0);
    let way = town.address(&first);
    let newcomer = town.start(town.lab.machine("newcomer").state(), false, &[way], &[]);
    let ask = || perform_quietly(&newcomer, Verb::Mirrors(Target { reference: town.published.reference.clone() }));
    town.runtime.block_on(ask()).unwrap();
    assert!(town.known_mirrors(&newcomer) >= MIRRORS, "told by hello");
    town.stop(first);
    town.pass(&newcomer, false, "tree-of-newcomer").unwrap();
    town.assert_came("tree-of-newcomer");
    town.stop(newcomer);
}

#[test]
fn without_gossip_the_dht_leads_to_the_mirrors() {
    let mut town = Town::new(Weather { gossip: false, ..FINE });
    let ways: Vec<Multiaddr> = town.plain.iter().map(|node| town.address(node)).collect();
    town.stop_origin();
    let done = town.visit("newcomer", &ways[..1], &[], "tree-of-newcomer").unwrap();
    town.assert_came("tree-of-newcomer");
    assert!(!peers_of(&done).is_empty());
}

#[test]
fn a_name_in_dns_leads_there() {
    let lab = Lab::new();
    let (origin, tree) = (lab.machine("o"), Tree::new(lab.path("tree")));
    tree.sampler();
    let node = origin.serve(&[&"--no-dht"]);
    let published = origin.publish(tree.root());
    let here = format!("dnsaddr={}", node.address());
    let gone = format!("dnsaddr=/ip4/127.0.0.1/tcp/{}/p2p/{}", free_port(), node.peer_id());
    let further = format!("dnsaddr=/dnsaddr/ways.test/p2p/{}", node.peer_id());
    let names = name_server(&[
        ("_dnsaddr.ways.test.", &["v=spf1 -all", "dnsaddr=", "dnsaddr=nonsense", &here, &gone]),
        ("_dnsaddr.further.test.", &[&further]),
    ]);
    let ask = |name: &str, way: &str| {
        let machine = lab.machine(name);
        let (names, dest) = (names.to_string(), lab.path(&format!("{name}-tree")));
        let words = ["--name-server", &names, "--no-dht", "--peer", way, "fetch", &published.reference];
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = words.iter().map(|word| word as _).collect();
        words.push(&dest);
        (machine.run(&words), dest)
    };
    let way = format!("/dnsaddr/further.test/p2p/{}", node.peer_id());
    for (name, way) in [("one", "/dnsaddr/ways.test"), ("two", way.as_str())] {
        let (run, dest) = ask(name, way);
        run.expect(0);
        assert_same(tree.root(), &dest);
    }
    let (run, _) = ask("three", "/dnsaddr/nosuch.test");
    let run = run.expect(10);
    assert!(run.stderr.contains("/dnsaddr/nosuch.test: "), "what was tried: {}", run.stderr);
}
