//! Peers that lie, flood and squat.

use std::net::Ipv4Addr;

use libp2p::gossipsub::{self, MessageAuthenticity};
use tokio::{net::TcpSocket, task::JoinSet};

use super::*;
use crate::net::{gossip, lookup::provider_keys};

/// Squatters of one module, each with an id of its own.
const SYBILS: u8 = 40;
/// Clients that look for the module, unless `MURMIR_NEWCOMERS` says how many (100 in the sweep).
const NEWCOMERS: u8 = 12;

fn port(address: &Multiaddr) -> u16 {
    address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).unwrap()
}

/// Opens `count` connections from hosts of the networks 127.0.`networks`.0/24, says nothing, and keeps them.
async fn sit(port: u16, networks: std::ops::Range<u8>, count: u8) -> Vec<tokio::net::TcpStream> {
    let mut open = JoinSet::new();
    for (network, host) in networks.flat_map(|network| (1..=count).map(move |host| (network, host))) {
        open.spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::new(127, 0, network, host), 0).into()).unwrap();
            socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
        });
    }
    // Some are refused before they know that they are connected.
    open.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_one_network_do_not_keep_others_out() {
    let target = node(50, DhtMode::Server, Vec::new()).await;
    let early = node(51, DhtMode::Off, vec![target.address().await]).await;
    until(|| target.swarm.peers(), |rows| rows.len() == 1).await;
    target.swarm.ask(|run| run.swarm.behaviour_mut().crowd.count_loopback()).await.unwrap();
    let address = target.address().await;
    let silent = sit(port(&address), 9..10, 250).await;
    let refused = || target.swarm.ask(|run| run.swarm.behaviour().crowd.refused());
    let count = until(refused, |count| count.is_some_and(|count| count >= 234)).await;
    assert_eq!(count, Some(234), "16 of one network may be half open");
    // Somebody from elsewhere gets in, and whoever was in stays.
    let late = node(52, DhtMode::Off, Vec::new()).await;
    late.swarm.dial(address).await.unwrap();
    let both = |rows: &Vec<PeerRow>| {
        [&early, &late].iter().all(|node| rows.iter().any(|row| row.peer == node.swarm.peer_id()))
    };
    until(|| target.swarm.peers(), both).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_silent_connections_than_there_are_places_keep_nobody_out() {
    let target = node(55, DhtMode::Off, Vec::new()).await;
    let address = target.address().await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.extend(sit(port(&address), 0..1, 250).await);
        // Whoever is refused in the crush tries again, as clients do.
        let late = node(56, DhtMode::Off, Vec::new()).await;
        until(|| late.swarm.dial(address.clone()), Result::is_ok).await.unwrap();
        late.swarm.shutdown().await;
    }
    assert!(silent.len() >= 900, "they were let in at first: {}", silent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_has_three_connections() {
    for listen in [TCP, QUIC] {
        one_peer_has_three_connections_by(listen).await;
    }
}

async fn one_peer_has_three_connections_by(listen: &str) {
    let listen = vec![listen.parse().unwrap()];
    let (swarm, events, incoming) = start(Config { listen, ..config(53, DhtMode::Off, Vec::new()) }).await.unwrap();
    let mut target = Node { swarm, events, incoming };
    let address = target.address().await;
    let greedy: Vec<Node> = {
        let mut all = Vec::new();
        for _ in 0..6 {
            all.push(node(54, DhtMode::Off, vec![address.clone()]).await);
        }
        all
    };
    let refused = || target.swarm.ask(|run| run.swarm.behaviour().crowd.refused());
    until(refused, |count| count.is_some_and(|count| count >= 3)).await;
    assert_eq!(target.swarm.peers().await[0].addresses.len(), 3);
    target.wait(|event| matches!(event, NetEvent::PeerConnected(_)).then_some(())).await;
    drop(greedy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gossips_junk_is_not_listened_to_any_more() {
    let newest = bundle(60, 1);
    let (module, mut listener) = (newest.module(), node(60, DhtMode::Off, Vec::new()).await);
    listener.swarm.tell(Event::Watch { module }).await;
    let liar = node(61, DhtMode::Off, vec![listener.address().await]).await;
    liar.swarm.tell(Event::Watch { module }).await;
    let peer = liar.swarm.peer_id();
    let other = bundle(62, 1);
    // Unknown kind, garbage for a bundle, a bundle of another module, garbage for a nomination, nothing at all.
    let junk: [Vec<u8>; 5] = [vec![200, 1], vec![0, 1, 2], [&[0], other.bytes()].concat(), vec![1; 900], Vec::new()];
    for junk in junk {
        let say = move |run: &mut Run| {
            let gossip = &mut run.swarm.behaviour_mut().gossip;
            gossip.publish(gossip::topic(&module), junk.clone()).is_ok()
        };
        until(|| liar.swarm.ask(say.clone()), |said| *said == Some(true)).await;
    }
    let score = || listener.swarm.ask(move |run| run.swarm.behaviour().gossip.peer_score(&peer));
    until(score, |score| matches!(score, Some(Some(score)) if *score < -80.0)).await;
    // Its word does not count now, even where it is true; that of another does.
    liar.hold(&bundle(60, 2)).await;
    let honest = node(63, DhtMode::Off, vec![listener.address().await]).await;
    honest.hold(&newest).await;
    let heard = |event| if let NetEvent::Head { bundle, .. } = event { Some(bundle) } else { None };
    assert_eq!(listener.wait(heard).await, newest);
}

/// A peer whose gossip keeps no rule: unsigned, or longer than allowed.
async fn lawless(module: ModuleId, signed: bool, payloads: Vec<Vec<u8>>, target: Multiaddr) -> PeerId {
    let key = libp2p::identity::Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let authenticity =
        if signed { MessageAuthenticity::Signed(key.clone()) } else { MessageAuthenticity::Author(peer) };
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix("/murmir/gossip")
        .validation_mode(gossipsub::ValidationMode::None)
        .max_transmit_size(1 << 20)
        .build()
        .unwrap();
    let behaviour: gossipsub::Behaviour = gossipsub::Behaviour::new(authenticity, config).unwrap();
    let gate = address::Gate::default();
    gate.obey(&target);
    let transport = behaviour::transport(&key, &Counters::default(), &gate, None).unwrap();
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE);
    let mut swarm = libp2p::Swarm::new(transport, behaviour, peer, config);
    let topic = gossip::topic(&module);
    swarm.behaviour_mut().subscribe(&topic).unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    swarm.dial(target).unwrap();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                event = futures::StreamExt::select_next_some(&mut swarm) => drop(event),
                _ = tick.tick() => {
                    for payload in &payloads {
                        // Nobody there yet, or said already.
                        let _ = swarm.behaviour_mut().publish(topic.clone(), payload.clone());
                    }
                }
            }
        }
    });
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsigned_and_oversize_gossip_is_not_heard() {
    let (told, last) = (bundle(67, 2), bundle(67, 3));
    let (module, mut listener) = (told.module(), node(67, DhtMode::Off, Vec::new()).await);
    listener.swarm.tell(Event::Watch { module }).await;
    let (target, message) = (listener.address().await, [&[0], told.bytes()].concat());
    let unsigned = lawless(module, false, vec![message.clone()], target.clone()).await;
    let score = || listener.swarm.ask(move |run| run.swarm.behaviour().gossip.peer_score(&unsigned));
    until(score, |score| matches!(score, Some(Some(score)) if *score < 0.0)).await;
    lawless(module, true, vec![[message, vec![0; 64 << 10]].concat()], target.clone()).await;
    let honest = node(68, DhtMode::Off, vec![target]).await;
    honest.hold(&last).await;
    let heard = |event| if let NetEvent::Head { bundle, .. } = event { Some(bundle) } else { None };
    assert_eq!(listener.wait(heard).await, last, "the first that is heard is the one that keeps the rules");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_news_costs_nobody_anything() {
    let (old, new) = (bundle(69, 1), bundle(69, 2));
    let (module, listener) = (old.module(), node(69, DhtMode::Off, Vec::new()).await);
    listener.hold(&new).await;
    let late = node(70, DhtMode::Off, vec![listener.address().await]).await;
    let peer = late.swarm.peer_id();
    late.hold(&old).await;
    until(|| late.swarm.newest(module), |newest| newest.as_ref() == Some(&new)).await;
    let score = listener.swarm.ask(move |run| run.swarm.behaviour().gossip.peer_score(&peer)).await;
    assert!(score.flatten().is_some_and(|score| score >= 0.0), "{score:?}");
    assert_eq!(listener.swarm.newest(module).await, Some(new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_missed_a_generation_is_told_by_whoever_asks() {
    let (old, new) = (bundle(64, 1), bundle(64, 2));
    let (first, second) = (node(64, DhtMode::Server, Vec::new()).await, node(65, DhtMode::Server, Vec::new()).await);
    for (node, bundle) in [(&first, &old), (&second, &new)] {
        let record = kad::Record::new(bundle_key(&bundle.module()), bundle.bytes().to_vec());
        let from = node.swarm.peer_id();
        let put = move |run: &mut Run| {
            run.swarm.behaviour_mut().kad.as_mut().unwrap().store_mut().accept(record, from, None).is_ok()
        };
        assert_eq!(node.swarm.ask(put).await, Some(true));
    }
    let peers = vec![first.address().await, second.address().await];
    let asker = node(66, DhtMode::Client, peers).await;
    let module = new.module();
    until(|| asker.swarm.ask(dht_peers), |peers| *peers == Some(2)).await;
    until(|| asker.swarm.find_bundle(module), |found| found.contains(&new)).await;
    let kept = || first.swarm.ask(move |run| stored(run, &module));
    until(kept, |bytes| bytes.as_ref().is_some_and(|bytes| bytes.as_deref() == Some(new.bytes()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_find_a_mirror_though_squatters_took_every_place() {
    let wanted = bundle(70, 1);
    let module = wanted.module();
    let first = node(100, DhtMode::Server, Vec::new()).await;
    let way_in = vec![first.address().await];
    let mut plain = vec![first];
    for seed in 101..106 {
        plain.push(node(seed, DhtMode::Server, way_in.clone()).await);
    }
    let mut sybils = Vec::new();
    for seed in 0..SYBILS {
        sybils.push(node(150 + seed, DhtMode::Client, Vec::new()).await);
    }
    for plain in &plain {
        for sybil in &sybils {
            let (peer, address) = (sybil.swarm.peer_id(), sybil.address().await);
            let squat = move |run: &mut Run| {
                let store = run.swarm.behaviour_mut().kad.as_mut().unwrap().store_mut();
                for key in provider_keys(&module) {
                    let record = kad::ProviderRecord::new(key, peer, vec![address.clone()]);
                    store.accept_provider(record, &address);
                }
            };
            plain.swarm.ask(squat).await.unwrap();
        }
        let full = move |run: &mut Run| {
            let store = run.swarm.behaviour_mut().kad.as_mut().unwrap().store_mut();
            provider_keys(&module).all(|key| store.providers(&key).len() == 20)
        };
        assert_eq!(plain.swarm.ask(full).await, Some(true), "no place is left");
    }
    // The mirrors come last.
    let mut honest = Vec::new();
    for seed in 120..123 {
        let mirror = node(seed, DhtMode::Server, way_in.clone()).await;
        mirror.hold(&wanted).await;
        honest.push(mirror);
    }
    let mirrors: Vec<PeerId> = honest.iter().map(|node| node.swarm.peer_id()).collect();
    let count = std::env::var("MURMIR_NEWCOMERS").ok().and_then(|text| text.parse().ok()).unwrap_or(NEWCOMERS);
    for seed in 0..count.min(100) {
        let newcomer = node(seed, DhtMode::Client, way_in.clone()).await;
        until(|| newcomer.swarm.providers(module), |found| found.iter().any(|peer| mirrors.contains(peer))).await;
    }
}
