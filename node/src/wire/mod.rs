//! The byte protocol on one stream: what is held, pages of the tree, ranges and batches of content (docs/WIRE.md).
//!
//! A client pipelines requests, a server answers them in order, and both check everything the other says.

pub mod client;
pub mod delta;
pub mod frame;
mod fuse;
pub mod have;
mod id;
pub mod limit;
pub mod msg;
pub mod pulse;
pub mod rules;
pub mod server;
mod spares;
#[cfg(test)]
mod tests;
pub mod throttle;

use std::ops::Range;
use std::time::Duration;

use cid::Cid;
use libp2p::PeerId;
use tracker_less::record::{CheckedBundle, Generation, Hash32, ModuleId};

use crate::manifest::ContentId;

pub use self::client::PeerClient;
pub use self::have::Have;
pub use self::server::{Limits, serve_stream};

use self::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use self::msg::{Code, Held, Message};

/// The stream protocol.
pub const PROTOCOL: &str = "/murmir/sync/1";

/// What a server may give. Calls may block: the server makes them where that is allowed. Whatever is not reached through
/// this trait cannot be served, so an implementation decides by what was published, never by a path.
pub trait Provider: Send + Sync + 'static {
    /// The newest verified bundle of a module; none when the module is not served here.
    fn bundle(&self, module: &ModuleId) -> Option<CheckedBundle>;
    /// The bundle of the newest generation of which something is held.
    fn held(&self, module: &ModuleId) -> Option<CheckedBundle>;
    /// Generations of the module of which something is held, newest first.
    fn holds(&self, module: &ModuleId) -> Vec<Held>;
    /// A sample of signed nominations for the module.
    fn nominations(&self, module: &ModuleId) -> Vec<Vec<u8>>;
    /// Signed rosters of the module's trackers issued after `since` (Unix seconds), the latest first.
    fn rosters(&self, _module: &ModuleId, _since: u64) -> Vec<Vec<u8>> {
        Vec::new()
    }
    /// The bytes of a page of one of the module's trees, or of the list of one of its rosters.
    fn page(&self, module: &ModuleId, cid: &Cid) -> Option<Vec<u8>>;
    /// New pages made from former ones, as many slots from the first on as one answer holds.
    fn page_patches(&self, module: &ModuleId, pages: &[(Short, Short)]) -> PagePatches;
    /// A whole file of exactly `size` bytes.
    fn small(&self, module: &ModuleId, id: &Short, size: u64) -> Option<Vec<u8>>;
    /// The proven encoding of `range` (bytes) of a file of `size` bytes.
    fn range(&self, module: &ModuleId, id: &ContentId, size: u64, range: Range<u64>) -> Option<Vec<u8>>;
    /// What makes new files from old ones (see [`crate::delta`]): as many slots, from the first on, as one answer holds.
    fn patches(&self, module: &ModuleId, pairs: &[Pair]) -> Made;
    /// The chaining values of a large file's groups from number `start` on (FORMAT.md), at most 1 MiB.
    fn outboard(&self, module: &ModuleId, id: &ContentId, size: u64, start: u64) -> Option<Vec<u8>>;
    /// The sums of all blocks of a part of a file.
    fn sums(&self, module: &ModuleId, part: &Part) -> Option<Vec<u8>>;
    /// What is lacking of files, made with the rest of them: as many slots, from the first on, as one answer holds.
    fn slices(&self, module: &ModuleId, parts: &[Lacking]) -> Made;
    /// The answer to a request that is much work, where the same was made lately for somebody else. Does not block.
    fn made_lately(&self, _request: &Message) -> Option<Message> {
        None
    }
    /// Which entries of the tree under `root` are held.
    fn have(&self, module: &ModuleId, root: &Cid) -> Have;
    /// Records a peer told us of, as received: not yet verified.
    fn heard(&self, from: PeerId, bundles: Vec<Vec<u8>>, nominations: Vec<Vec<u8>>);
}

/// Why an exchange failed. `Refused` and `Busy` may concern one request; the others end the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The other side went away.
    #[error("the peer closed the stream")]
    Closed,
    /// Nothing moved for too long.
    #[error("the peer fell silent")]
    Timeout,
    /// The other side broke the protocol.
    #[error("the peer broke the protocol: {what}")]
    Lie {
        /// What was wrong.
        what: &'static str,
    },
    /// The other side said no, or would: such a request does not leave.
    #[error("the peer refused: {}", text.escape_debug())]
    Refused {
        /// The kind of refusal.
        code: Code,
        /// Its words, not trusted and not escaped.
        text: String,
    },
    /// The other side has too much to do.
    #[error("the peer is busy, try again in {} s", retry_after.as_secs())]
    Busy {
        /// When to come back.
        retry_after: Duration,
        /// Signed nominations of others that may help, not yet verified.
        peers: Vec<Vec<u8>>,
    },
}

/// Deadlines of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the opening of the stream to a complete hello.
    pub hello: Duration,
    /// Without any progress while something is owed.
    pub silence: Duration,
    /// Without any request while nothing is owed (servers only).
    pub idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { hello: Duration::from_secs(10), silence: Duration::from_secs(10), idle: Duration::from_secs(300) }
    }
}
