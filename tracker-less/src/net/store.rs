//! What this node keeps for the DHT: checked bundles, and providers within bounds per key, peer and network.
//!
//! libp2p's own store lets anyone overwrite a value, and a single peer fill every place for providers. Here the places of one key
//! are drawn by lot ([`places`]), and when all is full, whoever takes the most room gives way ([`shares`]).

mod places;
mod saved;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map},
    iter::Map,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};

pub use self::saved::{MAX_SAVED, Saved};
use self::{
    places::{Lots, Provider, offer},
    shares::{Giver, Shares},
};
use super::address::Scope;
use crate::record::{CheckedBundle, ModuleId};

/// Bundles kept for others and ourselves: 8 MiB at most.
const MAX_BUNDLES: usize = 2048;
/// Providers in all, and keys that this node itself provides.
const MAX_ENTRIES: usize = 16 * 1024;
const MAX_PROVIDED: usize = 8192;
/// Keys one peer may provide here.
const MAX_KEYS_PER_PEER: usize = 256;
/// Addresses kept of one provider.
const MAX_ADDRESSES: usize = 8;
/// Nothing is kept for longer without being told again.
const MAX_LIFE: Duration = Duration::from_secs(48 * 60 * 60);

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
    lots: Lots,
    bundles: HashMap<RecordKey, Record>,
    /// Who gave the bundles that are not our own.
    givers: HashMap<RecordKey, Giver>,
    given: Shares,
    providers: HashMap<RecordKey, Vec<Provider>>,
    /// How many places each network has, whatever the key.
    placed: Shares,
    /// How many keys each other peer provides here.
    keys_of: HashMap<PeerId, usize>,
    provided: HashMap<RecordKey, ProviderRecord>,
}

impl Records {
    /// An empty memory of the node `own`, whose lots nobody can foresee who does not know `secret`.
    pub(super) fn new(own: PeerId, secret: &[u8]) -> Self {
        Self {
            own,
            lots: Lots::new(secret),
            bundles: HashMap::new(),
            givers: HashMap::new(),
            given: Shares::default(),
            providers: HashMap::new(),
            placed: Shares::default(),
            keys_of: HashMap::new(),
            provided: HashMap::new(),
        }
    }

    /// Stores a bundle that `source` sent over a connection to `remote`, checked, never in the place of a newer one.
    pub(super) fn accept(
        &mut self,
        record: Record,
        source: PeerId,
        remote: Option<&Multiaddr>,
    ) -> std::result::Result<CheckedBundle, Refused> {
        self.admit(record, Giver::new(source, remote))
    }

    fn admit(&mut self, mut record: Record, giver: Giver) -> std::result::Result<CheckedBundle, Refused> {
        let bundle = bundle_in(&record)?;
        let latest = Instant::now() + MAX_LIFE;
        record.expires = Some(record.expires.map_or(latest, |expires| expires.min(latest)));
        let key = record.key.clone();
        match self.bundles.get(&key) {
            Some(stored) if bundle_in(stored).is_ok_and(|old| !supersedes(&bundle, &old)) => {
                return Err(Refused::Older);
            }
            // Our own word stays ours, and does not expire; only its bytes become newer.
            Some(stored) => {
                if !self.givers.contains_key(&key) {
                    record.expires = stored.expires;
                }
                self.bundles.insert(key, record);
                return Ok(bundle);
            }
            None => {}
        }
        if self.bundles.len() >= MAX_BUNDLES {
            self.make_room_for(giver)?;
        }
        self.bundles.insert(key.clone(), record);
        self.given.add(giver);
        self.givers.insert(key, giver);
        Ok(bundle)
    }

    /// Drops a bundle of whoever gave the most, if that is more than `giver` did.
    fn make_room_for(&mut self, giver: Giver) -> std::result::Result<(), Refused> {
        let greediest = self.given.greedier_than(&giver).ok_or(Refused::Full)?;
        let key = self.givers.iter().find(|(_, other)| **other == greediest).map(|(key, _)| key.clone());
        self.remove(&key.ok_or(Refused::Full)?);
        Ok(())
    }

    /// Stores a provider that told of itself over a connection to `remote`; false where a bound, the lot or the scope forbids it.
    pub(super) fn accept_provider(&mut self, mut record: ProviderRecord, remote: &Multiaddr) -> bool {
        let scope = Scope::of(remote);
        let told = record.addresses.len();
        record.addresses.retain(|address| scope.accepts(address));
        record.addresses.truncate(MAX_ADDRESSES);
        if told > 0 && record.addresses.is_empty() {
            return false;
        }
        let giver = Giver::new(record.provider, Some(remote));
        self.place(Provider { record, giver })
    }

    fn place(&mut self, mut new: Provider) -> bool {
        let latest = Instant::now() + MAX_LIFE;
        new.record.expires = Some(new.record.expires.map_or(latest, |expires| expires.min(latest)));
        let (key, peer) = (new.record.key.clone(), new.record.provider);
        self.purge(&key);
        let known = self.providers.get(&key).map(Vec::as_slice).unwrap_or_default();
        let is_known = known.iter().any(|other| other.record.provider == peer);
        if !is_known && self.keys_of.get(&peer).is_some_and(|keys| *keys >= MAX_KEYS_PER_PEER) {
            return false;
        }
        let Some(gives_way) = offer(known, &new, &self.lots) else { return false };
        if let Some(other) = gives_way {
            self.remove_provider(&key, &other);
        } else if self.placed.total() >= MAX_ENTRIES && !self.make_place_for(new.giver) {
            return false;
        }
        *self.keys_of.entry(peer).or_default() += 1;
        self.placed.add(new.giver);
        self.providers.entry(key).or_default().push(new);
        true
    }

    /// Drops a provider of whatever network has the most places, if that has more than `giver`'s.
    fn make_place_for(&mut self, giver: Giver) -> bool {
        let Some(greediest) = self.placed.greedier_than(&giver) else { return false };
        let mut all = self.providers.iter().flat_map(|(key, known)| known.iter().map(move |other| (key, other)));
        let found = all.find(|(_, other)| other.giver == greediest);
        let Some((key, peer)) = found.map(|(key, other)| (key.clone(), other.record.provider)) else { return false };
        self.remove_provider(&key, &peer);
        true
    }

    /// Forgets what has expired, everywhere.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let old: Vec<RecordKey> =
            self.bundles.values().filter(|record| record.is_expired(now)).map(|record| record.key.clone()).collect();
        old.iter().for_each(|key| self.remove(key));
        let keys: Vec<RecordKey> = self.providers.keys().cloned().collect();
        keys.iter().for_each(|key| self.purge(key));
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

    /// Only our own come this way; those of others pass [`Records::accept`].
    fn put(&mut self, record: Record) -> Result<()> {
        if let Some(giver) = self.givers.remove(&record.key) {
            self.given.drop_one(&giver);
        } else if self.bundles.len() >= MAX_BUNDLES && !self.bundles.contains_key(&record.key) {
            let key = self.givers.keys().next().cloned().ok_or(Error::MaxRecords)?;
            self.remove(&key);
        }
        self.bundles.insert(record.key.clone(), record);
        Ok(())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.bundles.remove(key);
        if let Some(giver) = self.givers.remove(key) {
            self.given.drop_one(&giver);
        }
    }

    fn records(&self) -> Values<'_> {
        self.bundles.values().map(Cow::Borrowed)
    }

    /// Only our own come this way; those of others pass [`Records::accept_provider`].
    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if !self.provided.contains_key(&record.key) && self.provided.len() >= MAX_PROVIDED {
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
        let Some(index) = known.iter().position(|other| other.record.provider == *peer) else { return };
        let removed = known.swap_remove(index);
        if known.is_empty() {
            self.providers.remove(key);
        }
        self.placed.drop_one(&removed.giver);
        if let hash_map::Entry::Occupied(mut keys) = self.keys_of.entry(*peer) {
            *keys.get_mut() = keys.get().saturating_sub(1);
            if *keys.get() == 0 {
                keys.remove();
            }
        }
    }
}
