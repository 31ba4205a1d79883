//! The nomination: a node's own word of what it holds and where it is reached.

use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::envelope::{Domain, Envelope, Raw, RecordError, array, check_root, decode, encode};
use super::id::{Generation, ModuleId};
use super::key::SecretKey;

/// Nothing longer is parsed, stored or passed on.
pub const MAX_NOMINATION: usize = 1024;
/// Longest time a nomination counts, whatever it says, seconds.
pub const MAX_LIFETIME: u64 = 7 * 24 * 3600;
pub(super) const DOMAIN: Domain = Domain { what: "nomination", tag: b"murmir nomination v1", max: 880 };
const OUTER: Domain = Domain { what: "nomination", tag: b"", max: MAX_NOMINATION };
/// Most addresses.
pub const MAX_ADDRESSES: usize = 8;
/// Longest address, URL, region or contact.
pub const MAX_TEXT: usize = 200;
/// Most URLs of a kind.
pub const MAX_URLS: usize = 4;

/// A share of a module's content, in ten thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coverage(u16);

impl Coverage {
    /// Nothing: a withdrawal.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// Hardly anything yet.
    pub const LEAST: Self = Self(1);

    /// `part` of `whole`, rounded down, so that only everything is [`Self::WHOLE`].
    pub fn share(part: u64, whole: u64) -> Self {
        if part >= whole {
            return Self::WHOLE;
        }
        let share = u128::from(part) * 10_000 / u128::from(whole.max(1));
        Self(u16::try_from(share).unwrap_or(Self::WHOLE.0))
    }

    /// Ten thousandths, 0 to 10000.
    pub fn ten_thousandths(self) -> u16 {
        self.0
    }
}

/// What a mirror says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// The module.
    pub module: ModuleId,
    /// Epoch of the generation held.
    pub epoch: u64,
    /// Number of the generation held.
    pub seq: u64,
    /// Its root CID.
    pub root: Cid,
    /// How much of it; [`Coverage::NONE`] takes the nomination back.
    pub coverage: Coverage,
    /// Where the node listens, 8 at most.
    pub addresses: Vec<Multiaddr>,
    /// HTTP URLs of the same tree.
    pub http: Vec<String>,
    /// rsync URLs of the same tree.
    pub rsync: Vec<String>,
    /// Where in the world, in the operator's words.
    pub region: String,
    /// How to reach the operator.
    pub contact: String,
    /// Seconds since the epoch; grows per node, the higher wins.
    pub issued: u64,
    /// Seconds since the epoch; at most [`MAX_LIFETIME`] after `issued`.
    pub until: u64,
}

#[derive(Serialize, Deserialize)]
struct RawNomination(ByteBuf, u64, u64, Cid, u16, Vec<ByteBuf>, Vec<String>, Vec<String>, String, String, u64, u64);

impl Nomination {
    /// The generation held.
    pub fn generation(&self) -> Generation {
        Generation { epoch: self.epoch, seq: self.seq }
    }

    fn raw(&self) -> RawNomination {
        RawNomination(
            ByteBuf::from(self.module.as_bytes().as_slice()),
            self.epoch,
            self.seq,
            self.root,
            self.coverage.0,
            self.addresses.iter().map(|address| ByteBuf::from(address.to_vec())).collect(),
            self.http.clone(),
            self.rsync.clone(),
            self.region.clone(),
            self.contact.clone(),
            self.issued,
            self.until,
        )
    }

    fn read(raw: RawNomination) -> Result<Self, RecordError> {
        let RawNomination(module, epoch, seq, root, share, addresses, http, rsync, region, contact, issued, until) =
            raw;
        check_root(DOMAIN, &root)?;
        let texts = http.iter().chain(&rsync).chain([&region, &contact]);
        let too_long = texts.into_iter().any(|text| text.len() > MAX_TEXT);
        if too_long || http.len() > MAX_URLS || rsync.len() > MAX_URLS || addresses.len() > MAX_ADDRESSES {
            return Err(DOMAIN.invalid("too many or too long addresses"));
        }
        if share > Coverage::WHOLE.0 || until < issued || until - issued > MAX_LIFETIME {
            return Err(DOMAIN.invalid("coverage or lifetime out of bounds"));
        }
        let address = |bytes: &ByteBuf| match Multiaddr::try_from(bytes.to_vec()) {
            Ok(address) if bytes.len() <= MAX_TEXT => Ok(address),
            _ => Err(DOMAIN.malformed()),
        };
        let addresses = addresses.iter().map(address).collect::<Result<_, _>>()?;
        let module = ModuleId::from_bytes(array(DOMAIN, &module)?);
        let coverage = Coverage(share);
        Ok(Self { module, epoch, seq, root, coverage, addresses, http, rsync, region, contact, issued, until })
    }
}

/// A nomination signed by the node that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedNomination {
    peer: PeerId,
    nomination: Nomination,
    bytes: Vec<u8>,
}

impl CheckedNomination {
    /// Signs with the node's key.
    ///
    /// # Errors
    /// A value is out of its bounds.
    pub fn sign(key: &SecretKey, nomination: &Nomination) -> Result<Self, RecordError> {
        let envelope = Envelope::seal(DOMAIN, encode(&nomination.raw()), key);
        Self::verify(&encode(&envelope.raw()))
    }

    /// Verifies a nomination from anywhere. Time plays no part in it.
    ///
    /// # Errors
    /// Whatever is wrong first: size, form, signature, bounds.
    pub fn verify(bytes: &[u8]) -> Result<Self, RecordError> {
        let raw: Raw = decode(OUTER, bytes)?;
        let envelope = Envelope::open(DOMAIN, raw)?;
        let nomination = Nomination::read(decode(DOMAIN, envelope.payload())?)?;
        let peer = envelope.key().peer_id().ok_or(DOMAIN.malformed())?;
        Ok(Self { peer, nomination, bytes: bytes.to_vec() })
    }

    /// The node that signed.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// What it says.
    pub fn nomination(&self) -> &Nomination {
        &self.nomination
    }

    /// The nomination as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
