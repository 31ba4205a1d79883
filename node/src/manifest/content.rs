//! Content ids: BLAKE3 of a file's bytes, independent of any chunking.

use std::fmt;

use cid::Cid;
use multihash::Multihash;

/// Multihash BLAKE3-256.
pub(crate) const BLAKE3: u64 = 0x1e;
/// Multicodec raw.
const RAW: u64 = 0x55;

/// BLAKE3-256 of a file's bytes: what `b3sum` prints. Shown as a CIDv1 (raw) in base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As `b3sum` prints it.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// The id of a hex text in its one form.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let id = blake3::Hash::from_hex(text).ok().map(|hash| Self(hash.into()))?;
        (id.hex().as_bytes() == text).then_some(id)
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = Multihash::wrap(BLAKE3, &self.0).map_err(|_| fmt::Error)?;
        fmt::Display::fmt(&Cid::new_v1(RAW, hash), out)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.hex())
    }
}
