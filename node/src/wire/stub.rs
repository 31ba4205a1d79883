//! Stand-ins with the agreed names until the record and manifest branches are merged here.
#![allow(missing_docs)]

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub [u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash32(pub [u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId([u8; 32]);

impl ModuleId {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation {
    pub epoch: u64,
    pub seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub issued: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBundle {
    pub bytes: Vec<u8>,
    pub generation: Generation,
    pub head_hash: Hash32,
    pub fresh: Option<Fresh>,
}

impl CheckedBundle {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn head_hash(&self) -> Hash32 {
        self.head_hash
    }

    pub fn fresh(&self) -> Option<&Fresh> {
        self.fresh.as_ref()
    }
}
