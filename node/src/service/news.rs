//! What the swarm tells: heads and rosters reach the disk, mirrors are probed, lists asked for.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tracker_less::machine::Event;
use tracker_less::net::{Events, NetEvent};
use tracker_less::record::{CheckedRoster, ModuleId, RosterList};

use crate::sync::probe::probe;
use crate::sync::{ModuleRef, Node, SyncError};
use crate::wire::client::PeerClient;
use crate::wire::msg::Hello;
use crate::wire::{Deadlines, Error};

/// Probes and questions under way; what does not fit comes again.
const MAX_ERRANDS: usize = 32;
/// Nodes asked for one list.
const MAX_ASKED: usize = 8;

/// Takes what the swarm tells until it ends. A newer head is told to whoever waits for one.
pub(super) async fn listen(node: Arc<Node>, events: Arc<Mutex<Events>>, news: Arc<Notify>) {
    let (mut errands, mut events) = (JoinSet::new(), events.lock().await);
    while let Some(event) = events.recv().await {
        while errands.try_join_next().is_some() {}
        let (shared, is_free) = (Arc::clone(&node), errands.len() < MAX_ERRANDS);
        match event {
            NetEvent::Head { bundle, .. } => {
                if let Err(error) = node.note_seen(&bundle) {
                    tracing::error!(%error, "the newest head could not be kept");
                }
                node.shelf.heard_of(&bundle);
                news.notify_one();
            }
            NetEvent::Forked { module, fork } => {
                tracing::error!(%module, "fork: two heads contradict each other; both are kept as proof");
                if let Err(error) = node.note_fork(&fork) {
                    tracing::error!(%error, "the proof of a fork could not be kept");
                }
            }
            NetEvent::Rosters { module, rosters } => {
                if let Err(error) = keep(&node, module, &rosters).await {
                    tracing::error!(%module, %error, "the rosters could not be kept");
                }
                node.shelf.set_rosters(module, rosters);
            }
            NetEvent::Probe(wanted) if is_free => {
                errands.spawn(async move {
                    let Some(outcome) = probe(&shared, &wanted).await else { return };
                    tracing::debug!(peer = %wanted.peer, generation = %wanted.generation, ?outcome, "probed");
                    let (module, peer) = (wanted.module, wanted.peer);
                    shared.swarm.tell(Event::Probed { module, peer, outcome }).await;
                });
            }
            NetEvent::WantList { roster } if is_free => {
                errands.spawn(async move { bring(&shared, &roster).await });
            }
            _ => {}
        }
    }
}

async fn keep(node: &Node, module: ModuleId, rosters: &[(CheckedRoster, RosterList)]) -> Result<(), SyncError> {
    let Some(bundle) = node.swarm.newest(module).await else { return Ok(()) };
    let pairs: Vec<_> = rosters.iter().map(|(roster, list)| (roster.bytes(), list.bytes())).collect();
    Ok(node.marks(&ModuleRef::of(&bundle))?.set_rosters(&pairs)?)
}

/// Asks the tracker, then the connected nodes, for the list of a roster.
async fn bring(node: &Node, roster: &CheckedRoster) {
    let connected = node.swarm.peers().await.into_iter().map(|row| row.peer);
    let others = connected.filter(|peer| *peer != roster.tracker()).take(MAX_ASKED);
    for peer in [roster.tracker()].into_iter().chain(others).filter(|peer| *peer != node.swarm.peer_id()) {
        let Ok(stream) = node.swarm.open(peer).await else { continue };
        let list = async {
            let client = PeerClient::start(stream, Hello::ours(), Deadlines::default());
            let pages = client.pages(roster.roster().module, &[roster.roster().list]).await?;
            Ok::<_, Error>(pages.into_iter().next().flatten())
        };
        if let Ok(Some(list)) = list.await {
            let bytes = roster.bytes().to_vec();
            node.swarm.tell(Event::Roster { bytes, list: Some(list) }).await;
            return;
        }
    }
}
