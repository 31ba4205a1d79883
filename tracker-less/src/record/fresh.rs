//! The Fresh record: a head is still the newest one.

use serde_bytes::ByteBuf;

use super::envelope::{Domain, Envelope, Hash32, Raw, RecordError, array, decode, encode};
use super::id::ModuleId;
use super::key::SecretKey;

pub(super) const DOMAIN: Domain = Domain { what: "fresh record", tag: b"murmir fresh v1", max: 256 };

/// Says that a head was the newest at `issued` and may be called so until `until`. Without a valid one a head is authentic but
/// stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// The module.
    pub module: ModuleId,
    /// Epoch of the head.
    pub epoch: u64,
    /// Number of the head.
    pub seq: u64,
    /// Hash of the head.
    pub head: Hash32,
    /// Seconds since the epoch; grows per signer, the higher wins.
    pub issued: u64,
    /// Seconds since the epoch.
    pub until: u64,
}

type RawFresh = (ByteBuf, u64, u64, ByteBuf, u64, u64);

impl Fresh {
    pub(super) fn seal(&self, key: &SecretKey) -> Envelope {
        let module = ByteBuf::from(self.module.as_bytes().as_slice());
        let raw: RawFresh = (module, self.epoch, self.seq, ByteBuf::from(self.head.0), self.issued, self.until);
        Envelope::seal(DOMAIN, encode(&raw), key)
    }

    pub(super) fn open(raw: Raw) -> Result<(Self, Envelope), RecordError> {
        let envelope = Envelope::open(DOMAIN, raw)?;
        let (module, epoch, seq, head, issued, until): RawFresh = decode(DOMAIN, envelope.payload())?;
        if until < issued {
            return Err(DOMAIN.invalid("ends before it begins"));
        }
        let module = ModuleId::from_bytes(array(DOMAIN, &module)?);
        Ok((Self { module, epoch, seq, head: Hash32(array(DOMAIN, &head)?), issued, until }, envelope))
    }
}
