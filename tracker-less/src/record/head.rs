//! The head: one generation of a module. It never expires.

use cid::Cid;
use serde_bytes::ByteBuf;

use super::envelope::{Domain, Envelope, Hash32, Raw, RecordError, array, check_root, decode, encode};
use super::id::{Generation, ModuleId};
use super::key::SecretKey;

pub(super) const DOMAIN: Domain = Domain { what: "head", tag: b"murmir head v1", max: 512 };

/// One generation, signed by a head key of its epoch's charter. Everything that is fetched hangs from its root CID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The module.
    pub module: ModuleId,
    /// Epoch of the keys.
    pub epoch: u64,
    /// Number within the module, from 1.
    pub seq: u64,
    /// Hash of the head before it; none for the first.
    pub previous: Option<Hash32>,
    /// CID of the root node.
    pub root: Cid,
    /// Entries of the tree, directories included.
    pub entries: u64,
    /// Sum of the sizes of its regular files.
    pub bytes: u64,
    /// When it was signed, seconds since the epoch. Orders nothing.
    pub created: u64,
}

type RawHead = (ByteBuf, u64, u64, Option<ByteBuf>, Cid, u64, u64, u64);

impl Head {
    /// Its place in the order of generations.
    pub fn generation(&self) -> Generation {
        Generation { epoch: self.epoch, seq: self.seq }
    }

    pub(super) fn seal(&self, key: &SecretKey) -> Envelope {
        let raw: RawHead = (
            ByteBuf::from(self.module.as_bytes().as_slice()),
            self.epoch,
            self.seq,
            self.previous.map(|hash| ByteBuf::from(hash.0)),
            self.root,
            self.entries,
            self.bytes,
            self.created,
        );
        Envelope::seal(DOMAIN, encode(&raw), key)
    }

    pub(super) fn open(raw: Raw) -> Result<(Self, Envelope), RecordError> {
        let envelope = Envelope::open(DOMAIN, raw)?;
        let (module, epoch, seq, previous, root, entries, bytes, created): RawHead =
            decode(DOMAIN, envelope.payload())?;
        check_root(DOMAIN, &root)?;
        if seq == 0 {
            return Err(DOMAIN.invalid("numbers begin at 1"));
        }
        let module = ModuleId::from_bytes(array(DOMAIN, &module)?);
        let previous = previous.map(|hash| array(DOMAIN, &hash).map(Hash32)).transpose()?;
        Ok((Self { module, epoch, seq, previous, root, entries, bytes, created }, envelope))
    }
}
