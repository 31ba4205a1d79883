//! Which generation a pass brings, and who can deliver it.

use std::collections::BTreeMap;
use std::time::Duration;

use cid::Cid;
use tokio::time::Instant;
use tracker_less::heads::{Fork, accepts};
use tracker_less::record::{CheckedBundle, Generation};

use super::source::{Finder, Source};
use super::{ModuleRef, Node, SyncError};

/// How long a run looks for anybody at all.
const CONTACT: Duration = Duration::from_secs(30);
/// How long a run that can begin waits for those that the user named and that have not answered yet.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a run that can begin waits for others that are being asked, to start with several.
const MORE_HOLDERS: Duration = Duration::from_millis(200);
/// How long a run that asks a few waits for the second of them.
const SECOND: Duration = Duration::from_millis(500);
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

/// What is known here of a module's heads before anybody's offer is looked at.
#[derive(Debug, Default)]
struct Belief {
    /// The newest head that is believed.
    newest: Option<CheckedBundle>,
    /// The proof of a fork in the newest epoch.
    fork: Option<Fork>,
}

impl Belief {
    /// True unless a fork or the charter of a later epoch speaks against it.
    fn covers(&self, bundle: &CheckedBundle) -> bool {
        let forked = self.fork.as_ref().is_some_and(|fork| fork.doubts(bundle.generation()));
        !forked && self.newest.as_ref().is_none_or(|newest| accepts(newest, bundle))
    }

    fn generation(&self) -> Option<Generation> {
        self.newest.as_ref().map(CheckedBundle::generation)
    }
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

/// What stands where a generation is to be brought, as far as it matters for the choice.
#[derive(Debug, Default)]
pub struct InPlace {
    /// Nothing below this is taken as long as there is anything else.
    pub floor: Option<Generation>,
    /// Its head. Where just this is wanted, as for a repair, it may be that nobody offers it any more: those who hold another
    /// generation still have most of it.
    pub bundle: Option<CheckedBundle>,
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
    in_place: &InPlace,
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
        let belief = belief(node, module).await?;
        if let Some(choice) = choose(&sources, wanted, in_place, &belief) {
            let is_newest = belief.generation().is_none_or(|newest| newest <= choice.generation());
            // An old word may be all that a few know.
            let is_doubtful = wanted == Wanted::Newest && !(is_newest && choice.is_fresh(super::unix_now()));
            if is_doubtful && finder.is_unfinished() {
                finder.widen_after(Duration::ZERO);
            }
            let wait = match (is_newest || wanted != Wanted::Newest, finder.awaits_hints(), finder.is_asking()) {
                (false, ..) => NEWEST_PATIENCE,
                (true, true, _) => SETTLE,
                (true, false, _) if is_doubtful && finder.is_unfinished() => SETTLE,
                (true, false, _) if finder.awaits_others() => SECOND,
                (true, false, true) => MORE_HOLDERS,
                (true, false, false) => Duration::ZERO,
            };
            until = until.min(Instant::now() + wait);
        }
        if Instant::now() >= until || is_exhausted {
            let choice = choose(&sources, wanted, in_place, &belief);
            return conclude(module, choice, sources, &belief, finder);
        }
        tokio::select! {
            source = finder.next() => sources.push(source),
            () = tokio::time::sleep_until(until) => {}
            () = news.notified() => {}
        }
    }
}

/// What is known here by now.
async fn belief(node: &Node, module: &ModuleRef) -> Result<Belief, SyncError> {
    let fork = node.fork(module)?;
    let known = [node.swarm.newest(module.id).await, node.seen(module)?];
    let known = known.into_iter().flatten();
    let known = known.filter(|bundle| fork.as_ref().is_none_or(|fork| !fork.doubts(bundle.generation())));
    Ok(Belief { newest: known.max_by_key(CheckedBundle::generation), fork })
}

fn conclude(
    module: &ModuleRef,
    choice: Option<CheckedBundle>,
    sources: Vec<Source>,
    belief: &Belief,
    finder: &Finder,
) -> Result<Resolved, SyncError> {
    let tried = finder.tried();
    match (choice, &belief.fork) {
        (Some(bundle), _) => {
            let newest = belief.generation().unwrap_or_default().max(bundle.generation());
            Ok(Resolved { bundle, sources, newest })
        }
        (None, Some(fork)) => Err(SyncError::Forked { module: module.to_string(), at: fork.at() }),
        (None, None) if finder.was_answered() => Err(SyncError::NoHead { module: module.to_string(), tried }),
        (None, None) => Err(SyncError::NobodyAnswered { module: module.to_string(), tried }),
    }
}

/// The newest allowed generation that at least one source holds: one held whole before one held in part, but neither before one
/// that is not below `floor`.
fn choose(sources: &[Source], wanted: Wanted, in_place: &InPlace, belief: &Belief) -> Option<CheckedBundle> {
    let mut by_generation: BTreeMap<(bool, bool, Generation), &CheckedBundle> = BTreeMap::new();
    let offers = sources.iter().flat_map(|source| &source.offers);
    // A root that the user named needs nobody's belief.
    let is_named = matches!(wanted, Wanted::Root(_));
    for offer in offers.filter(|offer| wanted.allows(&offer.bundle) && (is_named || belief.covers(&offer.bundle))) {
        let generation = offer.bundle.generation();
        let stands = in_place.floor.is_none_or(|floor| generation >= floor);
        by_generation.insert((stands, offer.whole, generation), &offer.bundle);
    }
    let offered = by_generation.into_values().next_back();
    let own = in_place.bundle.as_ref().filter(|own| wanted == Wanted::Root(*own.root()) && !sources.is_empty());
    offered.or(own).cloned()
}
