//! What is said on a stream: every message, its type number, its header as canonical dag-cbor and its bulk bytes.

use cid::Cid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::delta::{GetPagePatches, GetPatches, GetSlices, GetSums, Made, PagePatches, Short};
use super::frame::MAX_FRAME;
use super::have::Written;
use crate::delta::pack;

use super::{CheckedBundle, ContentId, Error, Generation, Hash32, Have, ModuleId};

/// The protocol this file speaks.
pub const VERSION: u32 = 1;

/// Introduces a side; both send one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`]; a server refuses others with [`Code::VERSION`].
    pub version: u32,
    /// Program and version, for people.
    pub agent: String,
    /// Optional abilities, one bit each; none yet, unknown ones are ignored.
    pub features: u64,
}

impl Hello {
    /// Our own.
    pub fn ours() -> Self {
        Self { version: VERSION, agent: concat!("murmir/", env!("CARGO_PKG_VERSION")).to_owned(), features: 0 }
    }
}

/// Kinds of refusal. Numbers that are not known here are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// The request breaks the protocol; the stream ends.
    pub const BAD_REQUEST: Self = Self(1);
    /// The version of the hello is not spoken; the stream ends.
    pub const VERSION: Self = Self(2);
    /// The module is not served here; the stream goes on.
    pub const UNKNOWN_MODULE: Self = Self(3);
    /// The server failed; the stream goes on.
    pub const INTERNAL: Self = Self(4);
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Which kind.
    pub code: Code,
    /// One line for people.
    pub text: String,
}

/// Too much to do: the request was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Busy {
    /// Milliseconds until it makes sense to ask again.
    pub retry_after: u32,
    /// Signed nominations of others that hold the module.
    pub peers: Vec<ByteBuf>,
}

/// The state of a module as the asker knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Generation of the head.
    pub epoch: u64,
    /// Number of the head within the epoch.
    pub seq: u64,
    /// Hash of the head.
    #[serde(with = "super::id")]
    pub head: Hash32,
    /// When its Fresh record was issued, Unix seconds; 0 without one.
    pub issued: u64,
}

impl Known {
    /// The state that `bundle` shows.
    pub fn of(bundle: &CheckedBundle) -> Self {
        let Generation { epoch, seq } = bundle.generation();
        Self { epoch, seq, head: bundle.head_hash(), issued: bundle.fresh().map_or(0, |fresh| fresh.issued) }
    }
}

/// Records passed on to the other side, as bytes: they carry their own signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Our newest bundle.
    pub bundle: Option<ByteBuf>,
    /// Nominations we heard or made.
    pub nominations: Vec<ByteBuf>,
}

/// No roster is wanted: none is issued after this.
pub const NO_ROSTER: u64 = u64::MAX;

/// Asks what is new. What is absent takes no room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetHead {
    /// Of which module.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// What the asker has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<Known>,
    /// What the asker tells in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell: Option<Told>,
    /// How many nominations are wanted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sample: u32,
    /// Rosters issued after this are wanted, Unix seconds: that of the latest known.
    #[serde(default = "no_roster", skip_serializing_if = "is_no_roster")]
    pub since: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn no_roster() -> u64 {
    NO_ROSTER
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_no_roster(since: &u64) -> bool {
    *since == NO_ROSTER
}

/// A generation of which something is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Epoch of the generation.
    pub epoch: u64,
    /// Its number within the epoch.
    pub seq: u64,
    /// The root of its tree.
    pub root: Cid,
    /// All of it is there; otherwise ask which entries are.
    pub whole: bool,
}

impl Held {
    /// Which generation it is.
    pub fn generation(&self) -> Generation {
        Generation { epoch: self.epoch, seq: self.seq }
    }
}

/// Answers [`GetHead`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadReply {
    /// The newest bundle; absent when the asker has it or the module is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<ByteBuf>,
    /// The bundle of the newest generation held, where that is not the newest known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<ByteBuf>,
    /// Generations held, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Held>,
    /// A sample of signed nominations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nominations: Vec<ByteBuf>,
    /// Signed rosters, the latest first; their lists are asked for as pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rosters: Vec<ByteBuf>,
}

/// Asks for pages of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetPages {
    /// Whose tree.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// Which pages.
    pub pages: Vec<Cid>,
}

/// Asks for a range of one file with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRange {
    /// Whose file.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// Which file.
    #[serde(with = "super::id")]
    pub id: ContentId,
    /// Its whole size in bytes.
    pub size: u64,
    /// First byte, a multiple of 16 KiB.
    pub start: u64,
    /// Bytes wanted: a multiple of 16 KiB, or up to the end of the file.
    pub length: u64,
}

/// Asks for many small files, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetBatch {
    /// Whose files.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// Which files, each with its size in bytes.
    pub files: Vec<(Short, u64)>,
}

/// Asks which entries of a tree are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetHave {
    /// Whose tree.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// The root of the tree.
    pub root: Cid,
}

/// Asks for the chaining values of the groups of a file over 256 KiB, by which bytes from anywhere can be verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetOutboard {
    /// Whose file.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// Which file.
    #[serde(with = "super::id")]
    pub id: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// From which group on; up to 1 MiB of values comes.
    pub start: u64,
}

/// Answers requests for bytes: one slot for each thing asked, in order, its bytes or absent. When not everything fits into
/// one frame there are fewer slots, at least one, and the rest is to be asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    sizes: Vec<Option<u32>>,
    bulk: Vec<u8>,
    /// What is sent in place of the bulk.
    packed: Option<Vec<u8>>,
}

impl Parts {
    /// Adds a slot.
    pub fn push(&mut self, part: Option<&[u8]>) {
        self.sizes.push(part.map(|bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        self.bulk.extend_from_slice(part.unwrap_or_default());
    }

    /// No slot yet, and memory for `bytes` in them.
    pub fn with_room(bytes: u64) -> Self {
        Self { bulk: Vec::with_capacity(usize::try_from(bytes).unwrap_or(0)), ..Self::default() }
    }

    /// A single slot.
    pub fn one(part: Option<Vec<u8>>) -> Self {
        let sizes = vec![part.as_ref().map(|bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX))];
        Self { sizes, bulk: part.unwrap_or_default(), packed: None }
    }

    /// Compressed, where that pays.
    #[must_use]
    pub fn pack(self) -> Self {
        Self { packed: pack::pack(&self.bulk), ..self }
    }

    /// The size of each slot in bytes.
    pub fn sizes(&self) -> &[Option<u32>] {
        &self.sizes
    }

    /// Bytes in all slots together.
    pub fn bytes(&self) -> usize {
        self.bulk.len()
    }

    /// The slots.
    pub fn into_vec(self) -> Vec<Option<Vec<u8>>> {
        if let [Some(_)] = self.sizes.as_slice() {
            return vec![Some(self.bulk)];
        }
        let mut rest = self.bulk.as_slice();
        let mut next = |size: u32| {
            let (part, after) =
                rest.split_at_checked(usize::try_from(size).unwrap_or(usize::MAX)).unwrap_or((rest, &[]));
            rest = after;
            part.to_vec()
        };
        self.sizes.into_iter().map(|size| size.map(&mut next)).collect()
    }

    fn read(sizes: Vec<Option<u32>>, is_packed: bool, bulk: Vec<u8>) -> Result<Self, Error> {
        let wrong = Error::Lie { what: "bulk bytes do not match their sizes" };
        let total: u64 = sizes.iter().flatten().map(|size| u64::from(*size)).sum();
        let total = usize::try_from(total).ok().filter(|total| *total <= MAX_FRAME).ok_or(wrong.clone())?;
        let bulk = if is_packed { pack::unpack(&bulk, total).ok_or(wrong.clone())? } else { bulk };
        if bulk.len() == total { Ok(Self { sizes, bulk, packed: None }) } else { Err(wrong) }
    }
}

/// Everything that can be said. The numbers of 64 and above are kept for proof-only, cut list and pack offer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant carries the type that says what it is")]
pub enum Message {
    Hello(Hello),
    HelloAck(Hello),
    Error(Refusal),
    Busy(Busy),
    GetHead(GetHead),
    Head(HeadReply),
    GetPages(GetPages),
    Pages(Parts),
    GetRange(GetRange),
    Range(Parts),
    GetBatch(GetBatch),
    Batch(Parts),
    GetHave(GetHave),
    Have(Have),
    GetPatches(GetPatches),
    Patches(Made),
    GetSums(GetSums),
    Sums(Parts),
    GetSlices(GetSlices),
    Slices(Made),
    GetOutboard(GetOutboard),
    Outboard(Parts),
    GetPagePatches(GetPagePatches),
    PagePatches(PagePatches),
}

impl Message {
    /// The type number.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::HelloAck(_) => 2,
            Self::Error(_) => 3,
            Self::Busy(_) => 4,
            Self::GetHead(_) => 16,
            Self::Head(_) => 17,
            Self::GetPages(_) => 18,
            Self::Pages(_) => 19,
            Self::GetRange(_) => 20,
            Self::Range(_) => 21,
            Self::GetBatch(_) => 22,
            Self::Batch(_) => 23,
            Self::GetHave(_) => 24,
            Self::Have(_) => 25,
            Self::GetPatches(_) => 32,
            Self::Patches(_) => 33,
            Self::GetSums(_) => 34,
            Self::Sums(_) => 35,
            Self::GetSlices(_) => 36,
            Self::Slices(_) => 37,
            Self::GetOutboard(_) => 38,
            Self::Outboard(_) => 39,
            Self::GetPagePatches(_) => 40,
            Self::PagePatches(_) => 41,
        }
    }

    /// The header as canonical dag-cbor.
    pub fn header(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Hello(body) | Self::HelloAck(body) => encode(body),
            Self::Error(body) => encode(body),
            Self::Busy(body) => encode(body),
            Self::GetHead(body) => encode(body),
            Self::Head(body) => encode(body),
            Self::GetPages(body) => encode(body),
            Self::GetRange(body) => encode(body),
            Self::GetBatch(body) => encode(body),
            Self::GetPatches(body) => encode(body),
            Self::GetSums(body) => encode(body),
            Self::GetSlices(body) => encode(body),
            Self::GetOutboard(body) => encode(body),
            Self::GetPagePatches(body) => encode(body),
            Self::PagePatches(made) => encode(&made.sizes),
            Self::Pages(parts) | Self::Range(parts) | Self::Batch(parts) => encode(&parts.sizes),
            Self::Sums(parts) | Self::Outboard(parts) => encode(&parts.sizes),
            Self::Patches(made) | Self::Slices(made) => encode(&made.slots),
            Self::GetHave(body) => encode(body),
            Self::Have(have) => encode(&Written::from(have)),
        }
    }

    /// The bytes after the header.
    pub fn bulk(&self) -> &[u8] {
        match self {
            Self::Patches(made) | Self::Slices(made) => &made.frame,
            Self::PagePatches(made) => &made.frame,
            _ => self.parts().map_or(&[], |parts| parts.packed.as_ref().unwrap_or(&parts.bulk)),
        }
    }

    /// True if the bulk is compressed.
    pub fn is_packed(&self) -> bool {
        self.parts().is_some_and(|parts| parts.packed.is_some())
    }

    fn parts(&self) -> Option<&Parts> {
        match self {
            Self::Pages(parts) | Self::Range(parts) | Self::Batch(parts) => Some(parts),
            Self::Sums(parts) | Self::Outboard(parts) => Some(parts),
            _ => None,
        }
    }

    /// Reads a message of type `kind`: one that is known, in canonical form, with no byte too many.
    pub fn decode(kind: u8, packed: bool, header: &[u8], bulk: Vec<u8>) -> Result<Self, Error> {
        let carries = matches!(kind, 19 | 21 | 23 | 33 | 35 | 37 | 39 | 41);
        // A patch is compressed by itself.
        let packs = carries && !matches!(kind, 33 | 37 | 41);
        if !carries && !bulk.is_empty() || packed && !packs {
            return Err(Error::Lie { what: "bulk bytes where there are none" });
        }
        Ok(match kind {
            1 => Self::Hello(decode(header)?),
            2 => Self::HelloAck(decode(header)?),
            3 => Self::Error(decode(header)?),
            4 => Self::Busy(decode(header)?),
            16 => Self::GetHead(decode(header)?),
            17 => Self::Head(decode(header)?),
            18 => Self::GetPages(decode(header)?),
            19 => Self::Pages(Parts::read(decode(header)?, packed, bulk)?),
            20 => Self::GetRange(decode(header)?),
            21 => Self::Range(Parts::read(decode(header)?, packed, bulk)?),
            22 => Self::GetBatch(decode(header)?),
            23 => Self::Batch(Parts::read(decode(header)?, packed, bulk)?),
            24 => Self::GetHave(decode(header)?),
            25 => Self::Have(decode::<Written>(header)?.read().ok_or(Error::Lie { what: "a have-map out of form" })?),
            32 => Self::GetPatches(decode(header)?),
            33 => Self::Patches(Made { slots: decode(header)?, frame: bulk }),
            34 => Self::GetSums(decode(header)?),
            35 => Self::Sums(Parts::read(decode(header)?, packed, bulk)?),
            36 => Self::GetSlices(decode(header)?),
            37 => Self::Slices(Made { slots: decode(header)?, frame: bulk }),
            38 => Self::GetOutboard(decode(header)?),
            39 => Self::Outboard(Parts::read(decode(header)?, packed, bulk)?),
            40 => Self::GetPagePatches(decode(header)?),
            41 => Self::PagePatches(PagePatches { sizes: decode(header)?, frame: bulk }),
            _ => return Err(Error::Lie { what: "an unknown frame type" }),
        })
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_ipld_dagcbor::to_vec(body).map_err(|_| Error::Lie { what: "a header that cannot be written" })
}

fn decode<T: DeserializeOwned + Serialize>(header: &[u8]) -> Result<T, Error> {
    let body = serde_ipld_dagcbor::from_slice(header).map_err(|_| Error::Lie { what: "a malformed header" })?;
    match encode(&body)? == header {
        true => Ok(body),
        false => Err(Error::Lie { what: "a header out of canonical form" }),
    }
}
