//! Brings the pages of a tree that the index lacks: only those on the way to what was asked for.

use std::time::Duration;

use cid::Cid;
use futures::stream::{FuturesUnordered, StreamExt};
use tracker_less::record::ModuleId;

use super::source::{Finder, Source};
use super::supply::{SourceName, Supply};
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
/// After so long another source is asked as well.
const SLOW: Duration = Duration::from_secs(5);

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
/// one. Sources that fail or lie leave `sources`; who takes long is not waited for where another has them.
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
    let (mut asks, mut asked) = (FuturesUnordered::new(), Asked::default());
    loop {
        let missing = frontier.missing(&*node.index, BATCH).map_err(|error| SyncError::tree(module, error))?;
        if missing.is_empty() {
            return Ok(count);
        }
        while let Some(source) = finder.try_next() {
            sources.push(source);
        }
        let holders: Vec<&Source> = sources.iter().filter(|source| offers(source, &root)).collect();
        // All that are here were asked in vain; somebody who owes or who comes may have it.
        let is_vain = vain > MAX_VAIN.max(holders.len());
        let idle = holders.into_iter().filter(|source| !is_vain && !asked.owes(&source.name));
        let idle: Vec<&Source> = idle.collect();
        match idle.get(turn % idle.len().max(1)).filter(|_| asked.last.is_none()) {
            Some(source) => {
                turn += 1;
                asked.begin(&source.name);
                let wish = Wish::of(node, &missing, &former);
                let (name, supply, module) = (source.name.clone(), source.supply.clone(), module.id);
                asks.push(async move { (name, wish.ask(&supply, module).await) });
            }
            None if asks.is_empty() => {
                wait(finder, sources, &missing).await?;
                vain = 0;
                continue;
            }
            None => {}
        }
        let (name, answer) = tokio::select! {
            Some(answer) = asks.next() => answer,
            () = tokio::time::sleep(SLOW), if asked.last.is_some() => {
                asked.last = None;
                continue;
            }
            source = finder.next() => {
                sources.push(source);
                continue;
            }
        };
        asked.end(&name);
        let news = match answer {
            Ok(came) => take(node, module, came, &mut former),
            Err(error) => Err(error.into()),
        };
        match news {
            Ok((0, _)) => vain += 1,
            Ok((pages, bytes)) => {
                vain = 0;
                count.pages += pages;
                count.bytes += bytes;
            }
            Err(Ask::Failed(error)) => return Err(error),
            Err(Ask::Source(lie, why)) => drop_source(sources, &name, lie, &why, finder),
        }
    }
}

/// Who was asked for pages and has not answered yet.
#[derive(Default)]
struct Asked {
    owing: Vec<SourceName>,
    /// The one that is waited for.
    last: Option<SourceName>,
}

impl Asked {
    fn owes(&self, name: &SourceName) -> bool {
        self.owing.contains(name)
    }

    fn begin(&mut self, name: &SourceName) {
        self.owing.push(name.clone());
        self.last = Some(name.clone());
    }

    fn end(&mut self, name: &SourceName) {
        self.owing.retain(|other| other != name);
        self.last.take_if(|last| last == name);
    }
}

/// True if everything selected of a tree is in the index.
pub fn are_here(node: &Node, root: &Cid, selector: &Selector) -> bool {
    Frontier::new(*root, selector).missing(&*node.index, 1).is_ok_and(|missing| missing.is_empty())
}

/// Brings the root node alone, of the first that has it. False if nobody has.
pub async fn bring_root(node: &Node, module: &ModuleRef, root: Cid, sources: &[Source]) -> bool {
    if node.index.page(&root).is_ok_and(|page| page.is_some()) {
        return true;
    }
    for source in sources.iter().filter(|source| offers(source, &root)) {
        let wish = Wish { pages: vec![root], ..Wish::default() };
        let Ok(came) = wish.ask(&source.supply, module.id).await else { continue };
        if matches!(take(node, module, came, &mut Former::default()), Ok((1, _))) {
            return true;
        }
    }
    false
}

fn offers(source: &Source, root: &Cid) -> bool {
    source.offers.iter().any(|offer| offer.bundle.root() == root)
}

fn drop_source(sources: &mut Vec<Source>, source: &SourceName, lie: bool, why: &str, finder: &Finder) {
    sources.retain(|other| other.name != *source);
    tracing::warn!(%source, why, "source dropped while pages were fetched");
    if lie { finder.ban(source) } else { finder.lost(source) }
}

async fn wait(finder: &mut Finder, sources: &mut Vec<Source>, missing: &Missing) -> Result<(), SyncError> {
    finder.widen_after(Duration::ZERO);
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
        path: None,
        content: None,
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

impl From<WireError> for Ask {
    fn from(error: WireError) -> Self {
        Self::Source(matches!(error, WireError::Lie { .. }), error.to_string())
    }
}

/// What one source is asked for: a file of rules, or pages.
#[derive(Default)]
struct Wish {
    content: Option<(ContentId, u64)>,
    pages: Vec<Cid>,
    /// New and former page, and the bytes of the former one.
    pairs: Vec<(Cid, Cid, Vec<u8>)>,
}

/// What came of it, not verified.
#[derive(Default)]
struct Came {
    content: Option<(ContentId, Vec<u8>)>,
    pages: Vec<(Cid, Vec<u8>)>,
    /// Whoever was asked has none of the former pages.
    no_former: bool,
}

impl Wish {
    fn of(node: &Node, missing: &Missing, former: &Former) -> Self {
        if let Some(content) = missing.contents.first() {
            return Self { content: Some(*content), ..Self::default() };
        }
        let there = |cid: &Cid| {
            let old = former.of(cid)?;
            Some((*cid, *old, node.index.page(old).ok().flatten()?))
        };
        let pairs = missing.pages.iter().filter_map(there).collect();
        Self { content: None, pages: missing.pages.clone(), pairs }
    }

    async fn ask(self, supply: &Supply, module: ModuleId) -> Result<Came, WireError> {
        if let Some(content) = self.content {
            let bytes = supply.batch(module, &[content]).await?.into_iter().next().flatten();
            return Ok(Came { content: bytes.map(|bytes| (content.0, bytes)), ..Came::default() });
        }
        let mut pages = match supply.peer() {
            Some(client) => patched(client, module, &self.pairs).await?,
            None => Vec::new(),
        };
        let no_former = pages.is_empty() && !self.pairs.is_empty() && supply.peer().is_some();
        let came = |cid: &Cid| pages.iter().any(|(other, _)| other == cid);
        let rest: Vec<Cid> = self.pages.iter().filter(|cid| !came(cid)).copied().collect();
        if !rest.is_empty() {
            let answer = supply.pages(module, &rest).await?;
            pages.extend(rest.into_iter().zip(answer).filter_map(|(cid, bytes)| Some((cid, bytes?))));
        }
        Ok(Came { content: None, pages, no_former })
    }
}

/// Puts what verifies into the index; gives how many there were and their bytes.
fn take(node: &Node, module: &ModuleRef, came: Came, former: &mut Former) -> Result<(u64, u64), Ask> {
    if let Some((id, bytes)) = came.content {
        if ContentId::of(&bytes) != id {
            return Err(Ask::Source(true, format!("wrong bytes for {id}")));
        }
        node.index.put_content(&id, &bytes).map_err(|error| Ask::Failed(error.into()))?;
        return Ok((1, bytes.len() as u64));
    }
    if came.no_former {
        former.forget();
    }
    for (cid, bytes) in &came.pages {
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
    let put = node.index.put_pages(came.pages.iter().map(|(cid, bytes)| (cid, bytes.as_slice())));
    put.map_err(|error| Ask::Failed(error.into()))?;
    Ok((came.pages.len() as u64, came.pages.iter().map(|(_, bytes)| bytes.len() as u64).sum()))
}

/// The pages that a peer makes from former ones, not verified.
async fn patched(
    client: &PeerClient,
    module: ModuleId,
    pairs: &[(Cid, Cid, Vec<u8>)],
) -> Result<Vec<(Cid, Vec<u8>)>, WireError> {
    let (mut rest, mut came) = (pairs, Vec::new());
    while !rest.is_empty() {
        let asked =
            rest.iter().take(rules::MAX_PAGES).map(|(new, old, _)| (Short::from(old), Short::from(new))).collect();
        let made = client.page_patches(module, asked).await?;
        let (some, after) = rest.split_at(made.sizes.len().min(rest.len()));
        came.extend(made_from(some, &made).ok_or(WireError::Lie { what: "a patch of other pages" })?);
        rest = after;
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
