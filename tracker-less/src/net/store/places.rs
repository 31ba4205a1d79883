//! The places for providers of one key. There are as many as one answer holds; who gets them is decided by networks first and by
//! lot second, so that neither coming first nor coming again and again wins.

use libp2p::{
    PeerId,
    kad::{ProviderRecord, RecordKey},
};

use super::shares::Giver;

/// Providers of one key: as many as one answer holds.
pub(super) const MAX_PROVIDERS: usize = 20;
/// Providers of one key from one network.
pub(super) const MAX_PER_NETWORK: usize = 4;

/// Draws lots that depend on a secret of this node: nobody can choose an id that wins.
#[derive(Clone, Copy)]
pub(super) struct Lots {
    secret: [u8; 32],
}

impl Lots {
    /// Lots of one node, the same after a restart.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self { secret: blake3::derive_key("murmir provider lots v1", secret) }
    }

    /// The lot of a peer at a key; the lowest ones get the places.
    fn draw(&self, key: &RecordKey, peer: &PeerId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(key.as_ref()).update(&peer.to_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// A provider of one key.
pub(super) struct Provider {
    pub(super) record: ProviderRecord,
    pub(super) giver: Giver,
}

/// Whether `new` gets a place among those that are `known`, and who gives way to it. Whoever has a place already renews it.
pub(super) fn offer(known: &[Provider], new: &Provider, lots: &Lots) -> Option<Option<PeerId>> {
    let peer = new.record.provider;
    if known.iter().any(|other| other.record.provider == peer) {
        return Some(Some(peer));
    }
    let count = |giver: &Giver| known.iter().filter(|other| other.giver == *giver).count();
    let own = count(&new.giver);
    let lot = |provider: &Provider| lots.draw(&provider.record.key, &provider.record.provider);
    if own >= MAX_PER_NETWORK {
        return last(known.iter().filter(|other| other.giver == new.giver), lot, Some(new));
    }
    if known.len() < MAX_PROVIDERS {
        return Some(None);
    }
    // The network that has the most places loses one to a network that has fewer, whatever the lots say.
    let most = known.iter().map(|other| count(&other.giver)).max().unwrap_or(0);
    let crowded = known.iter().filter(|other| count(&other.giver) == most);
    last(crowded, lot, (most <= own + 1).then_some(new))
}

/// Whoever drew the highest lot, if `against` drew a lower one or does not have to.
fn last<'a>(
    among: impl Iterator<Item = &'a Provider>,
    lot: impl Fn(&Provider) -> [u8; 32],
    against: Option<&Provider>,
) -> Option<Option<PeerId>> {
    let worst = among.max_by_key(|other| lot(other))?;
    let wins = against.is_none_or(|new| lot(new) < lot(worst));
    wins.then_some(Some(worst.record.provider))
}
