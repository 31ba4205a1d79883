//! What a running node clears away: superseded files after their time, pages and outboards that nothing held needs. The time
//! is passed in.

use std::collections::HashSet;

use cid::Cid;
use tracker_less::record::CheckedBundle;

use super::{ModuleRef, Node, SyncError};
use crate::manifest::entry::Node as Kind;
use crate::manifest::page::{Page, RootNode};
use crate::store::files::FileError;
use crate::store::index::{Index, IndexError};
use crate::store::stage::Stage;

/// How long superseded files and unneeded outboards are kept for others, seconds.
const GRACE: u64 = 24 * 3600;
/// How much of the module's bytes superseded files may take: one part in this many.
const BUDGET_PART: u64 = 20;
const NANOS: u64 = 1_000_000_000;

/// Removes superseded files of every mirror here that are over their time or budget.
///
/// # Errors
/// A disk fails.
pub fn superseded(node: &Node, now: u64) -> Result<(), SyncError> {
    for holding in node.shelf.holdings() {
        if let Some(stage) = &holding.ground.stage {
            superseded_of(stage, &holding.bundle, now)?;
        }
    }
    Ok(())
}

/// The same for one mirror, that holds the generation of `bundle`.
///
/// # Errors
/// The disk fails.
pub fn superseded_of(stage: &Stage, bundle: &CheckedBundle, now: u64) -> Result<(), FileError> {
    let gone = stage.sweep(now, GRACE, bundle.head().bytes / BUDGET_PART)?;
    if gone > 0 {
        tracing::info!(module = %ModuleRef::of(bundle), files = gone, "superseded files removed");
    }
    Ok(())
}

/// Removes outboards of contents that are gone, and forgets the pages of trees that are neither held, arriving, heard of as the
/// newest, nor were the last fetched into some directory: the second time in a row that nobody has touched them.
///
/// # Errors
/// A disk, the state or the index fails.
pub fn forgotten(node: &Node, now: u64) -> Result<(), SyncError> {
    for holding in node.shelf.holdings() {
        if node.shelf.is_arriving(&holding.bundle.module()) {
            continue;
        }
        let before = i64::try_from(now.saturating_sub(GRACE).saturating_mul(NANOS)).unwrap_or(i64::MAX);
        let gone = holding.sweep_outboards(before)?;
        tracing::debug!(module = %ModuleRef::of(&holding.bundle), outboards = gone, "swept");
    }
    let mut seen = HashSet::new();
    for root in roots(node)? {
        touch_tree(&node.index, root, &mut seen)?;
    }
    let pages = node.index.sweep_pages()?;
    tracing::debug!(pages, "swept from the index");
    Ok(())
}

/// The roots of all trees whose pages stay.
fn roots(node: &Node) -> Result<HashSet<Cid>, SyncError> {
    let mut bundles = node.shelf.heads();
    let mut kept = node.state.fetched_bundles()?;
    for (publisher, name) in node.state.registered()? {
        let marks = node.state.module(&publisher, &name)?;
        kept.extend([marks.held()?, marks.seen()?].into_iter().flatten());
    }
    bundles.extend(kept.iter().filter_map(|bytes| CheckedBundle::verify(bytes).ok()));
    Ok(bundles.iter().map(|bundle| *bundle.root()).collect())
}

/// Reads every page of a tree that is here, each once.
fn touch_tree(index: &Index, root: Cid, seen: &mut HashSet<Cid>) -> Result<(), IndexError> {
    let mut open = vec![root];
    while let Some(cid) = open.pop() {
        if !seen.insert(cid) {
            continue;
        }
        let Some(bytes) = index.page(&cid)? else { continue };
        match Page::decode(&cid, &bytes) {
            Ok(Page::Index { children, .. }) => open.extend(children.iter().map(|child| child.cid)),
            Ok(Page::Leaf(entries)) => open.extend(entries.iter().filter_map(|entry| match &entry.node {
                Kind::Dir(link) => Some(link.cid),
                _ => None,
            })),
            Err(_) => open.extend(RootNode::decode(&cid, &bytes).ok().map(|node| node.tree.cid)),
        }
    }
    Ok(())
}
