//! One entry of a tree by its number, without a walk: only the pages on the way to it are opened.

use cid::Cid;

use super::entry::{Entry, Node};
use super::page::{Child, Page};
use super::walk::{Pages, WalkError, root_node};

/// How many entries the tree under `root` has.
///
/// # Errors
/// The root node is missing or refused.
pub fn count<P: Pages>(pages: &P, root: &Cid) -> Result<u64, WalkError<P::Error>> {
    Ok(root_node(pages, root)?.tree.entries)
}

/// The entry with this number (its rank in the sorted tree, as a walk counts), none beyond the last.
///
/// # Errors
/// A page on the way is missing or refused.
pub fn entry<P: Pages>(pages: &P, root: &Cid, number: u64) -> Result<Option<Entry>, WalkError<P::Error>> {
    let (mut cid, mut rest) = (root_node(pages, root)?.tree.cid, number);
    loop {
        let bytes = pages.page(&cid).map_err(WalkError::Store)?;
        let bytes = bytes.ok_or_else(|| WalkError::Missing { cid: Box::new(cid) })?;
        let step = match Page::decode(&cid, &bytes)? {
            Page::Index { children, .. } => part(children, rest),
            Page::Leaf(entries) => within(entries, rest),
        };
        match step {
            Step::Here(entry) => return Ok(Some(entry)),
            Step::Beyond => return Ok(None),
            Step::Below(next, left) => (cid, rest) = (next, left),
        }
    }
}

enum Step {
    Here(Entry),
    /// In this page, so many entries on.
    Below(Cid, u64),
    Beyond,
}

fn part(children: Vec<Child>, mut rest: u64) -> Step {
    for child in children {
        if rest < child.entries {
            return Step::Below(child.cid, rest);
        }
        rest -= child.entries;
    }
    Step::Beyond
}

fn within(entries: Vec<Entry>, mut rest: u64) -> Step {
    for entry in entries {
        match &entry.node {
            _ if rest == 0 => return Step::Here(entry),
            Node::Dir(link) if rest <= link.entries => return Step::Below(link.cid, rest - 1),
            _ => rest -= entry.count().min(rest),
        }
    }
    Step::Beyond
}
