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

/// How long outboards that nothing needs are kept, seconds.
const GRACE: u64 = 24 * 3600;
/// Superseded files may take so much in any case, bytes: a small module changes as a whole.
const LEAST_BUDGET: u64 = 64 << 20;
const NANOS: u64 = 1_000_000_000;

/// How long superseded files are kept for others, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Hours.
    pub hours: u32,
    /// Percent of the module's bytes; but 64 MiB in any case. 0 for none at all.
    pub percent: u32,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { hours: 24, percent: 5 }
    }
}

impl Keeping {
    /// Seconds.
    fn grace(self) -> u64 {
        u64::from(self.hours) * 3600
    }

    /// Bytes, of a module of so many.
    fn budget(self, module: u64) -> u64 {
        let part = (module / 100).saturating_mul(u64::from(self.percent));
        if self.percent == 0 { 0 } else { part.max(LEAST_BUDGET) }
    }
}

/// Removes superseded files of every mirror here that are over their time or budget.
///
/// # Errors
/// A disk fails.
pub fn superseded(node: &Node, now: u64) -> Result<(), SyncError> {
    for holding in node.shelf.holdings() {
        if let Some(stage) = &holding.ground.stage {
            superseded_of(stage, &holding.bundle, node.keeping, now)?;
        }
    }
    Ok(())
}

/// The same for one mirror, that holds the generation of `bundle`.
///
/// # Errors
/// The disk fails.
pub fn superseded_of(stage: &Stage, bundle: &CheckedBundle, keeping: Keeping, now: u64) -> Result<(), FileError> {
    let gone = stage.sweep(now, keeping.grace(), keeping.budget(bundle.head().bytes))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_module_is_kept_and_a_small_one_whole() {
        let keeping = Keeping::default();
        assert_eq!((keeping.grace(), keeping.budget(1 << 40)), (86_400, (1 << 40) / 100 * 5));
        assert_eq!(keeping.budget(1000), LEAST_BUDGET);
        assert_eq!(Keeping { hours: 1, percent: 0 }.budget(1 << 40), 0);
        assert_eq!(Keeping { hours: u32::MAX, percent: u32::MAX }.budget(u64::MAX), u64::MAX);
    }
}
