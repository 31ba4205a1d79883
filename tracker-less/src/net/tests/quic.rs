//! QUIC beside TCP.

use std::net::Ipv4Addr;

use libp2p::{
    Transport,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
    },
    quic,
};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::net::quic::is_quic;

/// A node that listens there.
async fn node_on(seed: u8, dht: DhtMode, listen: &[&str], peers: Vec<Multiaddr>) -> Node {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    let (swarm, events, incoming) = start(Config { listen, ..config(seed, dht, peers) }).await.unwrap();
    Node { swarm, events, incoming }
}

/// Connects to a peer of the same machine, wherever it is told to be.
async fn connect(caller: &Node, peer: PeerId, addresses: Vec<Multiaddr>) {
    caller.swarm.ask(|run| run.gate.open_for(&TCP.parse().unwrap())).await.unwrap();
    caller.swarm.connect(peer, addresses).await.unwrap();
}

/// The far ends of all connections of a node.
async fn ways(node: &Node) -> Vec<Multiaddr> {
    node.swarm.peers().await.into_iter().flat_map(|row| row.addresses).collect()
}

/// Both addresses of a node that listens by TCP and by QUIC.
async fn both(node: &Node) -> (Multiaddr, Multiaddr) {
    let (udp, tcp): (Vec<_>, Vec<_>) = node.swarm.listen_addresses().await.into_iter().partition(is_quic);
    (tcp[0].clone(), udp[0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_alone_is_enough() {
    let plain = node_on(80, DhtMode::Server, &[QUIC], Vec::new()).await;
    let mut holder = node_on(81, DhtMode::Server, &[QUIC], vec![plain.address().await]).await;
    let newest = bundle(80, 1);
    holder.hold(&newest).await;
    let module = newest.module();
    let newcomer = node_on(82, DhtMode::Client, &[QUIC], vec![plain.address().await]).await;
    let found = until(|| newcomer.swarm.providers(module), |found| !found.is_empty()).await;
    assert_eq!(found, [holder.swarm.peer_id()]);
    until(|| newcomer.swarm.find_bundle(module), |found| found.contains(&newest)).await;

    let (_, sent) = newcomer.swarm.bytes().await;
    let mut stream = newcomer.swarm.open(holder.swarm.peer_id()).await.unwrap();
    stream.write_all(&[7; 100_000]).await.unwrap();
    stream.close().await.unwrap();
    let (from, mut taken) = timeout(DEADLINE, holder.incoming.recv()).await.unwrap().unwrap();
    let mut said = Vec::new();
    taken.read_to_end(&mut said).await.unwrap();
    assert!(from == newcomer.swarm.peer_id() && said == [7; 100_000]);
    assert!(newcomer.swarm.bytes().await.1 >= sent + 100_000 && holder.swarm.bytes().await.0 >= 100_000);
    assert!(ways(&newcomer).await.iter().chain(&ways(&holder).await).all(is_quic));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_taken_where_both_lead_there() {
    let target = node_on(83, DhtMode::Off, &[TCP, QUIC], Vec::new()).await;
    let (peer, (tcp, udp)) = (target.swarm.peer_id(), both(&target).await);
    for (seed, addresses) in [(84, vec![tcp.clone(), udp.clone()]), (85, vec![udp.clone(), tcp.clone()])] {
        let caller = node(seed, DhtMode::Off, Vec::new()).await;
        connect(&caller, peer, addresses).await;
        assert_eq!(ways(&caller).await, std::slice::from_ref(&tcp));
    }
    // Two dials, each of one address: both reach the peer, by one connection.
    let caller = node(86, DhtMode::Off, Vec::new()).await;
    let [by_tcp, by_udp] = [&tcp, &udp].map(|address| address.clone().with_p2p(peer).unwrap());
    let (first, second) = tokio::join!(caller.swarm.dial(by_tcp), caller.swarm.dial(by_udp));
    assert_eq!((first, second), (Ok(peer), Ok(peer)));
    until(|| ways(&caller), |ways| *ways == [tcp.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_is_taken_where_tcp_does_not_get_through() {
    let target = node_on(87, DhtMode::Off, &[TCP, QUIC], Vec::new()).await;
    let (peer, (_, udp)) = (target.swarm.peer_id(), both(&target).await);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    for (seed, dead) in [(88, gone), (89, silent.local_addr().unwrap())] {
        let caller = node(seed, DhtMode::Off, Vec::new()).await;
        let dead = format!("/ip4/127.0.0.1/tcp/{}", dead.port()).parse().unwrap();
        connect(&caller, peer, vec![dead, udp.clone()]).await;
        assert_eq!(ways(&caller).await, std::slice::from_ref(&udp));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_leaves_the_port_and_whoever_is_refused_is_told() {
    let falls = node_on(90, DhtMode::Off, &[TCP, QUIC], Vec::new()).await;
    let (addresses, (_, udp)) = (falls.swarm.listen_addresses().await, both(&falls).await);
    let caller = node(91, DhtMode::Off, vec![udp.clone()]).await;
    until(|| ways(&caller), |ways| *ways == [udp.clone()]).await;
    falls.swarm.send(|_| panic!("on purpose")).await;
    assert_eq!(falls.swarm.listen_addresses().await, addresses);
    until(|| caller.swarm.dial(udp.clone()), Result::is_ok).await.unwrap();
    // Where nobody may come in, whoever knocks hears that, and not only silence.
    falls.swarm.ask(|run| run.swarm.behaviour_mut().crowd.close_door()).await.unwrap();
    let late = node(92, DhtMode::Off, Vec::new()).await;
    let refused = late.swarm.dial(udp.clone()).await;
    assert_eq!(refused, Err(DialError::HungUp { address: udp }));
}

#[tokio::test]
async fn a_taken_port_of_quic_is_named() {
    let first = node_on(93, DhtMode::Off, &[QUIC], Vec::new()).await;
    let taken = first.address().await;
    let refused = start(Config { listen: vec![taken.clone()], ..config(94, DhtMode::Off, Vec::new()) }).await;
    let error = refused.err().expect("two listeners on one address").to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("in use"), "{error}");
}

/// Knocks by QUIC from `count` hosts of 127.0.`network`.0/24, and says nothing more: first packets that were caught on their way.
async fn knock(port: u16, network: u8, count: u8) -> Vec<UdpSocket> {
    let key = libp2p::identity::Keypair::generate_ed25519();
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&key));
    let mut sockets = Vec::new();
    for host in 1..=count {
        let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let there = format!("/ip4/127.0.0.1/udp/{}/quic-v1", trap.local_addr().unwrap().port()).parse().unwrap();
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = tokio::spawn(transport.dial(there, options).unwrap());
        let mut packet = [0; 2048];
        let (length, _) = trap.recv_from(&mut packet).await.unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, network, host), 0)).await.unwrap();
        socket.send_to(&packet[..length], (Ipv4Addr::LOCALHOST, port)).await.unwrap();
        dial.abort();
        sockets.push(socket);
    }
    sockets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_knocks_of_one_network_do_not_keep_others_out() {
    let target = node_on(95, DhtMode::Off, &[TCP, QUIC], Vec::new()).await;
    target.swarm.ask(|run| run.swarm.behaviour_mut().crowd.count_loopback()).await.unwrap();
    let (tcp, udp) = both(&target).await;
    let port = udp.iter().find_map(|part| if let Protocol::Udp(port) = part { Some(port) } else { None }).unwrap();
    let silent = knock(port, 9, 40).await;
    let refused = || target.swarm.ask(|run| run.swarm.behaviour().crowd.refused());
    assert_eq!(until(refused, |count| count.is_some_and(|count| count >= 24)).await, Some(24), "16 may be half open");
    for (seed, way) in [(96, udp), (97, tcp)] {
        let late = node(seed, DhtMode::Off, Vec::new()).await;
        late.swarm.dial(way).await.unwrap();
    }
    // More than there are places, of as many networks: whoever waited longest makes room.
    let mut more = Vec::new();
    for network in 10..110 {
        more.extend(knock(port, network, 1).await);
    }
    let late = node(98, DhtMode::Off, Vec::new()).await;
    let (_, udp) = both(&target).await;
    until(|| late.swarm.dial(udp.clone()), Result::is_ok).await.unwrap();
    drop((silent, more));
}
