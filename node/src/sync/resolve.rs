//! Which generation a pass brings, and who can deliver it.

use std::collections::BTreeMap;
use std::time::Duration;

use cid::Cid;
use tokio::time::Instant;
use tracker_less::record::{CheckedBundle, Generation};

use super::source::{Finder, Source};
use super::{ModuleRef, Node, SyncError};

/// How long a run looks for anybody at all.
const CONTACT: Duration = Duration::from_secs(30);
/// How long a run that can begin waits for those that the user named and that have not answered yet.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a run that can begin waits for others that are being asked, to start with several.
const MORE_HOLDERS: Duration = Duration::from_millis(200);
/// How long a run waits for a holder of the newest generation before it takes an older one.
const NEWEST_PATIENCE: Duration = Duration::from_secs(5);

/// The generation a reference asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The newest that can be had.
    Newest,
    /// Exactly this number, in the newest epoch that has it.
    Seq(u64),
    /// Exactly this root.
    Root(Cid),
}

impl Wanted {
    fn allows(&self, bundle: &CheckedBundle) -> bool {
        match self {
            Self::Newest => true,
            Self::Seq(seq) => bundle.generation().seq == *seq,
            Self::Root(root) => bundle.root() == root,
        }
    }
}

/// What resolving found.
pub struct Resolved {
    /// The head of the generation to bring.
    pub bundle: CheckedBundle,
    /// Nodes that hold some generation.
    pub sources: Vec<Source>,
    /// The highest generation that anybody showed: if it is above `bundle`'s, nobody reachable has it.
    pub newest: Generation,
}

/// Asks everybody, and chooses the newest generation that somebody holds.
///
/// # Errors
/// [`SyncError::NobodyAnswered`], [`SyncError::NoHead`].
pub async fn resolve(
    node: &Node,
    module: &ModuleRef,
    wanted: Wanted,
    finder: &mut Finder,
) -> Result<Resolved, SyncError> {
    let start = Instant::now();
    let mut sources: Vec<Source> = Vec::new();
    let mut until = start + CONTACT;
    let news = finder.news();
    loop {
        // Before the sources are taken: whoever is found goes into the queue first.
        let is_exhausted = finder.is_exhausted();
        while let Some(source) = finder.try_next() {
            sources.push(source);
        }
        let newest = newest(node, module).await?;
        if let Some(choice) = choose(&sources, wanted) {
            let is_newest = newest.is_none_or(|newest| newest <= choice.generation());
            let wait = match (is_newest || wanted != Wanted::Newest, finder.awaits_hints(), finder.is_asking()) {
                (false, ..) => NEWEST_PATIENCE,
                (true, true, _) => SETTLE,
                (true, false, true) => MORE_HOLDERS,
                (true, false, false) => Duration::ZERO,
            };
            until = until.min(Instant::now() + wait);
        }
        if Instant::now() >= until || is_exhausted {
            return conclude(module, wanted, sources, newest, finder);
        }
        tokio::select! {
            source = finder.next() => sources.push(source),
            () = tokio::time::sleep_until(until) => {}
            () = news.notified() => {}
        }
    }
}

/// The highest generation known here.
async fn newest(node: &Node, module: &ModuleRef) -> Result<Option<Generation>, SyncError> {
    let heard = node.swarm.newest(module.id).await.map(|bundle| bundle.generation());
    Ok(heard.max(node.seen(module)?.map(|bundle| bundle.generation())))
}

fn conclude(
    module: &ModuleRef,
    wanted: Wanted,
    sources: Vec<Source>,
    newest: Option<Generation>,
    finder: &Finder,
) -> Result<Resolved, SyncError> {
    let (module, tried) = (module.to_string(), finder.tried());
    match choose(&sources, wanted) {
        Some(bundle) => {
            let newest = newest.unwrap_or_default().max(bundle.generation());
            Ok(Resolved { bundle, sources, newest })
        }
        None if finder.was_answered() => Err(SyncError::NoHead { module, tried }),
        None => Err(SyncError::NobodyAnswered { module, tried }),
    }
}

/// The newest allowed generation that at least one source holds; one held whole before one held in part.
fn choose(sources: &[Source], wanted: Wanted) -> Option<CheckedBundle> {
    let mut by_generation: BTreeMap<(bool, Generation), &CheckedBundle> = BTreeMap::new();
    for offer in sources.iter().flat_map(|source| &source.offers).filter(|offer| wanted.allows(&offer.bundle)) {
        by_generation.insert((offer.whole, offer.bundle.generation()), &offer.bundle);
    }
    by_generation.into_values().next_back().cloned()
}
