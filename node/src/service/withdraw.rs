//! Taking back what a node has said of itself.

use tracker_less::machine::Event;
use tracker_less::record::{CheckedNomination, Coverage, Nomination};

use super::{Service, StartError, lasting_key};
use crate::sync::{ModuleRef, SyncError, unix_now};

impl Service {
    /// Offers a module to nobody any more, and says so: by gossip at once, in hello to whoever asks.
    ///
    /// # Errors
    /// The state fails.
    pub async fn withdraw(&self, module: &ModuleRef) -> Result<(), StartError> {
        let node = &self.node;
        let own = node.swarm.peer_id();
        let said = node.swarm.mirrors(module.id).await.into_iter().find(|mirror| mirror.peer() == own);
        // For a while: whoever comes soon hears of it as well.
        let _watch = node.swarm.watch(module.id).await;
        node.swarm.tell(Event::Release { module: module.id }).await;
        node.shelf.remove(&module.id);
        if let Some(seen) = node.seen(module)? {
            node.shelf.heard_of(&seen);
        }
        let Some(said) = said.filter(|_| self.serves()) else { return Ok(()) };
        let last = said.nomination();
        let issued = unix_now().max(last.issued.saturating_add(1));
        let until = issued.saturating_add(last.until.saturating_sub(last.issued));
        let taken_back = Nomination { coverage: Coverage::NONE, issued, until, ..last.clone() };
        let signed = CheckedNomination::sign(&lasting_key(&node.state)?, &taken_back).map_err(SyncError::from)?;
        node.shelf.set_nominations(module.id, vec![signed.bytes().to_vec()]);
        Ok(())
    }
}
