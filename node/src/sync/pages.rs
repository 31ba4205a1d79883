//! Brings the pages of a tree that the index lacks: only those on the way to what was asked for.

use cid::Cid;

use super::source::{Finder, Source};
use super::{ModuleRef, Node, SyncError};
use crate::manifest::ContentId;
use crate::manifest::frontier::{Frontier, Missing};
use crate::manifest::page::{Page, PageError, RootNode};
use crate::manifest::select::Selector;
use crate::wire::Error as WireError;

/// Pages asked for at once.
const BATCH: usize = 128;
/// Rounds without any news after which the pages are given up.
const MAX_VAIN: usize = 8;

/// What bringing pages cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PageCount {
    /// Pages fetched.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Fetches missing pages until everything selected is in the index. Sources that fail or lie leave `sources`.
///
/// # Errors
/// Nobody has a page (24), the tree is refused, or the index fails.
pub async fn bring(
    node: &Node,
    module: &ModuleRef,
    root: Cid,
    selector: &Selector,
    sources: &mut Vec<Source>,
    finder: &mut Finder,
) -> Result<PageCount, SyncError> {
    let mut frontier = Frontier::new(root, selector);
    let (mut count, mut turn, mut vain) = (PageCount::default(), 0, 0);
    loop {
        let missing = frontier.missing(&*node.index, BATCH).map_err(|error| SyncError::tree(module, error))?;
        if missing.is_empty() {
            return Ok(count);
        }
        while let Some(source) = finder.try_next() {
            sources.push(source);
        }
        let holders: Vec<usize> = (0..sources.len()).filter(|at| offers(&sources[*at], &root)).collect();
        let Some(at) = holders.get(turn % holders.len().max(1)).copied() else {
            wait(finder, sources, &missing).await?;
            continue;
        };
        turn += 1;
        let answer = match missing.contents.first() {
            Some((id, size)) => ask_content(node, module, &sources[at], *id, *size).await,
            None => ask(node, module, &sources[at], &missing.pages).await,
        };
        match answer {
            Ok((0, _)) => vain += 1,
            Ok((pages, bytes)) => {
                vain = 0;
                count.pages += pages;
                count.bytes += bytes;
            }
            Err(Ask::Failed(error)) => return Err(error),
            Err(Ask::Source(lie, why)) => drop_source(sources, at, lie, &why, finder),
        }
        if vain > MAX_VAIN.max(holders.len()) {
            return Err(no_pages(&missing, sources, finder));
        }
    }
}

/// Brings the root node alone, of the first that has it. False if nobody has.
pub async fn bring_root(node: &Node, module: &ModuleRef, root: Cid, sources: &[Source]) -> bool {
    if node.index.page(&root).is_ok_and(|page| page.is_some()) {
        return true;
    }
    for source in sources.iter().filter(|source| offers(source, &root)) {
        if matches!(ask(node, module, source, &[root]).await, Ok((1, _))) {
            return true;
        }
    }
    false
}

fn offers(source: &Source, root: &Cid) -> bool {
    source.offers.iter().any(|offer| offer.bundle.root() == root)
}

fn drop_source(sources: &mut Vec<Source>, at: usize, lie: bool, why: &str, finder: &Finder) {
    let source = sources.remove(at).name;
    tracing::warn!(%source, why, "source dropped while pages were fetched");
    if lie { finder.ban(&source) } else { finder.lost(&source) }
}

async fn wait(finder: &mut Finder, sources: &mut Vec<Source>, missing: &Missing) -> Result<(), SyncError> {
    let next = tokio::time::timeout(super::fetch::PATIENCE, finder.next()).await;
    match next {
        Ok(source) => {
            sources.push(source);
            Ok(())
        }
        Err(_) => Err(no_pages(missing, sources, finder)),
    }
}

fn no_pages(missing: &Missing, sources: &[Source], finder: &Finder) -> SyncError {
    SyncError::NoSource {
        pieces: missing.pages.len() + missing.contents.len(),
        sources: sources.len(),
        tried: finder.tried(),
    }
}

enum Ask {
    /// The run cannot go on.
    Failed(SyncError),
    /// This source cannot, and whether it lied.
    Source(bool, String),
}

/// Asks one source for a file of rules.
async fn ask_content(
    node: &Node,
    module: &ModuleRef,
    source: &Source,
    id: ContentId,
    size: u64,
) -> Result<(u64, u64), Ask> {
    let answer = source.supply.batch(module.id, &[(id, size)]).await;
    let answer = answer.map_err(|error| Ask::Source(matches!(error, WireError::Lie { .. }), error.to_string()))?;
    let Some(bytes) = answer.into_iter().next().flatten() else { return Ok((0, 0)) };
    if ContentId::of(&bytes) != id {
        return Err(Ask::Source(true, format!("wrong bytes for {id}")));
    }
    node.index.put_content(&id, &bytes).map_err(|error| Ask::Failed(error.into()))?;
    Ok((1, bytes.len() as u64))
}

/// Asks one source, and puts what verifies into the index. Returns pages and bytes.
async fn ask(node: &Node, module: &ModuleRef, source: &Source, missing: &[Cid]) -> Result<(u64, u64), Ask> {
    let answer = source.supply.pages(module.id, missing).await;
    let answer = answer.map_err(|error| Ask::Source(matches!(error, WireError::Lie { .. }), error.to_string()))?;
    let mut good = Vec::new();
    for (cid, bytes) in missing.iter().zip(answer) {
        let Some(bytes) = bytes else { continue };
        // A root node or a page: which of them is decided by where the link stands, here only the name counts.
        let wrong = |error: &PageError| matches!(error, PageError::WrongHash { .. });
        match Page::decode(cid, &bytes) {
            Err(error) if wrong(&error) => return Err(Ask::Source(true, error.to_string())),
            Err(error) if RootNode::decode(cid, &bytes).is_err() => {
                return Err(Ask::Failed(super::refuse(module, &error)));
            }
            _ => good.push((cid, bytes)),
        }
    }
    let put = node.index.put_pages(good.iter().map(|(cid, bytes)| (*cid, bytes.as_slice())));
    put.map_err(|error| Ask::Failed(error.into()))?;
    Ok((good.len() as u64, good.iter().map(|(_, bytes)| bytes.len() as u64).sum()))
}
