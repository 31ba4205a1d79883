//! Brings the wanted contents into the stage: the loop that hands pieces to sources and takes what comes back.

mod flight;
mod jobs;
mod open;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cid::Cid;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::PeerId;
use tokio::sync::Semaphore;
use tracker_less::record::ModuleId;

use super::choice::{Choice, Reserve};
use super::pick::{Picker, PieceId, SourceId};
use super::plan::Want;
use super::shelf::Arriving;
use super::source::{Finder, Source};
use super::supply::{Hashes, Supply};
use super::{SourceRow, SyncError};
use crate::manifest::ContentId;
use crate::store::stage::{Partial, Stage};
use crate::wire::Have;
use crate::wire::pulse::Pulse;
use crate::wire::throttle::Pace;
use flight::{Flight, Outcome, settle};
use jobs::{Job, ROUND, Todo};
use open::{Open, lacking};

/// Contents up to this size travel whole, many to a request, and need no proof.
pub const SMALL: u64 = 256 << 10;
/// How long a run looks for somebody who has what is missing.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often the sources are looked at: who stands still, who may repeat what another owes.
const TICK: Duration = Duration::from_millis(250);
/// How often partial sources with nothing to do are asked what they have by now; the others are once in so many times.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_ALL: u32 = 3;
/// Whoever takes longer to say what it has is gone.
const HAVE_PATIENCE: Duration = Duration::from_secs(15);

/// What came back from a source.
enum Landing {
    /// The answer to a piece.
    Piece(SourceId, PieceId, Outcome),
    /// The answer to "what do you have".
    Have(SourceId, Option<Have>),
}

/// Bytes to fetch and bytes fetched, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Payload bytes of the run.
    pub total: AtomicU64,
    /// Payload bytes that arrived.
    pub done: AtomicU64,
}

/// Everything of one download.
pub struct Download {
    module: ModuleId,
    root: Cid,
    stage: Arc<Stage>,
    todo: Todo,
    /// The requests of this round, by the number of their piece.
    jobs: Vec<Job>,
    picker: Picker,
    open: HashMap<ContentId, Open>,
    sources: Vec<Arc<Source>>,
    rows: Vec<SourceRow>,
    flights: FuturesUnordered<BoxFuture<'static, Landing>>,
    hashes: Arc<Hashes>,
    workers: Arc<Semaphore>,
    worker_count: u32,
    idle_since: Option<Instant>,
    /// When partial sources were last asked what they have.
    asked: Instant,
    /// How often that was.
    rounds: u32,
    /// What others may have from this run already.
    arriving: Arc<Arriving>,
    progress: Arc<Progress>,
    /// `--bwlimit`.
    pace: Option<Pace>,
    /// Shows that the run lives, also while the pace holds it back.
    pulse: Pulse,
    /// Who waits for a turn.
    reserve: Reserve,
    /// Who holds another generation is asked as well.
    any: bool,
}

impl Download {
    /// Prepares a download of `wants` of the tree under `root`, at a pace if one is given. What the stage holds already, whole or
    /// in part, is not asked for again.
    ///
    /// # Errors
    /// The stage fails.
    pub fn new(
        module: ModuleId,
        root: Cid,
        stage: Arc<Stage>,
        wants: Vec<Want>,
        arriving: Arc<Arriving>,
        progress: Arc<Progress>,
        pace: Option<Pace>,
    ) -> Result<Self, SyncError> {
        let (wants, open) = lacking(&stage, wants, &arriving)?;
        let left = open.iter().map(|(id, open)| (*id, open.partial.missing().into())).collect();
        let mut todo = Todo::new(wants, left, pace.as_ref().map(Pace::rate));
        progress.total.store(todo.bytes(), Ordering::Relaxed);
        let jobs = todo.round(ROUND);
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let worker_count = u32::try_from(processors).map_or(2, |count| count.saturating_add(1));
        Ok(Self {
            module,
            root,
            stage,
            todo,
            picker: Picker::new(jobs.iter().map(Job::piece).collect()),
            jobs,
            open,
            sources: Vec::new(),
            rows: Vec::new(),
            flights: FuturesUnordered::new(),
            hashes: Arc::default(),
            workers: Arc::new(Semaphore::new(usize::try_from(worker_count).unwrap_or(1))),
            worker_count,
            idle_since: None,
            asked: Instant::now(),
            rounds: 0,
            arriving,
            progress,
            pace,
            pulse: Pulse::default(),
            reserve: Reserve::default(),
            any: false,
        })
    }

    /// Told to whoever feels whether anything comes.
    #[must_use]
    pub fn pulsing(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// As one of perhaps several that bring the same tree at once.
    #[must_use]
    pub fn among(self, own: &PeerId) -> Self {
        Self { picker: self.picker.with_lot(lot(own)), ..self }
    }

    /// With the sources that the user chose.
    #[must_use]
    pub fn choosing(self, choice: Choice, trackers: Vec<PeerId>) -> Self {
        Self { reserve: Reserve::new(choice, trackers), ..self }
    }

    /// Asking those as well who hold another generation: most of it is the same.
    #[must_use]
    pub fn of_any(self, any: bool) -> Self {
        Self { any, ..self }
    }

    /// Runs until everything is staged, from `sources` and from whoever the finder brings; returns each source's part.
    ///
    /// # Errors
    /// [`SyncError::NoSource`] when nobody has had what is missing for some time; disk errors as they come.
    pub async fn run(mut self, sources: Vec<Source>, finder: &mut Finder) -> Result<Vec<SourceRow>, SyncError> {
        let result = self.bring(sources, finder).await;
        // A repetition that nobody waits for may still be writing: after that, what is staged changes no more.
        self.flights.clear();
        settle(&self.workers, self.worker_count).await;
        result.map(|()| self.rows)
    }

    async fn bring(&mut self, sources: Vec<Source>, finder: &mut Finder) -> Result<(), SyncError> {
        let mut tick = tokio::time::interval(TICK);
        for source in sources {
            self.meet(source);
        }
        self.call(false);
        while self.goes_on() {
            self.hand_out()?;
            let wait = self.held_back();
            if !wait.is_zero() {
                self.pulse.beat(1);
            }
            tokio::select! {
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                Some(landing) = self.flights.next(), if !self.flights.is_empty() => self.land(landing, finder)?,
                source = finder.next() => self.meet(source),
                _ = tick.tick() => self.check(finder)?,
            }
        }
        Ok(())
    }

    /// True while something is to come, or to be handed on; where a round is over, the next one begins.
    fn goes_on(&mut self) -> bool {
        let now = Instant::now();
        if self.picker.left() == 0 {
            let jobs = self.todo.round(ROUND);
            if jobs.is_empty() {
                return self.picker.hands_on(now);
            }
            // What is still under way has come from others meanwhile.
            self.flights.clear();
            self.picker.begin(jobs.iter().map(Job::piece).collect(), now);
            self.jobs = jobs;
        }
        true
    }

    /// Takes a source, or has it wait.
    fn meet(&mut self, source: Source) {
        let active = self.picker.active();
        if let Some(source) = self.reserve.pass(source, active) {
            self.join(source);
        }
    }

    /// Calls one that waits, where it is its turn.
    fn call(&mut self, is_stuck: bool) {
        if let Some(source) = self.reserve.next(self.picker.active(), is_stuck) {
            self.join(source);
        }
    }

    fn join(&mut self, source: Source) {
        let offer = source.offers.iter().find(|offer| *offer.bundle.root() == self.root);
        // A web seed is whatever it is: most files of any generation are those of the next.
        let of_another = source.supply.web().is_some() || (self.any && !source.offers.is_empty());
        let whole = offer.map(|offer| offer.whole).or(of_another.then_some(true));
        let Some(whole) = whole else { return };
        tracing::debug!(source = %source.name, whole, "source joins");
        let have = if whole { Have::Whole } else { Have::None };
        let id = self.picker.join(have, source.name.peer().map_or(0, lot), Instant::now());
        self.rows.push(SourceRow::new(source.name.clone()));
        self.sources.push(Arc::new(source));
        if !whole {
            self.ask_have(id);
        }
    }

    /// Asks a partial source what it has by now.
    fn ask_have(&mut self, id: SourceId) {
        let Some(supply) = self.sources.get(id).map(|source| source.supply.clone()) else { return };
        let (module, root) = (self.module, self.root);
        let ask = async move { tokio::time::timeout(HAVE_PATIENCE, supply.have(module, root)).await };
        self.flights.push(Box::pin(async move { Landing::Have(id, ask.await.ok().and_then(Result::ok)) }));
    }

    fn hand_out(&mut self) -> Result<(), SyncError> {
        let now = Instant::now();
        let mut idle = false;
        while !idle {
            idle = true;
            // One piece a turn, so that a fast start of the first source does not leave the others without work.
            for id in 0..self.sources.len() {
                if !self.held_back().is_zero() {
                    return Ok(());
                }
                let Some(piece) = self.picker.next(id, now) else { continue };
                idle = false;
                self.launch(id, piece)?;
            }
        }
        Ok(())
    }

    /// How long the pace allows nothing more.
    fn held_back(&self) -> Duration {
        self.pace.as_ref().map_or(Duration::ZERO, Pace::wait)
    }

    fn launch(&mut self, id: SourceId, piece: PieceId) -> Result<(), SyncError> {
        let (Some(job), Some(source)) = (self.jobs.get(piece).cloned(), self.sources.get(id).cloned()) else {
            return Ok(());
        };
        if let Some(pace) = &self.pace {
            pace.take(job.piece().bytes);
        }
        let (stage, workers) = (Arc::clone(&self.stage), Arc::clone(&self.workers));
        let (hashes, provers) = (Arc::clone(&self.hashes), self.provers(&source));
        let partial = self.partial(&job)?;
        let flight = Flight { source, module: self.module, stage, partial, workers, hashes, provers };
        self.flights.push(Box::pin(async move { Landing::Piece(id, piece, flight.run(job).await) }));
        Ok(())
    }

    /// Who may know the hashes that a web seed's bytes are proven by.
    fn provers(&self, source: &Source) -> Vec<Supply> {
        if source.supply.web().is_none() {
            return Vec::new();
        }
        self.sources.iter().map(|source| source.supply.clone()).collect()
    }

    /// The open partial file of a large content; opened with its first request, closed with its last.
    fn partial(&mut self, job: &Job) -> Result<Option<Arc<Partial>>, SyncError> {
        let Job::Part { want, .. } = job else { return Ok(None) };
        let Want { id, size, .. } = &**want;
        if let Some(open) = self.open.get(id) {
            return Ok(Some(Arc::clone(&open.partial)));
        }
        let open = Open::new(self.stage.partial(id, *size)?);
        let partial = Arc::clone(&open.partial);
        self.open.insert(*id, open);
        self.arriving.opened(&partial);
        Ok(Some(partial))
    }

    fn land(&mut self, landing: Landing, finder: &mut Finder) -> Result<(), SyncError> {
        match landing {
            Landing::Have(id, Some(have)) => self.picker.update(id, have, Instant::now()),
            Landing::Have(id, None) => self.lose(id, "no answer", finder),
            Landing::Piece(id, piece, outcome) => {
                if let Some(row) = self.rows.get_mut(id) {
                    row.requests += 1;
                }
                self.land_piece(id, piece, outcome, finder)?;
            }
        }
        Ok(())
    }

    fn land_piece(
        &mut self,
        id: SourceId,
        piece: PieceId,
        outcome: Outcome,
        finder: &mut Finder,
    ) -> Result<(), SyncError> {
        match outcome {
            Outcome::Done => {
                self.idle_since = None;
                let bytes = self.jobs.get(piece).map_or(0, |job| job.piece().bytes);
                if self.picker.done(id, piece, Instant::now()) {
                    self.credit(id, bytes);
                    self.finish_content(piece)?;
                }
            }
            Outcome::Lacks(wants) => {
                let came = self.shrink(piece, wants);
                self.credit(id, came);
                self.picker.absent(id, piece, Instant::now());
            }
            Outcome::Lie(what) => self.blame(id, piece, &what, finder),
            Outcome::Gone(why) => self.lose(id, &why, finder),
            Outcome::Busy(wait) => self.picker.busy(id, piece, wait, Instant::now()),
            Outcome::Disk(error) => return Err(error),
        }
        Ok(())
    }

    fn credit(&mut self, id: SourceId, bytes: u64) {
        if let Some(row) = self.rows.get_mut(id) {
            row.received += bytes;
        }
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn blame(&mut self, id: SourceId, piece: PieceId, what: &str, finder: &Finder) {
        let banned = self.picker.lied(id, piece, Instant::now());
        let Some(row) = self.rows.get_mut(id) else { return };
        tracing::warn!(source = %row.name, what, "source dropped: its answer does not verify");
        row.bad += 1;
        row.banned |= banned;
        finder.ban(&row.name);
        finder.widen_after(Duration::ZERO);
    }

    fn lose(&mut self, id: SourceId, why: &str, finder: &Finder) {
        self.picker.leave(id);
        finder.widen_after(Duration::ZERO);
        let Some(row) = self.rows.get(id) else { return };
        tracing::info!(source = %row.name, why, "source lost");
        if !row.banned {
            finder.lost(&row.name);
        }
    }

    /// Leaves in a batch only what has not come yet; returns the bytes that came.
    fn shrink(&mut self, piece: PieceId, wants: Vec<Want>) -> u64 {
        let Some(job) = self.jobs.get_mut(piece) else { return 0 };
        let before = job.piece().bytes;
        if let Job::Batch(asked) = job {
            let left: HashSet<ContentId> = wants.iter().map(|want| want.id).collect();
            asked.iter().filter(|want| !left.contains(&want.id)).for_each(|want| self.arriving.arrived(&want.id));
            self.picker.narrow(piece, wants.iter().map(|want| want.number));
            *job = Job::Batch(wants);
        }
        before.saturating_sub(job.piece().bytes)
    }

    /// Closes a large content once its last range is there; whatever is complete can be had from here.
    fn finish_content(&mut self, piece: PieceId) -> Result<(), SyncError> {
        let (content, bytes) = match self.jobs.get(piece) {
            Some(Job::Batch(wants)) => {
                wants.iter().for_each(|want| self.arriving.arrived(&want.id));
                return Ok(());
            }
            Some(Job::Part { want, range }) => (want.id, range.end - range.start),
            None => return Ok(()),
        };
        let Some(open) = self.open.get_mut(&content) else { return Ok(()) };
        open.left = open.left.saturating_sub(bytes);
        if open.left == 0
            && let Some(open) = self.open.remove(&content)
        {
            self.stage.finish(&open.partial)?;
            self.arriving.arrived(&content);
        }
        Ok(())
    }

    /// Gives up sources that crawl, asks partial ones again what they have, and ends when nobody has had the rest for long.
    fn check(&mut self, finder: &Finder) -> Result<(), SyncError> {
        let now = Instant::now();
        for id in self.picker.laggards(now) {
            self.lose(id, "finished nothing for long", finder);
        }
        let is_done = self.picker.left() == 0;
        self.call(self.flights.is_empty() && !is_done);
        if is_done || !self.flights.is_empty() || self.picker.awaits_busy(now) {
            if now.duration_since(self.asked) >= ASK_AGAIN {
                (self.asked, self.rounds) = (now, self.rounds.wrapping_add(1));
                let idle = !self.rounds.is_multiple_of(ASK_ALL);
                self.picker.parts(idle).into_iter().for_each(|id| self.ask_have(id));
            }
            return Ok(());
        }
        finder.widen_after(Duration::ZERO);
        let since = *self.idle_since.get_or_insert(now);
        if since.elapsed() < PATIENCE {
            for id in 0..self.sources.len() {
                self.ask_have(id);
            }
            return Ok(());
        }
        let orphans = self.picker.orphans();
        let content = orphans.first().and_then(|piece| self.jobs.get(*piece)?.content());
        let (pieces, sources, tried) = (orphans.len(), self.sources.len(), finder.tried());
        Err(SyncError::NoSource { path: None, content, pieces, sources, tried })
    }
}

/// A node's lot among downloaders: a hash of its id.
fn lot(peer: &PeerId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&peer.to_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
