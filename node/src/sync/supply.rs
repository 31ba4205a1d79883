//! What bytes come from: a peer over a stream, or a web seed. Both give the same answers, and neither is believed.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use libp2p::PeerId;
use tracker_less::record::ModuleId;

use crate::manifest::ContentId;
use crate::store::outboard::Outboard;
use crate::web::WebSeed;
use crate::wire::client::PeerClient;
use crate::wire::{Error, Have};

/// Who a source is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourceName {
    /// A node.
    Peer(PeerId),
    /// A web server's address.
    Web(String),
}

impl SourceName {
    /// The node, if it is one.
    pub fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Web(_) => None,
        }
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(out),
            Self::Web(url) => url.fmt(out),
        }
    }
}

/// The way to a source.
#[derive(Debug, Clone)]
pub enum Supply {
    /// The open stream.
    Peer(PeerClient),
    /// A plain HTTP server.
    Web(Arc<WebSeed>),
}

impl Supply {
    /// The stream to a peer.
    pub fn peer(&self) -> Option<&PeerClient> {
        match self {
            Self::Peer(client) => Some(client),
            Self::Web(_) => None,
        }
    }

    /// The web server.
    pub fn web(&self) -> Option<&Arc<WebSeed>> {
        match self {
            Self::Peer(_) => None,
            Self::Web(seed) => Some(seed),
        }
    }

    /// Pages, not verified.
    ///
    /// # Errors
    /// The source fails.
    pub async fn pages(&self, module: ModuleId, pages: &[Cid]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        match self {
            Self::Peer(client) => client.pages(module, pages).await,
            Self::Web(seed) => seed.pages(pages).await,
        }
    }

    /// Small files, whole, not verified.
    ///
    /// # Errors
    /// The source fails.
    pub async fn batch(&self, module: ModuleId, files: &[(ContentId, u64)]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        match self {
            Self::Peer(client) => client.batch(module, files).await,
            Self::Web(seed) => seed.batch(files).await,
        }
    }

    /// A range with its proof, not verified. `hashes` are what a web server's bytes are proven by.
    ///
    /// # Errors
    /// The source fails.
    pub async fn range(
        &self,
        module: ModuleId,
        (id, size): (ContentId, u64),
        range: Range<u64>,
        hashes: Option<Arc<Outboard>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Peer(client) => client.range(module, id, size, range).await,
            Self::Web(seed) => seed.range(id, size, range, hashes).await,
        }
    }

    /// Takes back the bytes of a range that nobody reads any more.
    pub fn recycle(&self, bytes: Vec<u8>) {
        if let Self::Peer(client) = self {
            client.recycle(bytes);
        }
    }

    /// The inner hashes of a large file, verified.
    ///
    /// # Errors
    /// The source fails.
    pub async fn hashes(&self, module: ModuleId, id: ContentId, size: u64) -> Result<Option<Outboard>, Error> {
        match self {
            Self::Peer(client) => client.hashes(module, id, size).await,
            Self::Web(seed) => seed.outboard(&id, size).await,
        }
    }

    /// What of a tree is there; a web server is taken to have all of it.
    ///
    /// # Errors
    /// The source fails.
    pub async fn have(&self, module: ModuleId, root: Cid) -> Result<Have, Error> {
        match self {
            Self::Peer(client) => client.have(module, root).await,
            Self::Web(_) => Ok(Have::Whole),
        }
    }
}

/// The inner hashes of large files, by which bytes of web servers are proven: asked for once, of whoever may have them.
#[derive(Debug, Default)]
pub struct Hashes {
    /// What is known, and how many sources were asked in vain.
    known: tokio::sync::Mutex<HashMap<ContentId, Known>>,
}

#[derive(Debug, Clone)]
enum Known {
    Here(Arc<Outboard>),
    Absent { asked: usize },
}

/// How long one source is waited for that may have the hashes of a file: others wait for them meanwhile.
const HASHES_PATIENCE: Duration = Duration::from_secs(30);
/// Most files whose hashes are kept in memory.
const MAX_KNOWN: usize = 16;

impl Hashes {
    /// The hashes of a file; none where none of `sources` has them.
    pub async fn get(
        &self,
        module: ModuleId,
        (id, size): (ContentId, u64),
        sources: &[Supply],
    ) -> Option<Arc<Outboard>> {
        let mut known = self.known.lock().await;
        match known.get(&id) {
            Some(Known::Here(outboard)) => return Some(Arc::clone(outboard)),
            Some(Known::Absent { asked }) if *asked >= sources.len() => return None,
            _ => {}
        }
        let mut found = None;
        for source in sources {
            // One that fails here shows so when it is asked for bytes.
            let asked = tokio::time::timeout(HASHES_PATIENCE, source.hashes(module, id, size)).await;
            if let Ok(Ok(Some(outboard))) = asked {
                found = Some(Arc::new(outboard));
                break;
            }
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let news = found.clone().map_or(Known::Absent { asked: sources.len() }, Known::Here);
        known.insert(id, news);
        found
    }
}
