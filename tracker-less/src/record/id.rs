//! Names of things: publishers, modules, generations.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use cid::multibase::Base;
use multihash::Multihash;
use thiserror::Error;

use super::key::PublicKey;

/// Multicodec `libp2p-key`.
const LIBP2P_KEY: u64 = 0x72;
/// Multihash `identity`.
const IDENTITY: u64 = 0x00;
/// libp2p's protobuf form of an Ed25519 key: type 1, then 32 bytes (libp2p specs, peer-ids).
const PROTOBUF: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// Longest module name.
const MAX_NAME: usize = 64;
/// Longest text of a publisher id that is looked at.
const MAX_TEXT: usize = 128;
/// Key derivation context of module ids.
const MODULE_CONTEXT: &str = "murmir module v1";

/// Text or bytes that name nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not a base36 CIDv1 of an Ed25519 libp2p key.
    #[error("not a publisher id (k51...)")]
    Publisher,
    /// Not 1 to 64 of `A-Za-z0-9._-`, or one of `.` and `..`.
    #[error("not a module name (1 to 64 letters, digits, '.', '_' or '-')")]
    ModuleName,
}

/// A publisher: its root key. Written as a CIDv1 with codec libp2p-key and an identity multihash, in base36: `k51...`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublisherId(PublicKey);

impl PublisherId {
    /// The publisher with this root key.
    pub fn new(key: PublicKey) -> Self {
        Self(key)
    }

    /// The root key.
    pub fn key(&self) -> &PublicKey {
        &self.0
    }

    fn to_cid(self) -> Option<Cid> {
        let mut bytes = PROTOBUF.to_vec();
        bytes.extend_from_slice(self.0.as_bytes());
        Some(Cid::new_v1(LIBP2P_KEY, Multihash::wrap(IDENTITY, &bytes).ok()?))
    }
}

impl fmt::Display for PublisherId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_cid().and_then(|cid| cid.to_string_of_base(Base::Base36Lower).ok());
        out.write_str(&text.ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for PublisherId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for PublisherId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_TEXT || !text.starts_with('k') {
            return Err(IdError::Publisher);
        }
        let cid = Cid::try_from(text).map_err(|_| IdError::Publisher)?;
        let key = cid.hash().digest().strip_prefix(&PROTOBUF).and_then(PublicKey::from_bytes);
        let id = Self(key.ok_or(IdError::Publisher)?);
        if id.to_string() == text { Ok(id) } else { Err(IdError::Publisher) }
    }
}

/// A module's name: 1 to 64 of `A-Za-z0-9._-`, neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleName(String);

impl ModuleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModuleName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != "..";
        if fits { Ok(Self(text.to_owned())) } else { Err(IdError::ModuleName) }
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What the network calls a module: BLAKE3 key derivation (context `murmir module v1`) over root key and name, so that a node
/// that holds nothing can check what it is asked to store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId([u8; 32]);

impl ModuleId {
    /// The module `name` of `publisher`.
    pub fn new(publisher: &PublisherId, name: &ModuleName) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(MODULE_CONTEXT);
        hasher.update(publisher.key().as_bytes()).update(name.as_str().as_bytes());
        Self(hasher.finalize().into())
    }

    /// From its 32 bytes: any value may be somebody's module.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// One state of a module. Ordered by epoch, then number; never by time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// Raised when head keys change.
    pub epoch: u64,
    /// Counts from 1.
    pub seq: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch == 0 { write!(out, "@{}", self.seq) } else { write!(out, "@{} (epoch {})", self.seq, self.epoch) }
    }
}
