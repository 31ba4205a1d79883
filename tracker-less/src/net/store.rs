//! What this node keeps for the DHT: checked bundles, and providers within bounds per key, peer and network.
//!
//! libp2p's own store lets anyone overwrite a value, and a single peer fill every place for providers.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map},
    iter::Map,
    net::IpAddr,
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
    multiaddr::Protocol,
};

use super::address::Scope;
use crate::record::{CheckedBundle, ModuleId};

/// Bundles kept for others and ourselves: 8 MiB at most.
const MAX_BUNDLES: usize = 2048;
/// Keys with providers.
const MAX_KEYS: usize = 8192;
/// Providers of one key: as many as one answer holds.
const MAX_PROVIDERS: usize = 20;
/// Keys one peer may provide here.
const MAX_KEYS_PER_PEER: usize = 256;
/// Providers of one key from one /24 (IPv4) or /48 (IPv6).
const MAX_PER_NETWORK: usize = 4;
/// Addresses kept of one provider.
const MAX_ADDRESSES: usize = 8;

/// Why a value from a peer was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Not a bundle, or one whose signatures do not hold.
    #[error("not a valid bundle")]
    Invalid,
    /// A bundle of another module than the key says.
    #[error("bundle of another module")]
    OtherModule,
    /// Older than what is stored.
    #[error("older than what is stored")]
    Older,
    /// No room.
    #[error("no room")]
    Full,
}

/// The DHT key of a module's bundle.
pub(super) fn bundle_key(module: &ModuleId) -> RecordKey {
    RecordKey::new(module.as_bytes())
}

/// The bundle in a DHT value, if it is one of this key.
pub(super) fn bundle_in(record: &Record) -> std::result::Result<CheckedBundle, Refused> {
    let bundle = CheckedBundle::verify(&record.value).map_err(|_| Refused::Invalid)?;
    if bundle_key(&bundle.module()) != record.key {
        return Err(Refused::OtherModule);
    }
    Ok(bundle)
}

/// Whether `new` may stand in the place of `old`: a later generation, or the same head at least as fresh.
pub(super) fn supersedes(new: &CheckedBundle, old: &CheckedBundle) -> bool {
    let issued = |bundle: &CheckedBundle| bundle.fresh().map_or(0, |fresh| fresh.issued);
    match new.generation().cmp(&old.generation()) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => new.head_hash() == old.head_hash() && issued(new) >= issued(old),
        std::cmp::Ordering::Less => false,
    }
}

/// The DHT's memory on this node.
pub(super) struct Records {
    own: PeerId,
    bundles: HashMap<RecordKey, Record>,
    providers: HashMap<RecordKey, Vec<Provider>>,
    provided: HashMap<RecordKey, ProviderRecord>,
    /// How many keys each other peer provides here.
    keys_of: HashMap<PeerId, usize>,
}

struct Provider {
    record: ProviderRecord,
    network: Option<[u8; 6]>,
}

impl Records {
    /// An empty memory of the node `own`.
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own,
            bundles: HashMap::new(),
            providers: HashMap::new(),
            provided: HashMap::new(),
            keys_of: HashMap::new(),
        }
    }

    /// Stores a bundle that a peer sent, checked, never in the place of a newer one.
    pub(super) fn accept(&mut self, record: Record) -> std::result::Result<CheckedBundle, Refused> {
        let bundle = bundle_in(&record)?;
        if let Some(stored) = self.bundles.get(&record.key)
            && let Ok(old) = bundle_in(stored)
            && !supersedes(&bundle, &old)
        {
            return Err(Refused::Older);
        }
        self.put(record).map_err(|_| Refused::Full)?;
        Ok(bundle)
    }

    /// Stores a provider that told of itself over a connection to `remote`; false where a bound or the scope forbids it.
    pub(super) fn accept_provider(&mut self, mut record: ProviderRecord, remote: &Multiaddr) -> bool {
        let scope = Scope::of(remote);
        let told = record.addresses.len();
        record.addresses.retain(|address| scope.accepts(address));
        record.addresses.truncate(MAX_ADDRESSES);
        if told > 0 && record.addresses.is_empty() {
            return false;
        }
        let network = network_of(remote);
        self.purge(&record.key);
        let keys = self.keys_of.get(&record.provider).copied().unwrap_or(0);
        if !self.providers.contains_key(&record.key) && self.providers.len() >= MAX_KEYS {
            return false;
        }
        let known = self.providers.entry(record.key.clone()).or_default();
        if let Some(same) = known.iter_mut().find(|other| other.record.provider == record.provider) {
            *same = Provider { record, network };
            return true;
        }
        let near = known.iter().filter(|other| other.network.is_some() && other.network == network).count();
        let fits = known.len() < MAX_PROVIDERS && near < MAX_PER_NETWORK && keys < MAX_KEYS_PER_PEER;
        if fits {
            *self.keys_of.entry(record.provider).or_default() += 1;
            known.push(Provider { record, network });
        } else if known.is_empty() {
            self.providers.remove(&record.key);
        }
        fits
    }

    /// Forgets what has expired, everywhere.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        self.bundles.retain(|_, record| !record.is_expired(now));
        let keys: Vec<RecordKey> = self.providers.keys().cloned().collect();
        for key in keys {
            self.purge(&key);
        }
    }

    fn purge(&mut self, key: &RecordKey) {
        let now = Instant::now();
        let Some(known) = self.providers.get(key) else { return };
        let expired: Vec<PeerId> =
            known.iter().filter(|other| other.record.is_expired(now)).map(|other| other.record.provider).collect();
        for peer in expired {
            self.remove_provider(key, &peer);
        }
    }
}

type Values<'a> = Map<hash_map::Values<'a, RecordKey, Record>, fn(&'a Record) -> Cow<'a, Record>>;
type Provided<'a> =
    Map<hash_map::Values<'a, RecordKey, ProviderRecord>, fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>>;

impl RecordStore for Records {
    type RecordsIter<'a> = Values<'a>;
    type ProvidedIter<'a> = Provided<'a>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.bundles.get(key).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> Result<()> {
        if !self.bundles.contains_key(&record.key) && self.bundles.len() >= MAX_BUNDLES {
            return Err(Error::MaxRecords);
        }
        self.bundles.insert(record.key.clone(), record);
        Ok(())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.bundles.remove(key);
    }

    fn records(&self) -> Values<'_> {
        self.bundles.values().map(Cow::Borrowed)
    }

    /// Only our own come this way; those of others pass [`Records::accept_provider`].
    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if !self.provided.contains_key(&record.key) && self.provided.len() >= MAX_KEYS {
            return Err(Error::MaxProvidedKeys);
        }
        self.provided.insert(record.key.clone(), record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let others = self.providers.get(key).into_iter().flatten().map(|other| other.record.clone());
        self.provided.get(key).cloned().into_iter().chain(others).collect()
    }

    fn provided(&self) -> Provided<'_> {
        self.provided.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        if *peer == self.own {
            self.provided.remove(key);
        }
        let Some(known) = self.providers.get_mut(key) else { return };
        let before = known.len();
        known.retain(|other| other.record.provider != *peer);
        let removed = before - known.len();
        if known.is_empty() {
            self.providers.remove(key);
        }
        if removed > 0
            && let hash_map::Entry::Occupied(mut keys) = self.keys_of.entry(*peer)
        {
            *keys.get_mut() = keys.get().saturating_sub(removed);
            if *keys.get() == 0 {
                keys.remove();
            }
        }
    }
}

/// The /24 or /48 of a public address. Local ones are not told apart: many honest nodes share a site.
fn network_of(address: &Multiaddr) -> Option<[u8; 6]> {
    if Scope::of(address) != Scope::Public {
        return None;
    }
    let ip = address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    })?;
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [0, 0, 0, a, b, c]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, ..] = ip.octets();
            [a, b, c, d, e, f]
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::fixtures::bundle;

    fn records() -> Records {
        Records::new(PeerId::random())
    }

    fn value(key: &CheckedBundle, value: &[u8]) -> Record {
        Record::new(bundle_key(&key.module()), value.to_vec())
    }

    fn provider(key: u32, peer: PeerId, addresses: &[&str]) -> ProviderRecord {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        ProviderRecord::new(RecordKey::new(&key.to_be_bytes()), peer, addresses)
    }

    fn at(host: &str) -> Multiaddr {
        format!("/ip4/{host}/tcp/4741").parse().unwrap()
    }

    #[test]
    fn only_bundles_of_their_key_are_stored_and_none_older() {
        let mut records = records();
        let (old, new, other) = (bundle(1, 1), bundle(1, 2), bundle(2, 1));
        assert_eq!(records.accept(value(&new, b"garbage")), Err(Refused::Invalid));
        assert_eq!(records.accept(value(&new, other.bytes())), Err(Refused::OtherModule));
        assert_eq!(records.accept(value(&new, new.bytes())), Ok(new.clone()));
        assert_eq!(records.accept(value(&new, old.bytes())), Err(Refused::Older));
        assert_eq!(records.accept(value(&new, new.bytes())), Ok(new.clone()));
        assert_eq!(records.get(&bundle_key(&new.module())).unwrap().value, new.bytes());
    }

    #[test]
    fn one_network_does_not_fill_a_key() {
        let mut records = records();
        let mut accept = |remote: &str| records.accept_provider(provider(1, PeerId::random(), &[]), &at(remote));
        let stored = (1..=9).filter(|host| accept(&format!("9.9.9.{host}"))).count();
        assert_eq!(stored, MAX_PER_NETWORK);
        let stored = (1..=60).filter(|net| accept(&format!("9.9.{}.1", 100 + net))).count();
        assert_eq!(stored, MAX_PROVIDERS - MAX_PER_NETWORK);
    }

    #[test]
    fn one_peer_does_not_fill_the_store_and_gets_its_places_back() {
        let mut records = records();
        let peer = PeerId::random();
        let mut accept = |key| records.accept_provider(provider(key, peer, &[]), &at("9.9.9.9"));
        assert_eq!((0..1000).filter(|key| accept(*key)).count(), MAX_KEYS_PER_PEER);
        assert!(accept(0), "a place it has can be renewed");
        records.remove_provider(&RecordKey::new(&0u32.to_be_bytes()), &peer);
        assert!(records.accept_provider(provider(2000, peer, &[]), &at("9.9.9.9")));
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
        records.expire();
        assert!(records.providers(&old.key).is_empty() && records.keys_of.is_empty());
    }
}
