//! What the DHT's memory holds for others as plain data: for a file, and for the next event loop.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{MAX_ADDRESSES, MAX_LIFE, Records, places::Provider, shares::SavedGiver};
use crate::net::run::unix_now;

/// Most bytes of the written form; what does not fit is left out, bundles last.
pub const MAX_SAVED: usize = 16 << 20;
/// What the names and lengths of one entry take in it, at most, beside its bytes.
const FRAME: usize = 128;

/// Bundles and providers with the times at which they expire, seconds since 1970. Nothing of it is trusted when it comes back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    bundles: Vec<SavedBundle>,
    providers: Vec<SavedProvider>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedBundle {
    key: ByteBuf,
    bytes: ByteBuf,
    giver: SavedGiver,
    until: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedProvider {
    key: ByteBuf,
    peer: ByteBuf,
    addresses: Vec<ByteBuf>,
    giver: SavedGiver,
    until: u64,
}

impl Saved {
    /// How many bundles and providers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bundles.len() + self.providers.len()
    }

    /// Nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The written form, [`MAX_SAVED`] bytes at most.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut room = MAX_SAVED - FRAME;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes + FRAME);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let bundles = self.bundles.iter().filter(|one| fits(one.key.len() + one.bytes.len())).cloned().collect();
        let long = |one: &SavedProvider| one.addresses.iter().map(|address| address.len() + 8).sum::<usize>();
        let providers = self.providers.iter().filter(|one| fits(one.key.len() + long(one))).cloned().collect();
        // These types always encode.
        serde_ipld_dagcbor::to_vec(&Self { bundles, providers }).unwrap_or_default()
    }

    /// Reads the written form.
    ///
    /// # Errors
    /// Not written by this program, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        serde_ipld_dagcbor::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// The time at which an entry expires, which on disk cannot be one of this process's clock.
fn until(expires: Option<Instant>) -> u64 {
    let left = expires.map_or(MAX_LIFE, |expires| expires.saturating_duration_since(Instant::now()));
    unix_now().saturating_add(left.min(MAX_LIFE).as_secs())
}

/// The same of this process's clock; none where the time is over. A clock that jumped makes nothing live for ever.
fn expires(until: u64) -> Option<Instant> {
    let left = until.checked_sub(unix_now()).filter(|left| *left > 0)?;
    Some(Instant::now() + Duration::from_secs(left).min(MAX_LIFE))
}

impl Records {
    /// What is held for others; what this node itself announces it knows from elsewhere.
    pub(in crate::net) fn saved(&self) -> Saved {
        let bundles = self.givers.iter().filter_map(|(key, giver)| {
            let record = self.bundles.get(key)?;
            Some(SavedBundle {
                key: ByteBuf::from(key.to_vec()),
                bytes: ByteBuf::from(record.value.clone()),
                giver: (*giver).into(),
                until: until(record.expires),
            })
        });
        let providers = self.providers.values().flatten().map(|provider| SavedProvider {
            key: ByteBuf::from(provider.record.key.to_vec()),
            peer: ByteBuf::from(provider.record.provider.to_bytes()),
            addresses: provider.record.addresses.iter().map(|address| ByteBuf::from(address.to_vec())).collect(),
            giver: provider.giver.into(),
            until: until(provider.record.expires),
        });
        Saved { bundles: bundles.collect(), providers: providers.collect() }
    }

    /// Takes back what is still valid, within all bounds.
    pub(in crate::net) fn restore(&mut self, saved: &Saved) {
        for one in &saved.bundles {
            let (Some(expires), Some(giver)) = (expires(one.until), one.giver.giver()) else { continue };
            let record = Record {
                key: RecordKey::from(one.key.to_vec()),
                value: one.bytes.to_vec(),
                publisher: None,
                expires: Some(expires),
            };
            if let Err(refused) = self.admit(record, giver) {
                tracing::debug!(%refused, "bundle not restored");
            }
        }
        for one in &saved.providers {
            let Some(provider) = provider(one).filter(|one| one.record.provider != self.own) else { continue };
            self.place(provider);
        }
    }
}

fn provider(saved: &SavedProvider) -> Option<Provider> {
    let addresses = saved.addresses.iter().take(MAX_ADDRESSES);
    let record = ProviderRecord {
        key: RecordKey::from(saved.key.to_vec()),
        provider: PeerId::from_bytes(&saved.peer).ok()?,
        expires: Some(expires(saved.until)?),
        addresses: addresses.filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()).collect(),
    };
    Some(Provider { record, giver: saved.giver.giver()? })
}
