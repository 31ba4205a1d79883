//! The keys of a node and of its publishers, and the Fresh records they sign.

use std::sync::Arc;

use tracker_less::record::SecretKey;

use super::{FRESH_FOR, StartError, export_placed, hold};
use crate::store::state::State;
use crate::sync::keys::{Keys, refresh};
use crate::sync::marks::placed_bundle;
use crate::sync::{ModuleRef, Node, SyncError, unix_now};

/// 32 random bytes: a key's seed.
///
/// # Errors
/// The system has none.
pub fn random() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::Random { reason: error.to_string() })?;
    Ok(seed)
}

/// The identity of the state's lasting node, made if absent.
pub(super) fn lasting_key(state: &State) -> Result<SecretKey, StartError> {
    if let Some(seed) = state.node_key().map_err(SyncError::from)? {
        return Ok(SecretKey::from_seed(seed));
    }
    let seed = random()?;
    state.add_node_key(&seed).map_err(SyncError::from)?;
    Ok(SecretKey::from_seed(seed))
}

/// Makes a publisher key. That its directory of modules exists says that its history is known on this machine.
///
/// # Errors
/// The name is taken, or the state fails.
pub fn make_key(state: &State, name: &str) -> Result<SecretKey, StartError> {
    let key = SecretKey::from_seed(random()?);
    state.add_key(name, &key.seed()).map_err(SyncError::from)?;
    let publisher = key.public().publisher().to_string();
    state.module(&publisher, "history").map_err(SyncError::from)?;
    Ok(key)
}

/// A new Fresh record at half the life of the old one, where this node may sign one: by the publisher's key, or by its own
/// where the charter names that. Only for what was published here: a thief's head is left to grow old.
pub(super) async fn renew(node: &Arc<Node>, module: &ModuleRef) -> Result<(), SyncError> {
    let registration = node.marks(module)?.registration()?;
    let Some((registration, name)) = registration.and_then(|found| found.key.clone().map(|key| (found, key))) else {
        return Ok(());
    };
    let (placed, Some(bundle)) = (placed_bundle(&node.marks(module)?)?, node.seen(module)?) else { return Ok(()) };
    let due = bundle.fresh().is_none_or(|fresh| unix_now() >= fresh.issued + (fresh.until - fresh.issued) / 2);
    if !due {
        return Ok(());
    }
    if placed.is_none_or(|placed| placed.head_hash() != bundle.head_hash()) {
        tracing::error!(%module, newest = %bundle.generation(), "somebody else signed the newest head: murmir rotate?");
        return Ok(());
    }
    let own = node.state.node_key()?.map(SecretKey::from_seed);
    let own = own.filter(|key| bundle.charter().fresh.contains(&key.public()));
    let keys = Keys::load(&node.state, &name)?;
    let Some(key) = keys.and_then(|keys| keys.signer(bundle.charter()).ok().cloned()).or(own) else { return Ok(()) };
    let lasts = registration.fresh.map_or(FRESH_FOR, u64::from);
    node.witness(&refresh(&key, &bundle, lasts, unix_now())?).await?;
    hold(node, module).await?;
    export_placed(node, module).await
}
