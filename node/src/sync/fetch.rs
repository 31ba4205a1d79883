//! Brings the wanted contents into the stage: the loop that hands pieces to sources and takes what comes back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cid::Cid;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tracker_less::record::ModuleId;

use super::pick::{Picker, Piece, PieceId, SourceId};
use super::plan::Want;
use super::shelf::Arriving;
use super::source::{Finder, Source};
use super::throttle::Throttle;
use super::{SourceRow, SyncError};
use crate::manifest::ContentId;
use crate::store::proof;
use crate::store::stage::{Partial, Stage, StageError};
use crate::wire::{Error as WireError, Have};

/// Contents up to this size travel whole, many to a request, and need no proof.
pub const SMALL: u64 = 256 << 10;
/// Most payload bytes of one request.
const PIECE: u64 = 1 << 20;
/// Most small files of one request.
const BATCH_ITEMS: usize = 1024;
/// How long a run looks for somebody who has what is missing.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often the sources are looked at: who stands still, who may repeat what another owes.
const TICK: Duration = Duration::from_millis(250);
/// How often partial sources with nothing to do are asked what they have by now.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What one request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Job {
    /// Whole small contents.
    Batch(Vec<Want>),
    /// A proven range of a larger one.
    Part { id: ContentId, size: u64, range: Range<u64>, number: u64 },
}

impl Job {
    fn piece(&self) -> Piece {
        match self {
            Self::Batch(wants) => Piece {
                bytes: wants.iter().map(|want| want.size).sum(),
                entries: wants.iter().map(|want| want.number).collect(),
            },
            Self::Part { range, number, .. } => Piece { bytes: range.end - range.start, entries: vec![*number] },
        }
    }
}

/// How one request ended.
enum Outcome {
    /// Everything arrived, verified and staged.
    Done,
    /// The source lacks these.
    Lacks(Vec<Want>),
    /// The source sent something that does not verify.
    Lie(String),
    /// The stream is of no more use.
    Gone(String),
    /// The source asks for patience.
    Busy(Duration),
    /// The local disk failed.
    Disk(SyncError),
}

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
    jobs: Vec<Job>,
    picker: Picker,
    partials: HashMap<ContentId, Arc<Partial>>,
    /// Ranges of a large content still to come.
    open: HashMap<ContentId, usize>,
    sources: Vec<Arc<Source>>,
    rows: Vec<SourceRow>,
    flights: FuturesUnordered<BoxFuture<'static, Landing>>,
    workers: Arc<Semaphore>,
    idle_since: Option<Instant>,
    /// When partial sources were last asked what they have.
    asked: Instant,
    /// What others may have from this run already.
    arriving: Arc<Arriving>,
    progress: Arc<Progress>,
    /// `--bwlimit`.
    throttle: Option<Throttle>,
}

impl Download {
    /// Prepares a download of `wants` of the tree under `root`. What the stage holds already, whole or in part, is not asked
    /// for again.
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
    ) -> Result<Self, SyncError> {
        let jobs = jobs(&stage, wants)?;
        let pieces: Vec<Piece> = jobs.iter().map(Job::piece).collect();
        progress.total.store(pieces.iter().map(|piece| piece.bytes).sum(), Ordering::Relaxed);
        let mut open: HashMap<ContentId, usize> = HashMap::new();
        for content in jobs.iter().filter_map(job_content) {
            *open.entry(content).or_default() += 1;
        }
        Ok(Self {
            module,
            root,
            stage,
            jobs,
            picker: Picker::new(pieces),
            partials: HashMap::new(),
            open,
            sources: Vec::new(),
            rows: Vec::new(),
            flights: FuturesUnordered::new(),
            workers: Arc::new(Semaphore::new(1 + std::thread::available_parallelism().map_or(2, usize::from))),
            idle_since: None,
            asked: Instant::now(),
            arriving,
            progress,
            throttle: None,
        })
    }

    /// With at most `rate` bytes per second, if any.
    #[must_use]
    pub fn throttled(self, rate: Option<u64>) -> Self {
        Self { throttle: rate.map(|rate| Throttle::new(rate, Instant::now())), ..self }
    }

    /// Runs until everything is staged, from `sources` and from whoever the finder brings; returns each source's part.
    ///
    /// # Errors
    /// [`SyncError::NoSource`] when nobody has had what is missing for some time; disk errors as they come.
    pub async fn run(mut self, sources: Vec<Source>, finder: &mut Finder) -> Result<Vec<SourceRow>, SyncError> {
        let mut tick = tokio::time::interval(TICK);
        for source in sources {
            self.join(source);
        }
        while self.picker.left() > 0 {
            self.hand_out()?;
            let wait = self.throttle.as_ref().map_or(Duration::ZERO, |throttle| throttle.wait(Instant::now()));
            tokio::select! {
                () = tokio::time::sleep(wait), if !wait.is_zero() => {}
                Some(landing) = self.flights.next(), if !self.flights.is_empty() => self.land(landing, finder)?,
                source = finder.next() => self.join(source),
                _ = tick.tick() => self.check(finder)?,
            }
        }
        Ok(self.rows)
    }

    fn join(&mut self, source: Source) {
        let offer = source.offers.iter().find(|offer| *offer.bundle.root() == self.root);
        let Some(whole) = offer.map(|offer| offer.whole) else { return };
        let id = self.picker.join(if whole { Have::Whole } else { Have::None });
        self.rows.push(SourceRow::new(source.peer));
        self.sources.push(Arc::new(source));
        if !whole {
            self.ask_have(id);
        }
    }

    /// Asks a partial source what it has by now.
    fn ask_have(&mut self, id: SourceId) {
        let Some(client) = self.sources.get(id).map(|source| source.client.clone()) else { return };
        let (module, root) = (self.module, self.root);
        self.flights.push(Box::pin(async move { Landing::Have(id, client.have(module, root).await.ok()) }));
    }

    fn hand_out(&mut self) -> Result<(), SyncError> {
        let now = Instant::now();
        let mut idle = false;
        while !idle {
            idle = true;
            // One piece a turn, so that a fast start of the first source does not leave the others without work.
            for id in 0..self.sources.len() {
                if self.throttle.as_ref().is_some_and(|throttle| !throttle.wait(now).is_zero()) {
                    return Ok(());
                }
                let Some(piece) = self.picker.next(id, now) else { continue };
                idle = false;
                self.launch(id, piece)?;
            }
        }
        Ok(())
    }

    fn launch(&mut self, id: SourceId, piece: PieceId) -> Result<(), SyncError> {
        let (Some(job), Some(source)) = (self.jobs.get(piece).cloned(), self.sources.get(id).cloned()) else {
            return Ok(());
        };
        if let Some(throttle) = &mut self.throttle {
            throttle.take(job.piece().bytes, Instant::now());
        }
        let (stage, workers) = (Arc::clone(&self.stage), Arc::clone(&self.workers));
        let flight = Flight { source, module: self.module, stage, partial: self.partial(&job)?, workers };
        self.flights.push(Box::pin(async move { Landing::Piece(id, piece, flight.run(job).await) }));
        Ok(())
    }

    /// The open partial file of a large content; opened with its first request, closed with its last.
    fn partial(&mut self, job: &Job) -> Result<Option<Arc<Partial>>, SyncError> {
        let Job::Part { id, size, .. } = job else { return Ok(None) };
        if let Some(partial) = self.partials.get(id) {
            return Ok(Some(Arc::clone(partial)));
        }
        let partial = Arc::new(self.stage.partial(id, *size)?);
        self.partials.insert(*id, Arc::clone(&partial));
        Ok(Some(partial))
    }

    fn land(&mut self, landing: Landing, finder: &mut Finder) -> Result<(), SyncError> {
        match landing {
            Landing::Have(id, Some(have)) => self.picker.update(id, have),
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
        tracing::warn!(peer = %row.peer, what, "source dropped: its answer does not verify");
        row.bad += 1;
        row.banned |= banned;
        finder.ban(row.peer);
    }

    fn lose(&mut self, id: SourceId, why: &str, finder: &Finder) {
        self.picker.leave(id);
        let Some(row) = self.rows.get(id) else { return };
        tracing::info!(peer = %row.peer, why, "source lost");
        if !row.banned {
            finder.lost(row.peer);
        }
    }

    /// Leaves in a batch only what has not come yet; returns the bytes that came.
    fn shrink(&mut self, piece: PieceId, wants: Vec<Want>) -> u64 {
        let Some(job) = self.jobs.get_mut(piece) else { return 0 };
        let before = job.piece().bytes;
        if let Job::Batch(_) = job {
            *job = Job::Batch(wants);
        }
        before.saturating_sub(job.piece().bytes)
    }

    /// Closes a large content once its last range is there; whatever is complete can be had from here.
    fn finish_content(&mut self, piece: PieceId) -> Result<(), SyncError> {
        if let Some(Job::Batch(wants)) = self.jobs.get(piece) {
            wants.iter().for_each(|want| self.arriving.arrived(&want.id));
        }
        let Some(content) = self.jobs.get(piece).and_then(job_content) else { return Ok(()) };
        let Some(left) = self.open.get_mut(&content) else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left == 0
            && let Some(partial) = self.partials.remove(&content)
        {
            self.stage.finish(&partial)?;
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
        if !self.flights.is_empty() || self.picker.awaits_busy(now) {
            if now.duration_since(self.asked) >= ASK_AGAIN {
                self.asked = now;
                self.picker.idle_parts().into_iter().for_each(|id| self.ask_have(id));
            }
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert(now);
        if since.elapsed() < PATIENCE {
            for id in 0..self.sources.len() {
                self.ask_have(id);
            }
            return Ok(());
        }
        let missing = self.picker.orphans().len();
        Err(SyncError::NoSource { pieces: missing, sources: self.sources.len(), tried: finder.tried() })
    }
}

fn job_content(job: &Job) -> Option<ContentId> {
    match job {
        Job::Batch(_) => None,
        Job::Part { id, .. } => Some(*id),
    }
}

/// Cuts the wants into requests: small ones together, large ones by range.
fn jobs(stage: &Stage, wants: Vec<Want>) -> Result<Vec<Job>, SyncError> {
    let mut jobs = Vec::new();
    let mut batch = Vec::new();
    let mut batched = 0;
    for want in wants {
        if stage.complete(&want.id) {
            continue;
        }
        if want.size > SMALL {
            cut_large(stage, &want, &mut jobs)?;
            continue;
        }
        if batch.len() >= BATCH_ITEMS || batched + want.size > PIECE {
            jobs.push(Job::Batch(std::mem::take(&mut batch)));
            batched = 0;
        }
        batched += want.size;
        batch.push(want);
    }
    if !batch.is_empty() {
        jobs.push(Job::Batch(batch));
    }
    Ok(jobs)
}

/// What is missing of a large content: all of it, or what a former run left open.
fn cut_large(stage: &Stage, want: &Want, jobs: &mut Vec<Job>) -> Result<(), SyncError> {
    if !stage.has_partial(&want.id) {
        cut(want, 0..want.size, jobs);
        return Ok(());
    }
    let partial = stage.partial(&want.id, want.size)?;
    let missing = partial.missing();
    if missing.is_empty() {
        stage.finish(&partial)?;
    }
    for range in missing {
        cut(want, range, jobs);
    }
    Ok(())
}

/// Cuts one missing range at multiples of [`PIECE`].
fn cut(want: &Want, missing: Range<u64>, jobs: &mut Vec<Job>) {
    let mut start = missing.start;
    while start < missing.end {
        let end = ((start / PIECE + 1) * PIECE).min(missing.end);
        jobs.push(Job::Part { id: want.id, size: want.size, range: start..end, number: want.number });
        start = end;
    }
}

/// One request and what becomes of its answer.
struct Flight {
    source: Arc<Source>,
    module: ModuleId,
    stage: Arc<Stage>,
    partial: Option<Arc<Partial>>,
    workers: Arc<Semaphore>,
}

impl Flight {
    async fn run(self, job: Job) -> Outcome {
        let result = match job {
            Job::Batch(wants) => self.batch(wants).await,
            Job::Part { id, size, range, number } => self.part(Want { id, size, number }, range).await,
        };
        result.unwrap_or_else(|error| match error {
            WireError::Lie { what } => Outcome::Lie(what.to_owned()),
            WireError::Busy { retry_after, .. } => Outcome::Busy(retry_after),
            other => Outcome::Gone(other.to_string()),
        })
    }

    async fn batch(self, wants: Vec<Want>) -> Result<Outcome, WireError> {
        let asked: Vec<_> = wants.iter().map(|want| (want.id, want.size)).collect();
        let answer = self.source.client.batch(self.module, &asked).await?;
        let stage = self.stage;
        Ok(blocking(&self.workers, move || {
            let mut lacks = Vec::new();
            for (want, bytes) in wants.into_iter().zip(answer) {
                let Some(bytes) = bytes else {
                    lacks.push(want);
                    continue;
                };
                match stage.put_small(&want.id, &bytes) {
                    Ok(()) => {}
                    Err(StageError::False { .. }) => {
                        return Outcome::Lie(format!("content {} has other bytes", want.id));
                    }
                    Err(error) => return Outcome::Disk(error.into()),
                }
            }
            if lacks.is_empty() { Outcome::Done } else { Outcome::Lacks(lacks) }
        })
        .await)
    }

    async fn part(self, want: Want, range: Range<u64>) -> Result<Outcome, WireError> {
        let answer = self.source.client.range(self.module, want.id, want.size, range.clone()).await?;
        let Some(encoded) = answer else { return Ok(Outcome::Lacks(vec![want])) };
        let Some(partial) = self.partial else { return Ok(Outcome::Done) };
        Ok(blocking(&self.workers, move || match proof::decode_range(&want.id, want.size, range, &encoded) {
            Err(error) => Outcome::Lie(error.to_string()),
            Ok(verified) => match partial.write(&verified) {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Disk(error.into()),
            },
        })
        .await)
    }
}

/// Runs hashing and disk work off the event loop, on as many threads at once as there are processors and one that waits for
/// the disk: more would only wait for each other in the file system.
async fn blocking(workers: &Semaphore, work: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    let _worker = workers.acquire().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Gone(format!("worker: {error}")),
    }
}
