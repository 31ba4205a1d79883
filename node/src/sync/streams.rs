//! Streams that a run leaves open, for the next run to go on with: no new hello, no new negotiation.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

use crate::wire::client::PeerClient;

/// Most streams that are kept. The other side ends each when it was idle for some minutes.
const MAX_KEPT: usize = 32;

/// One stream to a peer at the most.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<PeerId, PeerClient>>);

impl Streams {
    /// The stream to a peer, if one was kept that lives and that no other run is using.
    pub fn take(&self, peer: &PeerId) -> Option<PeerClient> {
        let mut kept = self.lock();
        if kept.get(peer)?.is_shared() {
            return None;
        }
        kept.remove(peer).filter(|client| client.ended().is_none())
    }

    /// Keeps a stream, also while it is in use.
    pub fn keep(&self, peer: PeerId, client: PeerClient) {
        let mut kept = self.lock();
        kept.retain(|_, client| client.ended().is_none());
        if kept.len() < MAX_KEPT {
            kept.insert(peer, client);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, PeerClient>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;
    use crate::wire::Deadlines;
    use crate::wire::msg::Hello;

    #[tokio::test]
    async fn a_kept_stream_is_anothers_once_it_is_free_and_while_it_lives() {
        let (near, far) = tokio::io::duplex(1000);
        let client = PeerClient::start(near.compat(), Hello::ours(), Deadlines::default());
        let (streams, peer) = (Streams::default(), PeerId::random());
        streams.keep(peer, client.clone());
        assert!(streams.take(&peer).is_none(), "in use");
        drop(client);
        let client = streams.take(&peer).expect("free now");
        assert!(streams.take(&peer).is_none(), "gone");
        drop(far);
        client.closed().await;
        streams.keep(peer, client);
        assert!(streams.take(&peer).is_none(), "dead");
    }
}
