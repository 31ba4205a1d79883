//! What a running node does from time to time: Fresh records, the caches on disk, what the mirror book has for others.

use std::sync::Arc;
use std::time::Duration;

use tracker_less::net::Saved;

use super::Settings;
use super::keys::renew;
use crate::store::state::State;
use crate::sync::{ModuleRef, Node};

/// How often the nominations that are passed on are taken from the mirror book.
const SHARING: Duration = Duration::from_secs(2);
/// Fresh records and the peer cache are looked at once in so many rounds of that.
const HOUSEKEEPING: u64 = 30;
/// What is kept for the DHT is written once in so many rounds.
const KEEPING: u64 = 150;

/// Renews Fresh records, keeps the peer cache, shares what the mirror book has.
pub(super) async fn keep_house(node: Arc<Node>) {
    let mut tick = tokio::time::interval(SHARING);
    for round in 1u64.. {
        tick.tick().await;
        let modules: Vec<ModuleRef> = node.shelf.holdings().iter().map(|held| ModuleRef::of(&held.bundle)).collect();
        for module in &modules {
            let known = node.swarm.mirrors(module.id).await;
            node.shelf.set_nominations(module.id, known.iter().map(|one| one.bytes().to_vec()).collect());
        }
        if round.is_multiple_of(KEEPING) {
            keep_records(&node).await;
        }
        if round % HOUSEKEEPING == 1 {
            remember_peers(&node).await;
            for module in &modules {
                if let Err(error) = renew(&node, module).await {
                    tracing::error!(%module, %error, "the Fresh record could not be renewed");
                }
            }
        }
    }
}

/// Adds those that were reached to the peer cache.
pub(super) async fn remember_peers(node: &Node) {
    let addresses: Vec<String> = node.swarm.dialable().await.iter().map(ToString::to_string).collect();
    if !addresses.is_empty()
        && let Err(error) = node.state.add_peers(&addresses)
    {
        tracing::warn!(%error, "peer cache not kept");
    }
}

/// What an earlier run of a lasting node kept for the DHT. It can be had again: a damaged file is no reason not to start.
pub(super) fn records(settings: &Settings, state: &State) -> Saved {
    if !settings.serve {
        return Saved::default();
    }
    let read = state.records().map_err(|error| error.to_string());
    let saved = read.and_then(|bytes| bytes.map(|bytes| Saved::from_bytes(&bytes)).transpose());
    saved
        .unwrap_or_else(|error| {
            tracing::warn!(error, "what was kept for the DHT cannot be read: begun anew");
            None
        })
        .unwrap_or_default()
}

/// Writes what is kept for the DHT, so that a restart does not lose it.
pub(super) async fn keep_records(node: &Arc<Node>) {
    let (saved, state) = (node.swarm.saved().await, Arc::clone(&node.state));
    let write = tokio::task::spawn_blocking(move || state.set_records(&saved.to_bytes()));
    match write.await {
        Ok(Err(error)) => tracing::warn!(%error, "what is kept for the DHT is not on disk"),
        Err(error) => tracing::warn!(%error, "what is kept for the DHT is not on disk"),
        Ok(Ok(())) => {}
    }
}
