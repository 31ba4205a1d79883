//! The bytes of a pass: patches where an old version stands, then everything else from all sources at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracker_less::book::Outcome;
use tracker_less::machine::Event;
use tracker_less::record::{CheckedBundle, Coverage, ModuleId};

use super::fetch::{Download, Progress};
use super::pass::{Kind, Report, Request, blocking};
use super::patches::{self, Basis, Ground};
use super::plan::{self, Change, Plan, Step, Want};
use super::resolve::Wanted;
use super::shelf::Arriving;
use super::silence::unless_silent;
use super::source::{Finder, Source};
use super::supply::SourceName;
use super::{Node, SourceRow, SyncError};
use crate::manifest::path::TreePath;
use crate::store::files::Dir;
use crate::store::stage::Stage;
use crate::wire::pulse::Pulse;
use crate::wire::rules::MAX_PROVABLE;

/// When a run first tells what has arrived, and how often from then on.
const TELL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// For fewer bytes the sources at hand are enough.
const LITTLE: u64 = 1 << 20;

/// What is brought, and where to.
pub struct Bringing<'a> {
    /// Ours; serves what has arrived.
    pub node: &'a Arc<Node>,
    /// What is wanted.
    pub request: &'a Request,
    /// Where it is collected.
    pub stage: &'a Arc<Stage>,
    /// Where old versions stand.
    pub dest: &'a Dir,
    /// Told of every byte.
    pub progress: &'a Arc<Progress>,
    /// Shows that anything comes at all.
    pub pulse: &'a Pulse,
}

impl Bringing<'_> {
    /// Fills the stage with what the plan wants; the rows tell each source's part.
    ///
    /// # Errors
    /// No source left, the time is over, the stage fails.
    pub async fn run(
        &self,
        report: &Report,
        mut sources: Vec<Source>,
        finder: &mut Finder,
    ) -> Result<Vec<SourceRow>, SyncError> {
        let wants = report.plan.wants();
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: u64 = wants.iter().map(|want| want.size).sum();
        if bytes > LITTLE {
            finder.widen_after(Duration::ZERO);
        } else {
            finder.suffices(false);
        }
        let patched = self.patch(report, &mut sources, finder).await?;
        let (shelf, module, root) = (&self.node.shelf, self.request.module.id, *report.bundle.root());
        let arriving = Arc::new(Arriving::new(report.bundle.clone(), Arc::clone(self.stage), &wants));
        shelf.heard_of(&report.bundle);
        let offer = Offer::begin(self.node, module, Arc::clone(&arriving));
        let (stage, progress, pace) = (Arc::clone(self.stage), Arc::clone(self.progress), self.request.pace.clone());
        let download = blocking(move || Download::new(module, root, stage, wants, arriving, progress, pace)).await?;
        let start = Instant::now();
        let trackers = report.bundle.charter().trackers.clone();
        let download = download.among(&self.node.swarm.peer_id());
        let download = download.pulsing(self.pulse.clone());
        let download = download.choosing(self.request.choice, trackers);
        let download = download.of_any(matches!(self.request.wanted, Wanted::Root(_)));
        // On the heap: with everything around it, it would be too large for the stack of a worker.
        let download = Box::pin(download.run(sources, finder));
        let download = unless_silent(self.request.timeout, self.pulse, download);
        let rows = tokio::select! {
            rows = download => rows,
            never = self.nominate(&report.bundle) => match never {},
        };
        // Of a mirror's pass the end of the pass decides what is held.
        offer.end(self.request.kind == Kind::Fetch || rows.is_err()).await;
        let rows = rows.map_err(|error| named(error, &report.plan))?;
        self.measure(&rows, start.elapsed()).await;
        Ok(merge(patched, rows))
    }

    /// The mirror book learns who gave what, and how fast.
    async fn measure(&self, rows: &[SourceRow], took: Duration) {
        for row in rows.iter().filter(|row| row.received > 0 || row.bad > 0) {
            let SourceName::Peer(peer) = row.name else { continue };
            let rate = u128::from(row.received) * 1_000_000 / took.as_micros().max(1);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            let outcome = if row.bad > 0 { Outcome::Lacking } else { Outcome::Good { rate } };
            self.node.swarm.tell(Event::Measured { module: self.request.module.id, peer, outcome }).await;
        }
    }

    /// Tells the swarm from time to time what has arrived: it can be had from here. Whoever holds a whole generation goes on
    /// telling of that one; a fetch tells of it for its own time.
    async fn nominate(&self, bundle: &CheckedBundle) -> Infallible {
        tokio::time::sleep(TELL.0).await;
        loop {
            let is_first = self.node.shelf.holding(&bundle.module()).is_none();
            let coverage = Coverage::share(self.progress.done.load(Ordering::Relaxed), bundle.head().bytes);
            if is_first && coverage < Coverage::WHOLE {
                let (bundle, coverage) = (bundle.clone(), coverage.max(Coverage::LEAST));
                let event = match self.request.kind {
                    Kind::Mirror => Event::Hold { bundle, coverage, http: Vec::new() },
                    Kind::Fetch => Event::Passing { bundle, coverage },
                };
                self.node.swarm.tell(event).await;
            }
            tokio::time::sleep(TELL.1).await;
        }
    }

    async fn patch(
        &self,
        report: &Report,
        sources: &mut Vec<Source>,
        finder: &Finder,
    ) -> Result<Vec<SourceRow>, SyncError> {
        if !self.request.delta {
            return Ok(Vec::new());
        }
        let staged = |want: &Want| self.stage.complete(&want.id) || self.stage.has_partial(&want.id);
        let provable = |want: &Want, old: u64| want.size.max(old) <= MAX_PROVABLE;
        let worth = |(want, _, old): &(Want, TreePath, u64)| {
            plan::pays(want.size, *old) && provable(want, *old) && !staged(want)
        };
        let bases = report.plan.bases().into_iter().filter(worth);
        let bases = bases.map(|(want, path, old_size)| Basis { want, path, old_size }).collect();
        let (module, root) = (self.request.module.id, *report.bundle.root());
        let whole = |source: &Source| source.offers.iter().any(|offer| *offer.bundle.root() == root && offer.whole);
        let (dest, stage, pace) = (self.dest.clone(), Arc::clone(self.stage), self.request.pace.clone());
        let ground = Ground { module, dest, stage, pace };
        patches::run(&ground, bases, whole, sources, finder).await
    }
}

/// Names a file that nobody has.
fn named(mut error: SyncError, plan: &Plan) -> SyncError {
    if let SyncError::NoSource { path, content: Some(content), .. } = &mut error {
        let lacking = |step: &&Step| matches!(step.change, Change::File { id, .. } if id == *content);
        *path = plan.steps.iter().find(lacking).map(|step| step.path.clone());
    }
    error
}

/// What arrives can be had from here until the run ends, in whatever way that may be.
struct Offer {
    node: Arc<Node>,
    module: ModuleId,
    /// Nobody has ended it.
    open: bool,
}

impl Offer {
    fn begin(node: &Arc<Node>, module: ModuleId, arriving: Arc<Arriving>) -> Self {
        node.shelf.set_arriving(module, Some(arriving));
        Self { node: Arc::clone(node), module, open: true }
    }

    /// Ends it; `all`: no word of it stays, unless a replica is held.
    async fn end(mut self, all: bool) {
        self.open = false;
        self.node.shelf.set_arriving(self.module, None);
        if all {
            self.node.release(&self.module).await;
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if self.open {
            self.node.shelf.set_arriving(self.module, None);
            let (node, module) = (Arc::clone(&self.node), self.module);
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(async move { node.release(&module).await });
            }
        }
    }
}

/// One row per source, of both ways that bytes came.
fn merge(mut rows: Vec<SourceRow>, more: Vec<SourceRow>) -> Vec<SourceRow> {
    for row in more {
        match rows.iter_mut().find(|known| known.name == row.name) {
            Some(known) => {
                known.received += row.received;
                known.requests += row.requests;
                known.bad += row.bad;
                known.banned |= row.banned;
            }
            None => rows.push(row),
        }
    }
    rows
}
