//! The envelope: payload, key and signature; and what is common to all records.

use cid::Cid;
use multihash::Multihash;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::{ByteBuf, Bytes};
use thiserror::Error;

use super::key::{PublicKey, SecretKey};

/// Multicodec dag-cbor.
const DAG_CBOR: u64 = 0x71;
/// Multihash BLAKE3-256.
const BLAKE3: u64 = 0x1e;

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Too long to be looked at.
    #[error("{what} of {size} bytes, at most {max} are allowed")]
    TooLong {
        /// Which record.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// Not the canonical dag-cbor of this record.
    #[error("{what} is not canonical dag-cbor of its kind")]
    Malformed {
        /// Which record.
        what: &'static str,
    },
    /// The signature is not of this key over this kind of record.
    #[error("{what} has a wrong signature")]
    Signature {
        /// Which record.
        what: &'static str,
    },
    /// Signed by a key that may not sign it.
    #[error("{what} is signed by a key that may not sign it")]
    Signer {
        /// Which record.
        what: &'static str,
    },
    /// A value out of its bounds, or records that do not belong together.
    #[error("{what}: {why}")]
    Invalid {
        /// Which record.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// BLAKE3 over domain tag and payload: what a record is called by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash32(pub [u8; 32]);

impl std::fmt::Display for Hash32 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// A kind of record: its name in messages, its domain tag, its largest payload.
#[derive(Debug, Clone, Copy)]
pub struct Domain {
    /// Name in error messages.
    pub what: &'static str,
    /// Prefix of everything signed or hashed of this kind.
    pub tag: &'static [u8],
    /// Largest payload, bytes.
    pub max: usize,
}

impl Domain {
    pub(super) fn malformed(self) -> RecordError {
        RecordError::Malformed { what: self.what }
    }

    pub(super) fn invalid(self, why: &'static str) -> RecordError {
        RecordError::Invalid { what: self.what, why }
    }

    pub(super) fn hash(self, payload: &[u8]) -> Hash32 {
        Hash32(blake3::Hasher::new().update(self.tag).update(payload).finalize().into())
    }
}

/// Payload bytes, the key that signed them, and the signature over domain tag and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    key: PublicKey,
    signature: [u8; 64],
}

/// An envelope as dag-cbor: [payload, key, signature].
pub(super) type Raw = (ByteBuf, ByteBuf, ByteBuf);

impl Envelope {
    /// Signs a payload.
    pub(super) fn seal(domain: Domain, payload: Vec<u8>, key: &SecretKey) -> Self {
        let signature = key.sign(&[domain.tag, &payload].concat());
        Self { payload, key: key.public(), signature }
    }

    /// Takes an envelope apart and verifies it.
    pub(super) fn open(domain: Domain, raw: Raw) -> Result<Self, RecordError> {
        let (payload, key, signature) = raw;
        if payload.len() > domain.max {
            return Err(RecordError::TooLong { what: domain.what, size: payload.len(), max: domain.max });
        }
        let wrong = RecordError::Signature { what: domain.what };
        let key = PublicKey::from_bytes(&key).ok_or_else(|| wrong.clone())?;
        let signature: [u8; 64] = signature.as_slice().try_into().map_err(|_| wrong.clone())?;
        if !key.verify(&[domain.tag, payload.as_slice()].concat(), &signature) {
            return Err(wrong);
        }
        Ok(Self { payload: payload.into_vec(), key, signature })
    }

    /// The form that is encoded.
    pub(super) fn raw(&self) -> (&Bytes, &Bytes, &Bytes) {
        (Bytes::new(&self.payload), Bytes::new(self.key.as_bytes()), Bytes::new(&self.signature))
    }

    /// The signed bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Who signed.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Canonical dag-cbor of a value of ours. Empty only if a value cannot be encoded, which none of ours does.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).unwrap_or_default()
}

/// Decodes, and refuses whatever does not encode to the same bytes again: unknown fields, trailing bytes, long forms.
pub(super) fn decode<T: Serialize + DeserializeOwned>(domain: Domain, bytes: &[u8]) -> Result<T, RecordError> {
    if bytes.len() > domain.max {
        return Err(RecordError::TooLong { what: domain.what, size: bytes.len(), max: domain.max });
    }
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|_| domain.malformed())?;
    if encode(&value) == bytes { Ok(value) } else { Err(domain.malformed()) }
}

/// What content that is one block is called, a root as well: CIDv1, dag-cbor, BLAKE3-256.
pub fn cid_of(bytes: &[u8]) -> Cid {
    // A digest of 32 bytes always fits.
    let hash = Multihash::wrap(BLAKE3, blake3::hash(bytes).as_bytes()).unwrap_or_default();
    Cid::new_v1(DAG_CBOR, hash)
}

/// 32 bytes out of a byte string.
pub(super) fn array(domain: Domain, bytes: &[u8]) -> Result<[u8; 32], RecordError> {
    bytes.try_into().map_err(|_| domain.malformed())
}

/// Refuses CIDs that are no root node of ours: CIDv1, dag-cbor, BLAKE3-256.
pub(super) fn check_root(domain: Domain, cid: &Cid) -> Result<(), RecordError> {
    let hash = cid.hash();
    let ours = cid.version() == cid::Version::V1 && cid.codec() == DAG_CBOR;
    if ours && hash.code() == BLAKE3 && hash.size() == 32 { Ok(()) } else { Err(domain.invalid("root is no root CID")) }
}
