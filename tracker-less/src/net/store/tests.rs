use super::{
    places::{MAX_PER_NETWORK, MAX_PROVIDERS},
    *,
};
use crate::record::fixtures::bundle;

fn records() -> Records {
    Records::new(PeerId::random(), b"secret")
}

fn value(key: &CheckedBundle, value: &[u8]) -> Record {
    Record::new(bundle_key(&key.module()), value.to_vec())
}

fn key(number: u32) -> RecordKey {
    RecordKey::new(&number.to_be_bytes())
}

fn provider(number: u32, peer: PeerId, addresses: &[&str]) -> ProviderRecord {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    ProviderRecord::new(key(number), peer, addresses)
}

fn at(host: &str) -> Multiaddr {
    format!("/ip4/{host}/tcp/4741").parse().unwrap()
}

/// A host of public network number `network`.
fn host(network: u32, host: u32) -> Multiaddr {
    at(&std::net::Ipv4Addr::from((0x2000_0000 + (network << 8)) + host).to_string())
}

impl Records {
    fn take(&mut self, record: Record, remote: &Multiaddr) -> std::result::Result<CheckedBundle, Refused> {
        self.accept(record, PeerId::random(), Some(remote))
    }

    fn provides(&self, number: u32, peer: &PeerId) -> bool {
        self.providers(&key(number)).iter().any(|record| record.provider == *peer)
    }

    /// Every count agrees with what is there.
    fn check(&self) {
        let all: Vec<&Provider> = self.providers.values().flatten().collect();
        assert_eq!(self.placed.total(), all.len());
        assert_eq!(self.keys_of.values().sum::<usize>(), all.len());
        assert_eq!(self.given.total(), self.givers.len());
        assert!(self.givers.keys().all(|key| self.bundles.contains_key(key)));
        assert!(self.providers.values().all(|known| (1..=MAX_PROVIDERS).contains(&known.len())));
        assert!(all.len() <= MAX_ENTRIES && self.bundles.len() <= MAX_BUNDLES);
    }
}

#[test]
fn only_bundles_of_their_key_are_stored_and_none_older() {
    let mut records = records();
    let from = at("9.9.9.9");
    let (old, new, other) = (bundle(1, 1), bundle(1, 2), bundle(2, 1));
    assert_eq!(records.take(value(&new, b"garbage"), &from), Err(Refused::Invalid));
    assert_eq!(records.take(value(&new, &vec![0; 1 << 20]), &from), Err(Refused::Invalid));
    assert_eq!(records.take(value(&new, other.bytes()), &from), Err(Refused::OtherModule));
    assert_eq!(records.take(value(&new, new.bytes()), &from), Ok(new.clone()));
    assert_eq!(records.take(value(&new, old.bytes()), &from), Err(Refused::Older));
    assert_eq!(records.take(value(&new, new.bytes()), &from), Ok(new.clone()));
    assert_eq!(records.get(&bundle_key(&new.module())).unwrap().value, new.bytes());
    records.check();
}

#[test]
fn one_network_does_not_fill_a_key() {
    let mut records = records();
    for number in 1..=200 {
        records.accept_provider(provider(1, PeerId::random(), &[]), &host(1, number));
    }
    assert_eq!(records.providers(&key(1)).len(), MAX_PER_NETWORK);
    for network in 2..=60 {
        records.accept_provider(provider(1, PeerId::random(), &[]), &host(network, 1));
    }
    assert_eq!(records.providers(&key(1)).len(), MAX_PROVIDERS);
    records.check();
}

#[test]
fn squatters_of_a_few_networks_give_way_and_cannot_come_back() {
    let mut records = records();
    let squat = |records: &mut Records| {
        for number in 0..500u32 {
            records.accept_provider(provider(1, PeerId::random(), &[]), &host(number % 5, number / 5));
        }
    };
    squat(&mut records);
    assert_eq!(records.providers(&key(1)).len(), MAX_PROVIDERS, "five networks fill all places");
    let honest: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
    for (network, peer) in honest.iter().enumerate() {
        let from = host(100 + u32::try_from(network).unwrap(), 1);
        assert!(records.accept_provider(provider(1, *peer, &[]), &from), "the {network}th newcomer gets in");
    }
    squat(&mut records);
    assert!(honest.iter().all(|peer| records.provides(1, peer)));
    records.check();
}

#[test]
fn where_networks_say_nothing_every_one_has_the_same_chance() {
    // Ten nodes with secrets of their own: what one refuses, another takes.
    let mut nodes: Vec<Records> = (0..10u8).map(|secret| Records::new(PeerId::random(), &[secret])).collect();
    let (here, honest) = (at("127.0.0.1"), PeerId::random());
    let squatters: Vec<PeerId> = (0..40).map(|_| PeerId::random()).collect();
    for node in &mut nodes {
        for peer in squatters.iter().chain([&honest]).chain(&squatters).chain(&squatters) {
            node.accept_provider(provider(1, *peer, &[]), &here);
        }
        node.check();
    }
    // Each has it with 20 in 41: that none does, or all, is less than once in a thousand times.
    let found = nodes.iter().filter(|node| node.provides(1, &honest)).count();
    assert!((1..10).contains(&found), "{found} of 10");
    let everywhere = squatters.iter().filter(|peer| nodes.iter().all(|node| node.provides(1, peer)));
    assert!(everywhere.count() < 3, "coming again and again wins nothing");
}

#[test]
fn one_peer_does_not_fill_the_store_and_gets_its_places_back() {
    let mut records = records();
    let peer = PeerId::random();
    let mut accept = |number| records.accept_provider(provider(number, peer, &[]), &at("9.9.9.9"));
    assert_eq!((0..1000).filter(|number| accept(*number)).count(), MAX_KEYS_PER_PEER);
    assert!(accept(0), "a place it has can be renewed");
    records.remove_provider(&key(0), &peer);
    assert!(records.accept_provider(provider(2000, peer, &[]), &at("9.9.9.9")));
    records.check();
}

#[test]
fn a_flood_of_keys_from_one_network_gives_way_to_others() {
    let mut records = records();
    let honest = PeerId::random();
    assert!(records.accept_provider(provider(1, honest, &[]), &host(7, 1)));
    for number in 0..u32::try_from(MAX_ENTRIES).unwrap() + 1000 {
        // A new id whenever the old one has all that one peer may have.
        let peer = libp2p::identity::Keypair::ed25519_from_bytes([u8::try_from(number / 256).unwrap(); 32]).unwrap();
        records.accept_provider(provider(100 + number, peer.public().to_peer_id(), &[]), &host(1, 1));
    }
    assert_eq!(records.placed.total(), MAX_ENTRIES);
    let newcomer = PeerId::random();
    assert!(records.accept_provider(provider(2, newcomer, &[]), &host(8, 1)));
    assert!(records.provides(1, &honest) && records.provides(2, &newcomer));
    records.check();
}

#[test]
fn a_flood_of_bundles_from_one_network_gives_way_to_others() {
    let mut records = records();
    let (first, own, late) = (bundle(250, 1), bundle(251, 1), bundle(252, 1));
    records.take(value(&first, first.bytes()), &host(7, 1)).unwrap();
    records.put(value(&own, own.bytes())).unwrap();
    // Signing thousands of bundles takes long: the giver is what counts.
    let junk = Giver::new(PeerId::random(), Some(&host(1, 1)));
    for number in 0..u32::try_from(MAX_BUNDLES - 2).unwrap() {
        records.bundles.insert(key(number), Record::new(key(number), Vec::new()));
        records.givers.insert(key(number), junk);
        records.given.add(junk);
    }
    assert_eq!(records.take(value(&late, late.bytes()), &host(1, 2)), Err(Refused::Full), "of the same network");
    records.take(value(&late, late.bytes()), &host(8, 1)).unwrap();
    for kept in [first, own, late] {
        assert!(records.get(&bundle_key(&kept.module())).is_some());
    }
    records.check();
}

#[test]
fn local_addresses_of_strangers_are_dropped() {
    let mut records = records();
    let peer = PeerId::random();
    let mixed = provider(1, peer, &["/ip4/127.0.0.1/tcp/1", "/ip4/9.9.9.9/tcp/1"]);
    assert!(records.accept_provider(mixed.clone(), &at("9.9.9.9")));
    assert_eq!(
        records.providers(&mixed.key)[0].addresses,
        [at("9.9.9.9").to_string().replace("4741", "1").parse().unwrap()]
    );
    assert!(records.accept_provider(mixed.clone(), &at("127.0.0.1")));
    assert_eq!(records.providers(&mixed.key)[0].addresses.len(), 2);
    assert!(!records.accept_provider(provider(1, peer, &["/ip4/10.0.0.1/tcp/1"]), &at("9.9.9.9")));
}

#[test]
fn expired_providers_make_room() {
    let mut records = records();
    let peer = PeerId::random();
    let mut old = provider(1, peer, &[]);
    old.expires = Instant::now().checked_sub(Duration::from_secs(1));
    assert!(records.accept_provider(old.clone(), &at("9.9.9.9")));
    let mut stale = value(&bundle(1, 1), bundle(1, 1).bytes());
    stale.expires = old.expires;
    records.take(stale, &at("9.9.9.9")).unwrap();
    records.expire();
    assert!(records.providers(&old.key).is_empty() && records.keys_of.is_empty() && records.bundles.is_empty());
    records.check();
}

#[test]
fn a_restart_keeps_bundles_and_providers() {
    let mut records = records();
    let (newest, own, peer) = (bundle(1, 2), bundle(2, 1), PeerId::random());
    let from = at("9.9.9.9");
    records.take(value(&newest, newest.bytes()), &from).unwrap();
    records.put(value(&own, own.bytes())).unwrap();
    assert!(records.accept_provider(provider(1, peer, &["/ip4/9.9.9.9/tcp/4741"]), &from));
    let written = records.saved().to_bytes();
    let saved = Saved::from_bytes(&written).unwrap();
    let mut again = self::records();
    again.restore(&saved);
    again.check();
    assert_eq!(again.get(&bundle_key(&newest.module())).unwrap().value, newest.bytes());
    assert!(again.get(&bundle_key(&own.module())).is_none(), "its owner holds that, not the memory for others");
    let kept = again.providers(&key(1)).pop().unwrap();
    assert_eq!((kept.provider, kept.addresses), (peer, vec![from]));
    let left = kept.expires.unwrap().saturating_duration_since(Instant::now());
    assert!(left <= MAX_LIFE && left > MAX_LIFE / 2, "{left:?}");
    assert_eq!(again.saved().len(), saved.len());
}

#[test]
fn what_was_tampered_with_on_disk_is_not_taken_back() {
    let mut records = records();
    let newest = bundle(1, 2);
    records.take(value(&newest, newest.bytes()), &at("9.9.9.9")).unwrap();
    let mut written = records.saved().to_bytes();
    assert!(Saved::from_bytes(&written[..written.len() - 1]).is_err() && Saved::from_bytes(b"").is_err());
    let at = written.windows(8).position(|part| part == &newest.bytes()[40..48]).unwrap();
    written[at] ^= 1;
    let mut again = self::records();
    again.restore(&Saved::from_bytes(&written).unwrap());
    assert!(again.bundles.is_empty());
}
