//! The roster: the mirrors that a tracker node has probed and vouches for; and the list it points at. Neither vouches for bytes:
//! the hash chain from the head does.

use std::collections::HashSet;

use cid::Cid;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::envelope::{Domain, Envelope, Raw, RecordError, array, check_root, cid_of, decode, encode};
use super::id::ModuleId;
use super::key::SecretKey;
use super::nomination::CheckedNomination;

/// Largest list, bytes: it travels as one page.
pub const MAX_LIST: usize = 64 << 10;
/// Longest time a roster counts, whatever it says, seconds.
pub const MAX_LIFETIME: u64 = 7 * 24 * 3600;
/// Nothing longer is parsed, stored or passed on.
pub const MAX_ROSTER: usize = 2304;
/// Bytes of a row of the list beside its nomination, at most: heads and three numbers.
const ROW: usize = 1 + 3 + 3 * 9;
/// Bytes of the head of the list.
const HEAD: usize = 9;
const LIST: Domain = Domain { what: "roster list", tag: b"", max: MAX_LIST };
const DOMAIN: Domain = Domain { what: "roster", tag: b"murmir roster v1", max: 2048 };
const OUTER: Domain = Domain { what: "roster", tag: b"", max: MAX_ROSTER };
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
    /// Seconds since the epoch; at most [`MAX_LIFETIME`] after `issued`.
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
        check_root(DOMAIN, &list)?;
        if top.len() > TOP || until < issued || until - issued > MAX_LIFETIME {
            return Err(DOMAIN.invalid("too many mirrors, or lifetime out of bounds"));
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

/// A mirror of a roster's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it said when it was probed.
    pub nomination: CheckedNomination,
    /// How long the oldest generation that it lacked had been out, seconds; 0 for one that holds the newest.
    pub lag: u64,
    /// Measured, bytes per second.
    pub rate: u64,
    /// When it was probed, seconds since the epoch.
    pub probed: u64,
}

type RawListed = (ByteBuf, u64, u64, u64);

/// The list of a roster, best first. Content-addressed: what is not the list that a signed roster names is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterList {
    rows: Vec<Listed>,
    cid: Cid,
    bytes: Vec<u8>,
}

impl RosterList {
    /// As many of these mirrors, from the first on, as fit into [`MAX_LIST`].
    pub fn new(rows: Vec<Listed>) -> Self {
        let mut size = HEAD;
        let fits = |row: &Listed| {
            size += ROW + row.nomination.bytes().len();
            size <= MAX_LIST
        };
        let rows: Vec<Listed> = rows.into_iter().take_while(fits).collect();
        let raw: Vec<RawListed> =
            rows.iter().map(|row| (ByteBuf::from(row.nomination.bytes()), row.lag, row.rate, row.probed)).collect();
        let bytes = encode(&raw);
        Self { rows, cid: cid_of(&bytes), bytes }
    }

    /// Reads the list that this roster names.
    ///
    /// # Errors
    /// Another object, out of form, a nomination that does not verify, of another module, or twice the same mirror.
    pub fn read(roster: &Roster, bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_LIST {
            return Err(RecordError::TooLong { what: LIST.what, size: bytes.len(), max: MAX_LIST });
        }
        let cid = cid_of(bytes);
        if cid != roster.list {
            return Err(LIST.invalid("not the list that the roster names"));
        }
        let raw: Vec<RawListed> = decode(LIST, bytes)?;
        let mut peers = HashSet::new();
        let mut rows = Vec::new();
        for (nomination, lag, rate, probed) in raw {
            let nomination = CheckedNomination::verify(&nomination)?;
            if nomination.nomination().module != roster.module || !peers.insert(nomination.peer()) {
                return Err(LIST.invalid("a mirror of another module, or one twice"));
            }
            rows.push(Listed { nomination, lag, rate, probed });
        }
        Ok(Self { rows, cid, bytes: bytes.to_vec() })
    }

    /// Its mirrors, best first.
    pub fn rows(&self) -> &[Listed] {
        &self.rows
    }

    /// What the roster calls it: CIDv1, dag-cbor, BLAKE3-256.
    pub fn cid(&self) -> Cid {
        self.cid
    }

    /// The list as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
