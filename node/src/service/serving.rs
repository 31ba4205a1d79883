//! What peers get from here, and what serving them brings to light.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tracker_less::machine::Event;
use tracker_less::net;

use crate::sync::shelf::Notice;
use crate::sync::{ModuleRef, Node};
use crate::wire::{self, Limits};

/// Serves every inbound stream in a task of its own.
pub(super) async fn accept(node: Arc<Node>, incoming: Arc<Mutex<net::Incoming>>, limits: Limits) {
    let (mut streams, mut incoming) = (JoinSet::new(), incoming.lock().await);
    while let Some((peer, stream)) = incoming.recv().await {
        while streams.try_join_next().is_some() {}
        let (shelf, limits) = (Arc::clone(&node.shelf), limits.clone());
        streams.spawn(async move {
            if let Err(error) = wire::serve_stream(stream, peer, shelf, limits).await {
                tracing::debug!(%peer, %error, "stream ended");
            }
        });
    }
}

/// What serving brought to light.
pub(super) async fn attend(node: Arc<Node>, notices: Arc<Mutex<mpsc::Receiver<Notice>>>) {
    let mut notices = notices.lock().await;
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Heard { from, bundles, nominations } => {
                for bytes in bundles {
                    node.swarm.tell(Event::Bundle { bytes }).await;
                }
                for bytes in nominations {
                    node.swarm.tell(Event::Nomination { bytes, from }).await;
                }
            }
            Notice::Damaged(module) => {
                let Some(holding) = node.shelf.holding(&module) else { continue };
                let reference = ModuleRef::of(&holding.bundle);
                let placed = node.placed_root(&reference, &holding.ground.path);
                if !placed.is_ok_and(|root| root == Some(*holding.bundle.root())) {
                    // The next generation stands there already; soon it is the one held.
                    continue;
                }
                let paths: Vec<Vec<u8>> = holding.damaged().iter().map(|path| path.as_bytes().to_vec()).collect();
                let kept = node.marks(&reference).map(|marks| marks.set_damaged(&paths));
                if !matches!(kept, Ok(Ok(()))) {
                    tracing::error!("the list of damaged files could not be kept");
                }
                node.swarm.tell(holding.event()).await;
            }
        }
    }
}
