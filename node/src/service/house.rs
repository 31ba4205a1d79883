//! What a running node does from time to time: Fresh records, the caches on disk, what the mirror book has for others, what is old.

use std::sync::Arc;
use std::time::Duration;

use tracker_less::net::Saved;

use super::{Settings, hold, outboards, renew, selected};
use crate::manifest::path::TreePath;
use crate::store::state::{Role, State};
use crate::sync::marks::placed_bundle;
use crate::sync::publish;
use crate::sync::source::Finder;
use crate::sync::{ModuleRef, Node, SyncError, pages, sweep, unix_now};

/// How often the nominations that are passed on are taken from the mirror book.
const SHARING: Duration = Duration::from_secs(2);
/// Fresh records and the peer cache are looked at once in so many rounds of that.
const HOUSEKEEPING: u64 = 30;
/// What is kept for the DHT is written once in so many rounds.
const KEEPING: u64 = 150;
/// Pages and outboards that nobody needs any more are looked for once in so many rounds: a day.
const SWEEPING: u64 = 24 * 3600 / 2;
/// How often a registered tree is looked for in the index.
const MENDING: Duration = Duration::from_secs(60);

/// Renews Fresh records, keeps the peer cache, shares what the mirror book has.
pub(super) async fn keep_house(node: Arc<Node>) {
    let mut tick = tokio::time::interval(SHARING);
    for round in 1u64.. {
        tick.tick().await;
        for module in node.shelf.modules() {
            let known = node.swarm.mirrors(module).await;
            node.shelf.set_nominations(module, known.iter().map(|one| one.bytes().to_vec()).collect());
        }
        if round.is_multiple_of(KEEPING) {
            keep_records(&node).await;
        }
        if round % HOUSEKEEPING == 1 {
            remember_peers(&node).await;
            for held in node.shelf.holdings() {
                let module = ModuleRef::of(&held.bundle);
                if let Err(error) = renew(&node, &module).await {
                    tracing::error!(%module, %error, "the Fresh record could not be renewed");
                }
            }
            clear_up(Arc::clone(&node), round % SWEEPING == 1).await;
        }
    }
}

/// Brings back what the index lost of registered trees: from others, or from the publisher's own directory.
pub(super) async fn mend(node: Arc<Node>) {
    let mut tick = tokio::time::interval(MENDING);
    loop {
        tick.tick().await;
        let registered = node.state.registered().unwrap_or_default();
        for (publisher, name) in registered {
            let (Ok(publisher), Ok(name)) = (publisher.parse(), name.parse()) else { continue };
            let module = ModuleRef::new(publisher, name);
            if let Err(error) = mend_one(&node, &module).await {
                tracing::error!(%module, %error, "the index lost its tree, which could not be brought back yet");
            }
        }
    }
}

async fn mend_one(node: &Arc<Node>, module: &ModuleRef) -> Result<(), SyncError> {
    let marks = node.marks(module)?;
    let (Some(registration), Some(bundle)) = (marks.registration()?, placed_bundle(&marks)?) else { return Ok(()) };
    let (root, select) = (*bundle.root(), selected(&registration)?);
    if node.index.page(&root)?.is_some() {
        return Ok(());
    }
    tracing::warn!(%module, "the index lost its tree, which is brought back");
    let mut finder = Finder::start(Arc::clone(node), module.clone(), Vec::new());
    let brought = pages::bring(node, module, (root, None), &select, &mut Vec::new(), &mut finder).await;
    if brought.is_err() && registration.role == Role::Publisher {
        let (node, outboards) = (Arc::clone(node), outboards(&node.state, &module.id)?);
        let work = move || {
            let select = registration.selection.selector(TreePath::root(), None);
            let select = select.map_err(|error| SyncError::BadState { reason: error.to_string() })?;
            publish::rebuild(&node.index, &outboards, &registration, &select)
        };
        let rebuilt = tokio::task::spawn_blocking(work).await;
        let rebuilt = rebuilt.map_err(|error| SyncError::Worker { reason: error.to_string() })??;
        tracing::info!(%module, unchanged = rebuilt == root, "scanned anew");
    } else {
        brought?;
    }
    hold(node, module).await
}

/// Removes superseded files whose time is over, and once a day what nobody needs any more.
async fn clear_up(node: Arc<Node>, all: bool) {
    let work = move || {
        sweep::superseded(&node, unix_now())?;
        if all { sweep::forgotten(&node, unix_now()) } else { Ok(()) }
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Err(error)) => tracing::warn!(%error, "not everything old could be removed"),
        Err(error) => tracing::warn!(%error, "clearing up"),
        Ok(Ok(())) => {}
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
