//! The charter: the root key's word on which keys may sign what.

use libp2p_identity::PeerId;
use serde_bytes::ByteBuf;

use super::envelope::{Domain, Envelope, Hash32, Raw, RecordError, array, decode, encode};
use super::id::{ModuleId, PublisherId};
use super::key::{PublicKey, SecretKey};

pub(super) const DOMAIN: Domain = Domain { what: "charter", tag: b"murmir charter v1", max: 2048 };
/// Most keys of a kind, tracker nodes, and accepted heads.
pub(super) const MAX_LIST: usize = 16;

/// The last head of a module that counts from an older epoch; whatever else that epoch's keys signed does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The older epoch.
    pub epoch: u64,
    /// The module.
    pub module: ModuleId,
    /// Its last accepted number.
    pub seq: u64,
    /// That head's hash.
    pub head: Hash32,
}

/// Which keys sign heads and Fresh records, and who tracks. Signed by the root key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charter {
    /// Counts up with every change of keys; the first is 0.
    pub epoch: u64,
    /// Keys that sign heads (and Fresh records).
    pub heads: Vec<PublicKey>,
    /// Keys that sign Fresh records only.
    pub fresh: Vec<PublicKey>,
    /// Nodes that track and nominate mirrors: the origin's.
    pub trackers: Vec<PeerId>,
    /// How long a Fresh record lasts by default, seconds.
    pub fresh_for: u64,
    /// How long a nomination lasts by default, seconds.
    pub nomination_for: u64,
    /// What still counts of older epochs.
    pub accepted: Vec<Accepted>,
    /// A publisher that carries on under another root key.
    pub successor: Option<PublisherId>,
}

type RawAccepted = (u64, ByteBuf, u64, ByteBuf);
type RawCharter = (u64, Vec<ByteBuf>, Vec<ByteBuf>, Vec<ByteBuf>, u64, u64, Vec<RawAccepted>, Option<ByteBuf>);

fn bytes(bytes: impl AsRef<[u8]>) -> ByteBuf {
    ByteBuf::from(bytes.as_ref())
}

impl Charter {
    pub(super) fn seal(&self, root: &SecretKey) -> Envelope {
        let keys = |keys: &[PublicKey]| keys.iter().map(|key| bytes(key.as_bytes())).collect::<Vec<_>>();
        let accepted = |one: &Accepted| (one.epoch, bytes(one.module.as_bytes()), one.seq, bytes(one.head.0));
        let raw: RawCharter = (
            self.epoch,
            keys(&self.heads),
            keys(&self.fresh),
            self.trackers.iter().map(|peer| bytes(peer.to_bytes())).collect(),
            self.fresh_for,
            self.nomination_for,
            self.accepted.iter().map(accepted).collect(),
            self.successor.map(|publisher| bytes(publisher.key().as_bytes())),
        );
        Envelope::seal(DOMAIN, encode(&raw), root)
    }

    /// Verifies a charter of the publisher with this root key.
    pub(super) fn open(raw: Raw, root: &PublicKey) -> Result<(Self, Envelope), RecordError> {
        let envelope = Envelope::open(DOMAIN, raw)?;
        if envelope.key() != root {
            return Err(RecordError::Signer { what: DOMAIN.what });
        }
        let (epoch, heads, fresh, trackers, fresh_for, nomination_for, accepted, successor): RawCharter =
            decode(DOMAIN, envelope.payload())?;
        let lists = [heads.len(), fresh.len(), trackers.len(), accepted.len()];
        if lists.iter().any(|len| *len > MAX_LIST) {
            return Err(DOMAIN.invalid("too many keys or heads"));
        }
        let key = |bytes: &ByteBuf| PublicKey::from_bytes(bytes).ok_or(DOMAIN.malformed());
        let charter = Self {
            epoch,
            heads: heads.iter().map(key).collect::<Result<_, _>>()?,
            fresh: fresh.iter().map(key).collect::<Result<_, _>>()?,
            trackers: trackers.iter().map(peer).collect::<Result<_, _>>()?,
            fresh_for,
            nomination_for,
            accepted: accepted.iter().map(|one| Accepted::read(one, epoch)).collect::<Result<_, _>>()?,
            successor: successor.as_ref().map(key).transpose()?.map(PublisherId::new),
        };
        Ok((charter, envelope))
    }
}

impl Accepted {
    fn read(raw: &RawAccepted, newer_than: u64) -> Result<Self, RecordError> {
        let (epoch, module, seq, head) = raw;
        if *epoch >= newer_than {
            return Err(DOMAIN.invalid("accepts heads of its own or a later epoch"));
        }
        let module = ModuleId::from_bytes(array(DOMAIN, module)?);
        Ok(Self { epoch: *epoch, module, seq: *seq, head: Hash32(array(DOMAIN, head)?) })
    }
}

fn peer(bytes: &ByteBuf) -> Result<PeerId, RecordError> {
    let peer = PeerId::from_bytes(bytes).map_err(|_| DOMAIN.malformed())?;
    if peer.to_bytes() == bytes.as_slice() { Ok(peer) } else { Err(DOMAIN.malformed()) }
}
