//! One entry of a directory.

use cid::Cid;

use super::content::ContentId;
use super::path::Name;

/// Permission bits that a tree carries: `rwxrwxrwx` and the sticky bit. Set-id bits are removed at publish, refused in a page.
pub const MODE_MASK: u16 = 0o1777;
/// Longest symlink target, bytes.
pub const MAX_TARGET: usize = 4096;

/// A named thing in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Permission bits.
    pub mode: u16,
    /// Modification time, ns since the epoch.
    pub mtime: i64,
    /// What it is.
    pub node: Node,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// BLAKE3 of the bytes.
        id: ContentId,
        /// Hard-link label: 0 for a single name, else the names with the same label, content, mode and mtime are one file.
        link: u32,
    },
    /// A directory.
    Dir(Box<DirLink>),
    /// A symlink.
    Symlink {
        /// Where it points, never interpreted here.
        target: Vec<u8>,
    },
}

/// The way to a directory's pages, and what is below it in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirLink {
    /// The top page of the directory.
    pub cid: Cid,
    /// All entries below, directories included.
    pub entries: u64,
    /// Sum of the sizes of all files below, each name counted.
    pub bytes: u64,
}

impl Entry {
    /// Entries that this one stands for: itself, and all below.
    pub fn count(&self) -> u64 {
        match &self.node {
            Node::Dir(link) => link.entries.saturating_add(1),
            _ => 1,
        }
    }

    /// Bytes of the files that this one stands for.
    pub fn bytes(&self) -> u64 {
        match &self.node {
            Node::File { size, .. } => *size,
            Node::Dir(link) => link.bytes,
            Node::Symlink { .. } => 0,
        }
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.node, Node::Dir(_))
    }
}
