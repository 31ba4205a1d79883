//! What is remembered of one module.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use super::{MAX_FILE, StateError, durable};
use crate::manifest::selection::Selection;
use crate::manifest::text::ByteText;
use crate::store::files::Dir;

/// Bound of the list of damaged files, in bytes; a longer list is cut.
const MAX_DAMAGED: usize = MAX_FILE;

/// What this machine is to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It signs the heads.
    Publisher,
    /// It holds a replica.
    Mirror,
}

/// A module that `serve` loads: written after the first complete pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The reference as given, a subpath included.
    pub reference: String,
    /// The published or mirrored directory, absolute.
    #[serde(with = "crate::manifest::text::path")]
    pub directory: PathBuf,
    /// Publisher or mirror.
    pub role: Role,
    /// What of the module is held.
    #[serde(default)]
    pub selection: Selection,
    /// Globs of the files to be placed last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<String>,
    /// A mirror that fetches new heads by itself.
    #[serde(default)]
    pub watch: bool,
    /// Web addresses where the same tree stands, for everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<String>,
    /// Where a publisher's static export is kept, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<ByteText>,
    /// The address of the tree that a publisher's module is an unofficial copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A publisher's key, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Not offered to anybody, until it is published or mirrored again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// How long a Fresh record of this publisher lasts, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<u32>,
}

/// The generation that stands complete in the directory: never written before its data is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Key epoch.
    #[serde(with = "decimal")]
    pub epoch: u64,
    /// Number of the head within the epoch.
    #[serde(with = "decimal")]
    pub seq: u64,
    /// CID of the root node.
    pub root: String,
    /// Hash of the head, hex.
    pub head: String,
}

/// A roster and its list, as received.
pub type Roster = (Vec<u8>, Vec<u8>);

/// The files of one module.
#[derive(Clone, Debug)]
pub struct Module {
    pub(super) dir: Dir,
    pub(super) name: String,
}

impl Module {
    /// The registration, if there is one.
    pub fn registration(&self) -> Result<Option<Registration>, StateError> {
        read_toml(&self.dir, &self.file("toml"))
    }

    /// Registers, replacing a former registration.
    pub fn register(&self, registration: &Registration) -> Result<(), StateError> {
        write_toml(&self.dir, &self.file("toml"), registration)
    }

    /// Ends the registration with what was placed and damaged. The newest head seen stays: it guards against rollback.
    pub fn unregister(&self) -> Result<(), StateError> {
        ["toml", "placed", "held", "damaged"].iter().try_for_each(|kind| durable::remove(&self.dir, &self.file(kind)))
    }

    /// The newest bundle ever accepted, as received.
    pub fn seen(&self) -> Result<Option<Vec<u8>>, StateError> {
        durable::read(&self.dir, &self.file("seen"), MAX_FILE)
    }

    /// Remembers the newest bundle; durable on return.
    pub fn set_seen(&self, bundle: &[u8]) -> Result<(), StateError> {
        durable::write(&self.dir, &self.file("seen"), bundle)
    }

    /// The generation that stands in the directory.
    pub fn placed(&self) -> Result<Option<Placed>, StateError> {
        read_toml(&self.dir, &self.file("placed"))
    }

    /// The bundle of the generation placed.
    pub fn held(&self) -> Result<Option<Vec<u8>>, StateError> {
        durable::read(&self.dir, &self.file("held"), MAX_FILE)
    }

    /// Remembers the generation placed, and its bundle; only for data that is durable already.
    pub fn set_placed(&self, placed: &Placed, bundle: &[u8]) -> Result<(), StateError> {
        durable::write(&self.dir, &self.file("held"), bundle)?;
        write_toml(&self.dir, &self.file("placed"), placed)
    }

    /// Two bundles with one generation and different payloads: the proof that the head key is in two hands.
    pub fn fork(&self) -> Result<Option<[Vec<u8>; 2]>, StateError> {
        let half = |kind| durable::read(&self.dir, &self.file(kind), MAX_FILE);
        Ok(half("fork-a")?.zip(half("fork-b")?).map(Into::into))
    }

    /// Keeps the proof of a fork, in the place of a former one.
    pub fn set_fork(&self, a: &[u8], b: &[u8]) -> Result<(), StateError> {
        durable::remove(&self.dir, &self.file("fork-b"))?;
        durable::write(&self.dir, &self.file("fork-a"), a)?;
        durable::write(&self.dir, &self.file("fork-b"), b)
    }

    /// Rosters of the module's trackers; what cannot be read is as good as none.
    pub fn rosters(&self) -> Result<Vec<Roster>, StateError> {
        let Some(bytes) = durable::read(&self.dir, &self.file("rosters"), MAX_FILE)? else { return Ok(Vec::new()) };
        let pairs: Vec<(ByteBuf, ByteBuf)> = serde_ipld_dagcbor::from_slice(&bytes).unwrap_or_default();
        Ok(pairs.into_iter().map(|(roster, list)| (roster.into_vec(), list.into_vec())).collect())
    }

    /// Replaces the rosters kept.
    pub fn set_rosters(&self, rosters: &[(&[u8], &[u8])]) -> Result<(), StateError> {
        let pairs: Vec<_> = rosters.iter().map(|(roster, list)| (Bytes::new(roster), Bytes::new(list))).collect();
        let bytes = serde_ipld_dagcbor::to_vec(&pairs).unwrap_or_default();
        durable::write(&self.dir, &self.file("rosters"), &bytes)
    }

    /// Tree paths of files whose bytes were found not to be what was placed.
    pub fn damaged(&self) -> Result<Vec<Vec<u8>>, StateError> {
        let list = durable::read(&self.dir, &self.file("damaged"), MAX_DAMAGED)?.unwrap_or_default();
        Ok(list.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// Replaces the list of damaged files.
    pub fn set_damaged(&self, paths: &[Vec<u8>]) -> Result<(), StateError> {
        let mut list = Vec::new();
        for path in paths.iter().filter(|path| !path.is_empty()) {
            if list.len() + path.len() + 1 > MAX_DAMAGED {
                break;
            }
            list.extend_from_slice(path);
            list.push(0);
        }
        durable::write(&self.dir, &self.file("damaged"), &list)
    }

    fn file(&self, kind: &str) -> String {
        format!("{}.{kind}", self.name)
    }
}

pub(super) fn read_toml<T: DeserializeOwned>(dir: &Dir, name: &str) -> Result<Option<T>, StateError> {
    let Some(content) = durable::read(dir, name, MAX_FILE)? else { return Ok(None) };
    let text = str::from_utf8(&content).map_err(|e| StateError::damaged(dir, name, e))?;
    toml::from_str(text).map(Some).map_err(|e| StateError::damaged(dir, name, e.message()))
}

pub(super) fn write_toml<T: Serialize>(dir: &Dir, name: &str, value: &T) -> Result<(), StateError> {
    let text = toml::to_string(value).map_err(|source| StateError::Unwritable { name: name.into(), source })?;
    durable::write(dir, name, text.as_bytes())
}

/// u64 as a decimal string: TOML's integers end at 2^63 - 1, a thief's `seq` need not.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
