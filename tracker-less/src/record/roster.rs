//! The roster: the mirrors that a tracker node has probed and vouches for. The format only; trackers come later.

use cid::Cid;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::envelope::{Domain, Envelope, Raw, RecordError, array, decode, encode};
use super::id::ModuleId;
use super::key::SecretKey;

const DOMAIN: Domain = Domain { what: "roster", tag: b"murmir roster v1", max: 2048 };
const OUTER: Domain = Domain { what: "roster", tag: b"", max: 2304 };
/// Mirrors named in the roster itself; all of them are in the list that it points at.
pub const TOP: usize = 30;

/// Probed mirrors of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The module.
    pub module: ModuleId,
    /// CID of the whole list.
    pub list: Cid,
    /// Mirrors in the list.
    pub count: u64,
    /// The best of them, [`TOP`] at most.
    pub top: Vec<PeerId>,
    /// Seconds since the epoch; the higher wins.
    pub issued: u64,
    /// Seconds since the epoch.
    pub until: u64,
}

#[derive(Serialize, Deserialize)]
struct RawRoster(ByteBuf, Cid, u64, Vec<ByteBuf>, u64, u64);

/// A roster signed by the tracker node that it came from. Whether that node tracks the module is in the charter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRoster {
    tracker: PeerId,
    roster: Roster,
    bytes: Vec<u8>,
}

impl CheckedRoster {
    /// Signs with the tracker node's key.
    ///
    /// # Errors
    /// A value is out of its bounds.
    pub fn sign(key: &SecretKey, roster: &Roster) -> Result<Self, RecordError> {
        let raw = RawRoster(
            ByteBuf::from(roster.module.as_bytes().as_slice()),
            roster.list,
            roster.count,
            roster.top.iter().map(|peer| ByteBuf::from(peer.to_bytes())).collect(),
            roster.issued,
            roster.until,
        );
        Self::verify(&encode(&Envelope::seal(DOMAIN, encode(&raw), key).raw()))
    }

    /// Verifies a roster from anywhere.
    ///
    /// # Errors
    /// Whatever is wrong first: size, form, signature, bounds.
    pub fn verify(bytes: &[u8]) -> Result<Self, RecordError> {
        let raw: Raw = decode(OUTER, bytes)?;
        let envelope = Envelope::open(DOMAIN, raw)?;
        let RawRoster(module, list, count, top, issued, until) = decode(DOMAIN, envelope.payload())?;
        if top.len() > TOP || until < issued {
            return Err(DOMAIN.invalid("too many mirrors, or it ends before it begins"));
        }
        let peer = |bytes: &ByteBuf| PeerId::from_bytes(bytes).map_err(|_| DOMAIN.malformed());
        let top = top.iter().map(peer).collect::<Result<_, _>>()?;
        let module = ModuleId::from_bytes(array(DOMAIN, &module)?);
        let tracker = envelope.key().peer_id().ok_or(DOMAIN.malformed())?;
        Ok(Self { tracker, roster: Roster { module, list, count, top, issued, until }, bytes: bytes.to_vec() })
    }

    /// The tracker node.
    pub fn tracker(&self) -> PeerId {
        self.tracker
    }

    /// What it says.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The roster as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
