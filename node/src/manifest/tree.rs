//! Builds the pages of a directory. Page breaks depend on names alone (and on sizes where a page would overflow), so the same
//! entries always give the same pages, whatever was there before.

use cid::Cid;
use thiserror::Error;

use super::entry::{DirLink, Entry, Node};
use super::page::{Child, MAX_LEVEL, MAX_PAGE, Page};
use super::path::Name;

/// Frozen: an entry ends its page with probability 2^-7. Level n looks at bits 7n to 7n+6 of BLAKE3(name), as a little-endian
/// number.
const BREAK_BITS: u32 = 7;
/// Levels that have bits of their own; above, only size breaks a page.
const BREAK_LEVELS: u32 = 8;
/// Bytes that array and column heads of a page may take; the rest is for entries.
const HEADS: usize = 64;
/// What the entries of one page may weigh.
const ROOM: usize = MAX_PAGE - HEADS;

/// Why a directory cannot be written as pages.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError {
    /// Entries are not in strict name order.
    #[error("{name} is out of order or twice there")]
    Order {
        /// The later one.
        name: Name,
    },
    /// Entries or bytes overflow 64 bits, or a page cannot be encoded.
    #[error("a directory is too large")]
    TooLarge,
}

/// Writes the pages of a directory whose entries are sorted by name, lowest first, and returns the link to it. Every page goes
/// to `sink` once.
///
/// # Errors
/// [`TreeError`].
pub fn build_directory(entries: Vec<Entry>, sink: &mut impl FnMut(Cid, Vec<u8>)) -> Result<DirLink, TreeError> {
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        return Err(TreeError::Order { name: pair[1].name.clone() });
    }
    let mut children = Vec::new();
    for part in split(entries, 0, |entry| (&entry.name, entry_weight(entry))) {
        children.push(emit(&Page::Leaf(part), sink)?);
    }
    let mut level = 0;
    while children.len() > 1 {
        level += 1;
        if level > MAX_LEVEL {
            return Err(TreeError::TooLarge);
        }
        let mut above = Vec::new();
        for part in split(children, level.into(), |child| (&child.first, child_weight(child))) {
            above.push(emit(&Page::Index { level, children: part }, sink)?);
        }
        children = above;
    }
    let top = children.pop().ok_or(TreeError::TooLarge)?;
    Ok(DirLink { cid: top.cid, entries: top.entries, bytes: top.bytes })
}

/// Encodes one page and names it for the level above.
fn emit(page: &Page, sink: &mut impl FnMut(Cid, Vec<u8>)) -> Result<Child, TreeError> {
    let (entries, bytes) = page.totals().ok_or(TreeError::TooLarge)?;
    let (cid, encoded) = page.encode().ok_or(TreeError::TooLarge)?;
    let first = match page {
        Page::Leaf(entries) => entries.first().map(|entry| entry.name.clone()),
        Page::Index { children, .. } => children.first().map(|child| child.first.clone()),
    };
    sink(cid, encoded);
    // Only an empty directory has no first name, and it has no level above.
    let first = first.or_else(|| Name::new("-").ok()).ok_or(TreeError::TooLarge)?;
    Ok(Child { first, cid, entries, bytes })
}

/// Cuts items into pages: after a name that the level's bits choose, or before an item that would not fit.
fn split<T>(items: Vec<T>, level: u32, look: impl Fn(&T) -> (&Name, usize)) -> Vec<Vec<T>> {
    let mut pages = Vec::new();
    let mut page = Vec::new();
    let mut weight = 0;
    for item in items {
        let (name, more) = look(&item);
        let ends = ends_page(name, level);
        if weight + more > ROOM && !page.is_empty() {
            pages.push(std::mem::take(&mut page));
            weight = 0;
        }
        weight += more;
        page.push(item);
        if ends {
            pages.push(std::mem::take(&mut page));
            weight = 0;
        }
    }
    if !page.is_empty() || pages.is_empty() {
        pages.push(page);
    }
    pages
}

/// True if this name ends a page of this level.
pub fn ends_page(name: &Name, level: u32) -> bool {
    if level >= BREAK_LEVELS {
        return false;
    }
    let hash = blake3::hash(name.as_bytes());
    let bits = hash.as_bytes().iter().take(8).rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    bits >> (level * BREAK_BITS) & ((1 << BREAK_BITS) - 1) == 0
}

/// Bytes of an unsigned integer in dag-cbor, which is also what the head of a string of that length takes.
fn int(value: u64) -> usize {
    match value {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

fn text(len: usize) -> usize {
    int(len as u64) + len
}

/// A link: tag 42 (2 bytes), and 37 bytes of identity prefix and CIDv1 with BLAKE3-256 as a byte string (2 bytes of head).
const LINK: usize = 2 + 2 + 37;

/// What an entry adds to its page, exactly, heads of columns apart.
fn entry_weight(entry: &Entry) -> usize {
    let mtime = if entry.mtime < 0 { (-1 - entry.mtime).unsigned_abs() } else { entry.mtime.unsigned_abs() };
    let common = text(entry.name.as_bytes().len()) + 1 + int(entry.mode.into()) + int(mtime);
    common
        + match &entry.node {
            Node::File { size, link, .. } => int(*size) + 32 + int((*link).into()),
            Node::Dir(link) => 1 + LINK + int(link.entries) + int(link.bytes),
            Node::Symlink { target } => text(target.len()),
        }
}

fn child_weight(child: &Child) -> usize {
    text(child.first.as_bytes().len()) + LINK + int(child.entries) + int(child.bytes)
}
