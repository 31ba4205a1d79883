//! How 32-byte ids stand in a header: as byte strings.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;

use super::{ContentId, Hash32, ModuleId};

/// An id of 32 bytes.
pub(super) trait Id: Copy {
    /// The id of these bytes.
    fn from_bytes(bytes: [u8; 32]) -> Self;
    /// Its bytes.
    fn to_bytes(self) -> [u8; 32];
}

impl Id for ContentId {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl Id for Hash32 {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl Id for ModuleId {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::from_bytes(bytes)
    }

    fn to_bytes(self) -> [u8; 32] {
        *self.as_bytes()
    }
}

pub(super) fn serialize<T: Id, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
    ByteArray::new(id.to_bytes()).serialize(to)
}

pub(super) fn deserialize<'de, T: Id, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(T::from_bytes(ByteArray::deserialize(from)?.into_array()))
}
