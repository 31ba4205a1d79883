//! Nodes on loopback. Every wait is for a condition, with a deadline.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, StreamProtocol,
    core::multiaddr::Protocol,
    kad::{self, store::RecordStore},
};
use tokio::time::timeout;

mod hostile;
mod quic;

use super::{lookup::own_provider_key, store::bundle_key, *};
use crate::{
    machine::Event,
    record::{Coverage, fixtures::bundle},
};

/// Where nodes listen.
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Nothing here takes longer than this, however loaded the machine is.
const DEADLINE: Duration = Duration::from_secs(120);

struct Node {
    swarm: Swarm,
    events: Events,
    incoming: Incoming,
}

fn config(seed: u8, dht: DhtMode, peers: Vec<Multiaddr>) -> Config {
    Config {
        key: SecretKey::from_seed([seed; 32]),
        listen: vec![TCP.parse().unwrap()],
        external: Vec::new(),
        profile: Profile::default(),
        peers,
        cached: Vec::new(),
        narrow: false,
        dht,
        gossip: true,
        mdns: false,
        names: None,
        bulk: StreamProtocol::new("/murmir/sync/1"),
        records: Saved::default(),
    }
}

async fn node(seed: u8, dht: DhtMode, peers: Vec<Multiaddr>) -> Node {
    let (swarm, events, incoming) = start(config(seed, dht, peers)).await.unwrap();
    Node { swarm, events, incoming }
}

impl Node {
    async fn address(&self) -> Multiaddr {
        self.swarm.listen_addresses().await.pop().unwrap()
    }

    /// The next event of interest.
    async fn wait<T>(&mut self, mut wanted: impl FnMut(NetEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, search).await.expect("the event comes in time")
    }

    async fn hold(&self, bundle: &CheckedBundle) {
        self.swarm.tell(Event::Hold { bundle: bundle.clone(), coverage: Coverage::WHOLE, http: Vec::new() }).await;
    }
}

/// Asks again until the answer is as wanted.
async fn until<T, F: Future<Output = T>>(mut ask: impl FnMut() -> F, wanted: impl Fn(&T) -> bool) -> T {
    let search = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, search).await.expect("the answer comes in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_node_introduces_a_holder_to_a_newcomer() {
    let plain = node(1, DhtMode::Server, Vec::new()).await;
    let holder = node(2, DhtMode::Server, vec![plain.address().await]).await;
    let newest = bundle(7, 1);
    holder.hold(&newest).await;
    let module = newest.module();
    let newcomer = node(3, DhtMode::Client, Vec::new()).await;
    newcomer.swarm.dial(plain.address().await).await.unwrap();
    let found = until(|| newcomer.swarm.providers(module), |found| !found.is_empty()).await;
    assert_eq!(found, [holder.swarm.peer_id()]);
    let bundles = until(|| newcomer.swarm.find_bundle(module), |found| !found.is_empty()).await;
    assert!(bundles.iter().all(|bundle| *bundle == newest));

    let mut stream = newcomer.swarm.open(holder.swarm.peer_id()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.close().await.unwrap();
    let Node { mut incoming, .. } = holder;
    let (from, mut taken) = timeout(DEADLINE, incoming.recv()).await.unwrap().unwrap();
    let mut said = Vec::new();
    taken.read_to_end(&mut said).await.unwrap();
    assert_eq!((from, said.as_slice()), (newcomer.swarm.peer_id(), b"hello".as_slice()));
    let (received, sent) = newcomer.swarm.bytes().await;
    assert!(received > 0 && sent > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_came_before_the_dht_is_announced_when_it_grows() {
    let holder = node(4, DhtMode::Server, Vec::new()).await;
    let newest = bundle(8, 1);
    holder.hold(&newest).await;
    let plain = node(5, DhtMode::Server, Vec::new()).await;
    plain.swarm.dial(holder.address().await).await.unwrap();
    let holding = holder.swarm.peer_id();
    let key = own_provider_key(&newest.module(), &holding);
    let told = until(|| plain.swarm.ask(providers_here(key.clone())), |told| *told != Some(Vec::new())).await;
    assert_eq!(told, Some(vec![(holding, vec![holder.address().await.with_p2p(holding).unwrap()])]));
    until(|| plain.swarm.ask(records), |count| *count == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_brings_a_new_head_to_a_watcher() {
    let publisher = node(10, DhtMode::Off, Vec::new()).await;
    let (first, second) = (bundle(9, 1), bundle(9, 2));
    publisher.hold(&first).await;
    let mut watcher = node(11, DhtMode::Off, vec![publisher.address().await]).await;
    watcher.swarm.tell(Event::Watch { module: first.module() }).await;
    // The old head reaches whoever comes later, the new one whoever is there.
    for expected in [first, second] {
        publisher.hold(&expected).await;
        let heard = watcher
            .wait(|event| match event {
                NetEvent::Head { bundle, .. } => Some(bundle),
                _ => None,
            })
            .await;
        assert_eq!(heard, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_the_connections_and_nothing_else() {
    let (held, watched, stored) = (bundle(40, 1), bundle(41, 1), bundle(42, 1));
    let plain = node(40, DhtMode::Server, Vec::new()).await;
    let mut falls = node(41, DhtMode::Server, vec![plain.address().await]).await;
    let (peer, addresses) = (falls.swarm.peer_id(), falls.swarm.listen_addresses().await);
    falls.hold(&held).await;
    falls.swarm.tell(Event::Watch { module: watched.module() }).await;
    let record = kad::Record::new(bundle_key(&stored.module()), stored.bytes().to_vec());
    let put = move |run: &mut Run| {
        run.swarm.behaviour_mut().kad.as_mut().unwrap().store_mut().accept(record, peer, None).unwrap();
    };
    falls.swarm.ask(put).await.unwrap();
    falls.swarm.send(|_| panic!("on purpose")).await;

    assert_eq!(falls.swarm.listen_addresses().await, addresses, "the same ports");
    let module = stored.module();
    assert_eq!(falls.swarm.ask(move |run| self::stored(run, &module)).await.flatten().as_deref(), Some(stored.bytes()));
    assert_eq!(falls.swarm.newest(held.module()).await, Some(held.clone()));
    // It finds its peers again, and is announced anew.
    until(|| falls.swarm.peers(), |peers| peers.iter().any(|row| row.peer == plain.swarm.peer_id())).await;
    let newcomer = node(42, DhtMode::Client, vec![plain.address().await]).await;
    let module = held.module();
    until(|| newcomer.swarm.providers(module), |found| found.contains(&peer)).await;
    // The streams of peers reach the same receiver as before, news the same watcher.
    newcomer.swarm.connect(peer, addresses).await.unwrap();
    let mut stream = newcomer.swarm.open(peer).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    timeout(DEADLINE, falls.incoming.recv()).await.unwrap().unwrap();
    newcomer.hold(&watched).await;
    let heard = |event| matches!(event, NetEvent::Head { bundle, .. } if bundle == watched).then_some(());
    falls.wait(heard).await;
    falls.swarm.send(|_| panic!("on purpose, again")).await;
    assert_eq!(falls.swarm.newest(watched.module()).await, Some(watched));
    falls.swarm.shutdown().await;
    assert!(falls.swarm.listen_addresses().await.is_empty());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let first = node(20, DhtMode::Off, Vec::new()).await;
    let taken = first.address().await;
    let listen = vec![taken.clone()];
    let refused = start(Config { listen, ..config(21, DhtMode::Off, Vec::new()) }).await;
    match refused {
        Err(StartError::ListenFailed { address, .. }) => assert_eq!(address, taken),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two listeners on one address"),
    }
}

#[tokio::test]
async fn any_interface_becomes_real_addresses_and_ports() {
    let listen = vec!["/ip4/0.0.0.0/tcp/0".parse().unwrap()];
    let (swarm, _events, _incoming) = start(Config { listen, ..config(28, DhtMode::Off, Vec::new()) }).await.unwrap();
    let addresses: Vec<String> = swarm.listen_addresses().await.iter().map(ToString::to_string).collect();
    assert!(addresses.iter().any(|address| address.starts_with("/ip4/127.0.0.1/tcp/")), "{addresses:?}");
    assert!(addresses.iter().all(|address| !address.contains("0.0.0.0") && !address.ends_with("/tcp/0")));
}

#[tokio::test]
async fn dialling_works_without_an_id_and_fails_clearly_with_a_wrong_one() {
    let mut target = node(22, DhtMode::Off, Vec::new()).await;
    let caller = node(23, DhtMode::Off, Vec::new()).await;
    let address = target.address().await;
    let stranger = PeerId::random();
    let wrong = address.clone().with_p2p(stranger).unwrap();
    let error = caller.swarm.dial(wrong.clone()).await.unwrap_err();
    assert_eq!(error, DialError::WrongPeer { address: wrong, obtained: target.swarm.peer_id() });
    assert_eq!(caller.swarm.dial(address.clone()).await.unwrap(), target.swarm.peer_id());
    let heard = target
        .wait(|event| match event {
            NetEvent::PeerConnected(peer) => Some(peer),
            _ => None,
        })
        .await;
    assert_eq!(heard, caller.swarm.peer_id());
    assert_eq!(caller.swarm.dialable().await, [address.with_p2p(target.swarm.peer_id()).unwrap()]);
    assert_eq!(caller.swarm.peers().await.len(), 1);
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_address() {
    let caller = node(24, DhtMode::Off, Vec::new()).await;
    let gone = node(25, DhtMode::Off, Vec::new()).await;
    let address = gone.address().await;
    gone.swarm.shutdown().await;
    let error = caller.swarm.dial(address.clone()).await.unwrap_err();
    assert!(matches!(&error, DialError::Failed { address: named, .. } if *named == address), "{error}");
    assert!(gone.swarm.listen_addresses().await.is_empty());
    let unknown = caller.swarm.open(PeerId::random()).await;
    assert!(matches!(unknown, Err(OpenError::Dial(DialError::Unreachable { .. }))));
}

#[tokio::test]
async fn a_stopped_node_is_gone_for_its_peers() {
    let mut stays = node(26, DhtMode::Off, Vec::new()).await;
    let leaves = node(27, DhtMode::Off, vec![stays.address().await]).await;
    let peer = leaves.swarm.peer_id();
    stays.wait(|event| matches!(event, NetEvent::PeerConnected(_)).then_some(())).await;
    leaves.swarm.shutdown().await;
    let gone = stays
        .wait(|event| match event {
            NetEvent::PeerGone(peer) => Some(peer),
            _ => None,
        })
        .await;
    assert_eq!(gone, peer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dht_keeps_no_garbage_and_nothing_older() {
    let keeper = node(30, DhtMode::Server, Vec::new()).await;
    let sender = node(31, DhtMode::Client, vec![keeper.address().await]).await;
    until(|| sender.swarm.ask(dht_peers), |peers| *peers == Some(1)).await;
    let (old, new, other) = (bundle(31, 1), bundle(31, 2), bundle(32, 1));
    let put = |key: ModuleId, value: Vec<u8>| {
        sender.swarm.send(move |run| {
            let kad = run.swarm.behaviour_mut().kad.as_mut().unwrap();
            kad.put_record(kad::Record::new(bundle_key(&key), value), kad::Quorum::One).unwrap();
        })
    };
    put(other.module(), b"garbage".to_vec()).await;
    put(other.module(), new.bytes().to_vec()).await;
    put(new.module(), new.bytes().to_vec()).await;
    let module = new.module();
    let kept = || keeper.swarm.ask(move |run| stored(run, &module));
    until(kept, |bytes| bytes.as_ref().is_some_and(|bytes| bytes.as_deref() == Some(new.bytes()))).await;
    put(module, old.bytes().to_vec()).await;
    // Requests of one peer are served in order: once this one is stored, the others have been refused.
    let last = bundle(33, 1);
    put(last.module(), last.bytes().to_vec()).await;
    until(|| keeper.swarm.ask(records), |count| *count == Some(2)).await;
    assert_eq!(kept().await.unwrap().as_deref(), Some(new.bytes()));
}

fn stored(run: &mut Run, module: &ModuleId) -> Option<Vec<u8>> {
    let store = run.swarm.behaviour_mut().kad.as_mut()?.store_mut();
    store.get(&bundle_key(module)).map(|record| record.value.clone())
}

fn providers_here(key: kad::RecordKey) -> impl FnOnce(&mut Run) -> Vec<(PeerId, Vec<Multiaddr>)> + Send {
    move |run| {
        let kad = run.swarm.behaviour_mut().kad.as_mut().unwrap();
        kad.store_mut().providers(&key).into_iter().map(|known| (known.provider, known.addresses)).collect()
    }
}

fn records(run: &mut Run) -> usize {
    run.swarm.behaviour_mut().kad.as_mut().map_or(0, |kad| kad.store_mut().records().count())
}

fn dht_peers(run: &mut Run) -> usize {
    let kad = run.swarm.behaviour_mut().kad.as_mut();
    kad.map_or(0, |kad| kad.kbuckets().map(|bucket| bucket.num_entries()).sum())
}

#[tokio::test]
async fn what_nobody_watches_any_more_makes_room() {
    let own = node(44, DhtMode::Off, Vec::new()).await;
    let (kept, held) = (bundle(200, 1), bundle(201, 1));
    own.hold(&held).await;
    drop(own.swarm.watch(held.module()).await);
    let watch = own.swarm.watch(kept.module()).await;
    for number in 1..100u8 {
        drop(own.swarm.watch(bundle(number, 1).module()).await);
    }
    let watched = || own.swarm.ask(|run| run.duties.modules().collect::<Vec<_>>());
    let modules = until(watched, |modules| modules.as_ref().is_some_and(|modules| modules.len() < 70)).await.unwrap();
    assert!(modules.contains(&kept.module()) && modules.contains(&held.module()));
    assert_eq!(own.swarm.newest(held.module()).await, Some(held), "what is held stays");
    drop(watch);
}
