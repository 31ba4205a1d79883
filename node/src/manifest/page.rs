//! Pages: the blocks of a tree, canonical dag-cbor of 64 KiB at most, named by CID. docs/FORMAT.md has the layout.

use cid::Cid;
use multihash::Multihash;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;

use super::content::{BLAKE3, ContentId};
use super::entry::{DirLink, Entry, MAX_TARGET, MODE_MASK, Node};
use super::path::Name;

/// Largest page, bytes.
pub const MAX_PAGE: usize = 64 << 10;
/// Highest level of an index page.
pub const MAX_LEVEL: u8 = 16;
/// Version of the root node.
const VERSION: u64 = 1;
/// Most late globs, and features of a kind.
const MAX_LIST: usize = 64;
/// The optional feature of a tree that is another's; its address follows.
const UNOFFICIAL: &str = "unofficial ";
/// Multicodec dag-cbor.
const DAG_CBOR: u64 = 0x71;
/// First byte of a leaf's dag-cbor: an array of ten.
const LEAF_MARK: u8 = 0x8a;

const FILE: u8 = 0;
const DIR: u8 = 1;
const SYMLINK: u8 = 2;

/// Why a page is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PageError {
    /// The bytes are not the ones that the CID names: whoever sent them is at fault.
    #[error("page {cid} has other bytes than its name says")]
    WrongHash {
        /// The page asked for.
        cid: Box<Cid>,
    },
    /// The publisher's page breaks a rule of the format: the tree is refused.
    #[error("page {cid}: {why}")]
    Invalid {
        /// The page.
        cid: Box<Cid>,
        /// The rule.
        why: String,
    },
    /// The publisher's tree needs a newer murmir (4).
    #[error("the tree needs {what}, which this murmir does not know")]
    Unsupported {
        /// Version or feature.
        what: String,
    },
}

impl PageError {
    fn invalid(cid: &Cid, why: impl Into<String>) -> Self {
        Self::Invalid { cid: Box::new(*cid), why: why.into() }
    }

    /// True if a newer murmir could read the tree.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

/// A part of a directory, as its parent index names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// First name in it.
    pub first: Name,
    /// Its page.
    pub cid: Cid,
    /// All entries of the part and below.
    pub entries: u64,
    /// Sizes of all files of the part and below.
    pub bytes: u64,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Entries, sorted by name.
    Leaf(Vec<Entry>),
    /// Parts of one large directory, sorted by first name.
    Index {
        /// 1 above leaves, and so on.
        level: u8,
        /// The parts.
        children: Vec<Child>,
    },
}

/// The columns of a leaf: level, names, kinds, modes, mtimes, sizes, ids, hard-link labels (files only, in order),
/// subdirectories, symlink targets.
#[derive(Serialize, Deserialize)]
struct RawLeaf(
    u8,
    Vec<ByteBuf>,
    ByteBuf,
    Vec<u16>,
    Vec<i64>,
    Vec<u64>,
    ByteBuf,
    Vec<u32>,
    Vec<(Cid, u64, u64)>,
    Vec<ByteBuf>,
);

/// The columns of an index page: level, first names, links, entries, bytes.
#[derive(Serialize, Deserialize)]
struct RawIndex(u8, Vec<ByteBuf>, Vec<Cid>, Vec<u64>, Vec<u64>);

impl Page {
    /// The page as bytes, and their name. `None` if it cannot be encoded, which no page of checked entries meets.
    pub fn encode(&self) -> Option<(Cid, Vec<u8>)> {
        let bytes = match self {
            Self::Leaf(entries) => serde_ipld_dagcbor::to_vec(&raw_leaf(entries)),
            Self::Index { level, children } => {
                let firsts = children.iter().map(|child| ByteBuf::from(child.first.as_bytes())).collect();
                let links = children.iter().map(|child| child.cid).collect();
                let entries = children.iter().map(|child| child.entries).collect();
                let sizes = children.iter().map(|child| child.bytes).collect();
                serde_ipld_dagcbor::to_vec(&RawIndex(*level, firsts, links, entries, sizes))
            }
        };
        let bytes = bytes.ok()?;
        Some((page_cid(&bytes)?, bytes))
    }

    /// Checks and decodes the page that `cid` names.
    ///
    /// # Errors
    /// [`PageError`]: hash first, then size, canonical form, and every rule that one page can show.
    pub fn decode(cid: &Cid, bytes: &[u8]) -> Result<Self, PageError> {
        check_hash(cid, bytes)?;
        let page = if bytes.first() == Some(&LEAF_MARK) {
            Self::Leaf(read_leaf(cid, canonical(cid, bytes)?)?)
        } else {
            read_index(cid, canonical(cid, bytes)?)?
        };
        page.totals().ok_or_else(|| PageError::invalid(cid, "sizes that overflow"))?;
        Ok(page)
    }

    /// Entries and bytes of everything below this page; none on overflow.
    pub fn totals(&self) -> Option<(u64, u64)> {
        let add = |(entries, bytes): (u64, u64), (more, size): (u64, u64)| {
            Some((entries.checked_add(more)?, bytes.checked_add(size)?))
        };
        match self {
            Self::Leaf(entries) => entries.iter().map(|entry| (entry.count(), entry.bytes())).try_fold((0, 0), add),
            Self::Index { children, .. } => {
                children.iter().map(|child| (child.entries, child.bytes)).try_fold((0, 0), add)
            }
        }
    }
}

fn raw_leaf(entries: &[Entry]) -> RawLeaf {
    let names = entries.iter().map(|entry| ByteBuf::from(entry.name.as_bytes())).collect();
    let modes = entries.iter().map(|entry| entry.mode).collect();
    let mtimes = entries.iter().map(|entry| entry.mtime).collect();
    let (mut kinds, mut ids) = (ByteBuf::new(), ByteBuf::new());
    let mut leaf = RawLeaf(0, names, ByteBuf::new(), modes, mtimes, vec![], ByteBuf::new(), vec![], vec![], vec![]);
    for entry in entries {
        match &entry.node {
            Node::File { size, id, link } => {
                kinds.push(FILE);
                leaf.5.push(*size);
                ids.extend_from_slice(id.as_bytes());
                leaf.7.push(*link);
            }
            Node::Dir(link) => {
                kinds.push(DIR);
                leaf.8.push((link.cid, link.entries, link.bytes));
            }
            Node::Symlink { target } => {
                kinds.push(SYMLINK);
                leaf.9.push(ByteBuf::from(target.as_slice()));
            }
        }
    }
    (leaf.2, leaf.6) = (kinds, ids);
    leaf
}

fn read_leaf(cid: &Cid, raw: RawLeaf) -> Result<Vec<Entry>, PageError> {
    let RawLeaf(level, names, kinds, modes, mtimes, sizes, ids, links, dirs, targets) = raw;
    let invalid = |why: &str| PageError::invalid(cid, why);
    if level != 0 || [kinds.len(), modes.len(), mtimes.len()] != [names.len(); 3] {
        return Err(invalid("columns of different lengths"));
    }
    let short = || invalid("columns of different lengths");
    let count = |wanted: u8| kinds.iter().filter(|kind| **kind == wanted).count();
    let file_columns = [sizes.len(), links.len(), ids.len() / 32];
    if file_columns != [count(FILE); 3] || ids.len() % 32 != 0 {
        return Err(short());
    }
    if [dirs.len(), targets.len()] != [count(DIR), count(SYMLINK)] {
        return Err(short());
    }
    let mut files = sizes.into_iter().zip(ids.chunks(32)).zip(links);
    let (mut dirs, mut targets) = (dirs.into_iter(), targets.into_iter());
    let mut entries = Vec::with_capacity(names.len());
    for (((name, kind), mode), mtime) in names.iter().zip(kinds.iter()).zip(modes).zip(mtimes) {
        let name = Name::new(name).map_err(|error| PageError::invalid(cid, error.to_string()))?;
        if mode & !MODE_MASK != 0 {
            return Err(PageError::invalid(cid, format!("{name} has mode bits that no tree carries")));
        }
        let node = match *kind {
            FILE => {
                let ((size, id), link) = files.next().ok_or_else(short)?;
                Node::File { size, id: ContentId(id.try_into().map_err(|_| short())?), link }
            }
            DIR => dirs.next().map(|link| read_link(cid, link)).ok_or_else(short)??,
            SYMLINK => read_target(cid, &name, targets.next().ok_or_else(short)?)?,
            _ => return Err(PageError::invalid(cid, format!("{name} is of an unknown kind"))),
        };
        entries.push(Entry { name, mode, mtime, node });
    }
    check_order(cid, entries.iter().map(|entry| &entry.name))?;
    Ok(entries)
}

fn read_link(cid: &Cid, (link, entries, bytes): (Cid, u64, u64)) -> Result<Node, PageError> {
    if !is_page_cid(&link) {
        return Err(PageError::invalid(cid, "a link that names no page"));
    }
    Ok(Node::Dir(Box::new(DirLink { cid: link, entries, bytes })))
}

fn read_target(cid: &Cid, name: &Name, target: ByteBuf) -> Result<Node, PageError> {
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err(PageError::invalid(cid, format!("{name} has an impossible symlink target")));
    }
    Ok(Node::Symlink { target: target.into_vec() })
}

fn read_index(cid: &Cid, raw: RawIndex) -> Result<Page, PageError> {
    let RawIndex(level, firsts, links, entries, bytes) = raw;
    if !(1..=MAX_LEVEL).contains(&level) || links.is_empty() {
        return Err(PageError::invalid(cid, "an index page of no level or without parts"));
    }
    if [links.len(), entries.len(), bytes.len()] != [firsts.len(); 3] {
        return Err(PageError::invalid(cid, "columns of different lengths"));
    }
    if !links.iter().all(is_page_cid) {
        return Err(PageError::invalid(cid, "a link that names no page"));
    }
    let mut children = Vec::with_capacity(links.len());
    for (((first, link), entries), bytes) in firsts.iter().zip(links).zip(entries).zip(bytes) {
        let first = Name::new(first).map_err(|error| PageError::invalid(cid, error.to_string()))?;
        children.push(Child { first, cid: link, entries, bytes });
    }
    check_order(cid, children.iter().map(|child| &child.first))?;
    Ok(Page::Index { level, children })
}

fn check_order<'a>(cid: &Cid, names: impl Iterator<Item = &'a Name>) -> Result<(), PageError> {
    let mut before: Option<&Name> = None;
    for name in names {
        if before.is_some_and(|before| before >= name) {
            return Err(PageError::invalid(cid, format!("{name} is out of order or twice there")));
        }
        before = Some(name);
    }
    Ok(())
}

/// The top of a tree: attributes of the root directory, features, and the way to its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootNode {
    /// Permission bits of the root directory.
    pub mode: u16,
    /// Its modification time, ns.
    pub mtime: i64,
    /// The tree is another's, copied from this address: an optional feature.
    pub unofficial: Option<String>,
    /// Globs of the files that switch last at mirrors.
    pub late: Vec<String>,
    /// The tree.
    pub tree: DirLink,
}

/// Version, required features, optional features, mode, mtime, late globs, tree.
#[derive(Serialize, Deserialize)]
struct RawRoot(u64, Vec<String>, Vec<String>, u16, i64, Vec<String>, (Cid, u64, u64));

impl RootNode {
    /// The node as bytes, and their name.
    pub fn encode(&self) -> Option<(Cid, Vec<u8>)> {
        let link = (self.tree.cid, self.tree.entries, self.tree.bytes);
        let optional = self.unofficial.iter().map(|from| format!("{UNOFFICIAL}{from}")).collect();
        let raw = RawRoot(VERSION, vec![], optional, self.mode, self.mtime, self.late.clone(), link);
        let bytes = serde_ipld_dagcbor::to_vec(&raw).ok()?;
        Some((page_cid(&bytes)?, bytes))
    }

    /// Checks and decodes the root node that `cid` names. Optional features that are unknown are ignored.
    ///
    /// # Errors
    /// [`PageError`]; an unknown version or required feature is [`PageError::Unsupported`].
    pub fn decode(cid: &Cid, bytes: &[u8]) -> Result<Self, PageError> {
        check_hash(cid, bytes)?;
        let RawRoot(version, required, optional, mode, mtime, late, link) = canonical(cid, bytes)?;
        if version != VERSION {
            return Err(PageError::Unsupported { what: format!("tree version {version}") });
        }
        if let Some(feature) = required.first() {
            return Err(PageError::Unsupported {
                what: format!("feature {}", super::path::escape(feature.as_bytes())),
            });
        }
        if optional.len() > MAX_LIST || late.len() > MAX_LIST || mode & !MODE_MASK != 0 {
            return Err(PageError::invalid(cid, "lists too long, or mode bits that no tree carries"));
        }
        let Node::Dir(tree) = read_link(cid, link)? else {
            return Err(PageError::invalid(cid, "no tree"));
        };
        let unofficial = optional.iter().find_map(|feature| feature.strip_prefix(UNOFFICIAL)).map(str::to_owned);
        Ok(Self { mode, mtime, unofficial, late, tree: *tree })
    }
}

fn page_cid(bytes: &[u8]) -> Option<Cid> {
    let hash = Multihash::wrap(BLAKE3, blake3::hash(bytes).as_bytes()).ok()?;
    (bytes.len() <= MAX_PAGE).then(|| Cid::new_v1(DAG_CBOR, hash))
}

/// True for what can name a page: CIDv1, dag-cbor, BLAKE3-256.
pub fn is_page_cid(cid: &Cid) -> bool {
    let hash = cid.hash();
    cid.version() == cid::Version::V1 && cid.codec() == DAG_CBOR && hash.code() == BLAKE3 && hash.size() == 32
}

fn check_hash(cid: &Cid, bytes: &[u8]) -> Result<(), PageError> {
    let named = is_page_cid(cid) && cid.hash().digest() == blake3::hash(bytes).as_bytes();
    if !named {
        return Err(PageError::WrongHash { cid: Box::new(*cid) });
    }
    if bytes.len() > MAX_PAGE { Err(PageError::invalid(cid, "over 64 KiB")) } else { Ok(()) }
}

/// Decodes, and refuses what does not encode to the same bytes again.
fn canonical<T: Serialize + DeserializeOwned>(cid: &Cid, bytes: &[u8]) -> Result<T, PageError> {
    let wrong = || PageError::invalid(cid, "not canonical dag-cbor of a page");
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|_| wrong())?;
    let again = serde_ipld_dagcbor::to_vec(&value).map_err(|_| wrong())?;
    if again == bytes { Ok(value) } else { Err(wrong()) }
}
