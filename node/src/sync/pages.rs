//! Brings the pages of a tree that the index lacks: only those on the way to what was asked for.

use cid::Cid;

use super::source::{Finder, Source};
use super::{ModuleRef, Node, SyncError};
use crate::delta::{cut, patch};
use crate::manifest::ContentId;
use crate::manifest::former::Former;
use crate::manifest::frontier::{Frontier, Missing};
use crate::manifest::page::{Page, PageError, RootNode};
use crate::manifest::select::Selector;
use crate::wire::Error as WireError;
use crate::wire::client::PeerClient;
use crate::wire::delta::{PagePatches, Short};
use crate::wire::rules;

/// Rounds without any news after which others are waited for.
const MAX_VAIN: usize = 8;
/// Pages asked for at once.
const BATCH: usize = 128;

/// What bringing pages cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PageCount {
    /// Pages fetched.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for PageCount {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.bytes += other.bytes;
    }
}

/// Fetches missing pages until everything selected is in the index, as what differs from those of a `former` root, if there is
/// one. Sources that fail or lie leave `sources`.
///
/// # Errors
/// Nobody has a page (24), the tree is refused, or the index fails.
pub async fn bring(
    node: &Node,
    module: &ModuleRef,
    (root, former): (Cid, Option<Cid>),
    selector: &Selector,
    sources: &mut Vec<Source>,
    finder: &mut Finder,
) -> Result<PageCount, SyncError> {
    let mut frontier = Frontier::new(root, selector);
    let mut former = Former::new(root, former);
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
            None => ask(node, module, &sources[at], &missing.pages, &mut former).await,
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
            // All that are here were asked in vain; somebody who comes may have it.
            wait(finder, sources, &missing).await?;
            vain = 0;
        }
    }
}

/// Brings the root node alone, of the first that has it. False if nobody has.
pub async fn bring_root(node: &Node, module: &ModuleRef, root: Cid, sources: &[Source]) -> bool {
    if node.index.page(&root).is_ok_and(|page| page.is_some()) {
        return true;
    }
    for source in sources.iter().filter(|source| offers(source, &root)) {
        if matches!(ask(node, module, source, &[root], &mut Former::default()).await, Ok((1, _))) {
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
    finder.widen_after(std::time::Duration::ZERO);
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
    let answer = source.supply.batch(module.id, &[(id, size)]).await?;
    let Some(bytes) = answer.into_iter().next().flatten() else { return Ok((0, 0)) };
    if ContentId::of(&bytes) != id {
        return Err(Ask::Source(true, format!("wrong bytes for {id}")));
    }
    node.index.put_content(&id, &bytes).map_err(|error| Ask::Failed(error.into()))?;
    Ok((1, bytes.len() as u64))
}

impl From<WireError> for Ask {
    fn from(error: WireError) -> Self {
        Self::Source(matches!(error, WireError::Lie { .. }), error.to_string())
    }
}

/// Asks one source, and puts what verifies into the index. Returns pages and bytes.
async fn ask(
    node: &Node,
    module: &ModuleRef,
    source: &Source,
    missing: &[Cid],
    former: &mut Former,
) -> Result<(u64, u64), Ask> {
    let mut came = match source.supply.peer() {
        Some(client) => patched(node, module, client, missing, former).await?,
        None => Vec::new(),
    };
    let rest: Vec<Cid> = missing.iter().filter(|cid| came.iter().all(|(other, _)| other != *cid)).copied().collect();
    if !rest.is_empty() {
        let answer = source.supply.pages(module.id, &rest).await?;
        came.extend(rest.into_iter().zip(answer).filter_map(|(cid, bytes)| Some((cid, bytes?))));
    }
    for (cid, bytes) in &came {
        // A root node or a page: which of them is decided by where the link stands, here only the name counts.
        let wrong = |error: &PageError| matches!(error, PageError::WrongHash { .. });
        match Page::decode(cid, bytes) {
            Err(error) if wrong(&error) => return Err(Ask::Source(true, error.to_string())),
            Err(error) if RootNode::decode(cid, bytes).is_err() => {
                return Err(Ask::Failed(super::refuse(module, &error)));
            }
            _ => former.note(&*node.index, cid, bytes),
        }
    }
    let put = node.index.put_pages(came.iter().map(|(cid, bytes)| (cid, bytes.as_slice())));
    put.map_err(|error| Ask::Failed(error.into()))?;
    Ok((came.len() as u64, came.iter().map(|(_, bytes)| bytes.len() as u64).sum()))
}

/// The pages that a peer makes from former ones, not verified. One that has none of those is not asked for more.
async fn patched(
    node: &Node,
    module: &ModuleRef,
    client: &PeerClient,
    missing: &[Cid],
    former: &mut Former,
) -> Result<Vec<(Cid, Vec<u8>)>, Ask> {
    let there = |cid: &Cid| {
        let old = former.of(cid)?;
        Some((*cid, *old, node.index.page(old).ok().flatten()?))
    };
    let pairs: Vec<(Cid, Cid, Vec<u8>)> = missing.iter().filter_map(there).collect();
    let (mut rest, mut came) = (pairs.as_slice(), Vec::new());
    while !rest.is_empty() {
        let asked =
            rest.iter().take(rules::MAX_PAGES).map(|(new, old, _)| (Short::from(old), Short::from(new))).collect();
        let made = client.page_patches(module.id, asked).await?;
        let (some, after) = rest.split_at(made.sizes.len().min(rest.len()));
        came.extend(made_from(some, &made).ok_or(Ask::Source(true, "a patch of other pages".to_owned()))?);
        rest = after;
    }
    if came.is_empty() && !pairs.is_empty() {
        former.forget();
    }
    Ok(came)
}

/// Unpacks pages; none if the frame is not one for them.
fn made_from(pairs: &[(Cid, Cid, Vec<u8>)], made: &PagePatches) -> Option<Vec<(Cid, Vec<u8>)>> {
    let there =
        || pairs.iter().zip(&made.sizes).filter_map(|((new, _, old), size)| Some((new, old, u64::from((*size)?))));
    let prefix = there().flat_map(|(_, old, _)| old).copied().collect::<Vec<u8>>();
    let total: u64 = there().map(|(.., size)| size).sum();
    if total == 0 {
        return Some(Vec::new());
    }
    let pages = patch::apply(&prefix, &made.frame, usize::try_from(total).ok()?)?;
    let mut at = 0;
    let page = |(new, _, size): (&Cid, &Vec<u8>, u64)| {
        let start = at;
        at += size;
        Some((*new, cut(&pages, std::slice::from_ref(&(start..at)))?))
    };
    there().map(page).collect()
}
