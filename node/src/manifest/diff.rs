//! What changed between two trees; equal directories are never opened.

use cid::Cid;

use super::entry::{DirLink, Entry, Node};
use super::page::Page;
use super::path::TreePath;
use super::walk::{Pages, WalkError, root_node};

/// One difference. In a directory that is new or gone, everything below is listed as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: TreePath,
    /// What stood there.
    pub old: Option<Entry>,
    /// What stands there.
    pub new: Option<Entry>,
}

/// The differences from tree `old` to tree `new`, in walk order. Directories are listed for changes of their own only.
///
/// # Errors
/// A page is missing or refused.
pub fn diff<P: Pages>(pages: &P, old: &Cid, new: &Cid) -> Result<Vec<Difference>, WalkError<P::Error>> {
    let (old, new) = (root_node(pages, old)?, root_node(pages, new)?);
    let mut found = Vec::new();
    directories(pages, &TreePath::root(), Some(&old.tree), Some(&new.tree), &mut found)?;
    Ok(found)
}

fn directories<P: Pages>(
    pages: &P,
    at: &TreePath,
    old: Option<&DirLink>,
    new: Option<&DirLink>,
    found: &mut Vec<Difference>,
) -> Result<(), WalkError<P::Error>> {
    if old.map(|link| link.cid) == new.map(|link| link.cid) {
        return Ok(());
    }
    let mut left = entries(pages, old)?.into_iter().peekable();
    let mut right = entries(pages, new)?.into_iter().peekable();
    loop {
        let (old, new) = match (left.peek(), right.peek()) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) if old.name == new.name => (left.next(), right.next()),
            (Some(old), Some(new)) if old.name < new.name => (left.next(), None),
            (Some(_), None) => (left.next(), None),
            _ => (None, right.next()),
        };
        compare(pages, at, old, new, found)?;
    }
}

fn compare<P: Pages>(
    pages: &P,
    at: &TreePath,
    old: Option<Entry>,
    new: Option<Entry>,
    found: &mut Vec<Difference>,
) -> Result<(), WalkError<P::Error>> {
    let Some(name) = new.as_ref().or(old.as_ref()).map(|entry| &entry.name) else { return Ok(()) };
    let path = at.join(name).map_err(|source| WalkError::Path { at: at.clone(), source })?;
    let (before, after) = (old.as_ref().and_then(link).cloned(), new.as_ref().and_then(link).cloned());
    let same = match (&old, &new) {
        (Some(old), Some(new)) if before.is_some() && after.is_some() => (old.mode, old.mtime) == (new.mode, new.mtime),
        (old, new) => old == new,
    };
    if !same {
        found.push(Difference { path: path.clone(), old, new });
    }
    directories(pages, &path, before.as_ref(), after.as_ref(), found)
}

fn link(entry: &Entry) -> Option<&DirLink> {
    match &entry.node {
        Node::Dir(link) => Some(link),
        _ => None,
    }
}

/// All entries of one directory, through its index pages.
fn entries<P: Pages>(pages: &P, link: Option<&DirLink>) -> Result<Vec<Entry>, WalkError<P::Error>> {
    let mut found = Vec::new();
    let mut open: Vec<Cid> = link.map(|link| link.cid).into_iter().collect();
    while let Some(cid) = open.pop() {
        let bytes = pages.page(&cid).map_err(WalkError::Store)?;
        let bytes = bytes.ok_or_else(|| WalkError::Missing { cid: Box::new(cid) })?;
        match Page::decode(&cid, &bytes)? {
            Page::Leaf(entries) => found.extend(entries),
            Page::Index { children, .. } => open.extend(children.into_iter().rev().map(|child| child.cid)),
        }
    }
    Ok(found)
}
