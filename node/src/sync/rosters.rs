//! Rosters that another node told with a head: those that are news, and the lists they point at.

use serde_bytes::ByteBuf;
use tracker_less::machine::{Event, Judgement};
use tracker_less::record::{CheckedRoster, ModuleId};

use super::Node;
use crate::wire::client::PeerClient;

/// When the latest roster known here was issued, seconds since the epoch: later ones are asked for.
pub(super) async fn since(node: &Node, module: ModuleId) -> u64 {
    node.swarm.rosters(module).await.first().map_or(0, |(roster, _)| roster.roster().issued)
}

/// Tells the machine of rosters, and fetches the lists of those that are news from the same node.
///
/// # Errors
/// A roster that does not verify, or the stream fails.
pub(super) async fn take(
    node: &Node,
    module: ModuleId,
    client: &PeerClient,
    rosters: Vec<ByteBuf>,
) -> Result<(), String> {
    for bytes in rosters.into_iter().map(ByteBuf::into_vec) {
        let roster = CheckedRoster::verify(&bytes).map_err(|error| error.to_string())?;
        let heard = Event::Roster { bytes: bytes.clone(), list: None };
        if roster.roster().module != module || node.swarm.tell(heard).await != Judgement::Accept {
            continue;
        }
        let pages = client.pages(module, &[roster.roster().list]).await.map_err(|error| error.to_string())?;
        if let Some(list) = pages.into_iter().next().flatten() {
            node.swarm.tell(Event::Roster { bytes, list: Some(list) }).await;
        }
    }
    Ok(())
}
