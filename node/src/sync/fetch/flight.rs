//! One request to one source: asked, checked, staged.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracker_less::record::ModuleId;

use super::jobs::Job;
use crate::store::proof;
use crate::store::stage::{Partial, Stage, StageError};
use crate::sync::SyncError;
use crate::sync::plan::Want;
use crate::sync::source::Source;
use crate::sync::supply::{Hashes, Supply};
use crate::wire::Error as WireError;

/// Contents of a batch that may have been mistaken for others, whose ids begin alike, before that is a lie.
const MAX_LIKE: usize = 4;

/// How one request ended.
pub(super) enum Outcome {
    /// Everything arrived, verified and staged.
    Done,
    /// The source lacks these, of a batch, or the range.
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

/// One request and what becomes of its answer.
pub(super) struct Flight {
    pub(super) source: Arc<Source>,
    pub(super) module: ModuleId,
    pub(super) stage: Arc<Stage>,
    pub(super) partial: Option<Arc<Partial>>,
    pub(super) workers: Arc<Semaphore>,
    pub(super) hashes: Arc<Hashes>,
    /// Whom to ask for hashes.
    pub(super) provers: Vec<Supply>,
}

impl Flight {
    /// Asks, checks, stages.
    pub(super) async fn run(self, job: Job) -> Outcome {
        let result = match job {
            Job::Batch(wants) => self.batch(wants).await,
            Job::Part { want, range } => self.part(want, range).await,
        };
        result.unwrap_or_else(|error| match error {
            WireError::Lie { what } => Outcome::Lie(what.to_owned()),
            WireError::Busy { retry_after, .. } => Outcome::Busy(retry_after),
            other => Outcome::Gone(other.to_string()),
        })
    }

    async fn batch(self, wants: Vec<Want>) -> Result<Outcome, WireError> {
        let asked: Vec<_> = wants.iter().map(|want| (want.id, want.size)).collect();
        let answer = self.source.supply.batch(self.module, &asked).await?;
        let stage = Arc::clone(&self.stage);
        let (outcome, others) = blocking(&self.workers, move || stage_all(&stage, wants, answer)).await;
        if others.len() > MAX_LIKE {
            return Ok(Outcome::Lie(format!("{} contents have other bytes", others.len())));
        }
        for want in others {
            match self.alone(&want).await? {
                Outcome::Done => {}
                failed => return Ok(failed),
            }
        }
        Ok(outcome)
    }

    /// Asks for one small content by its whole id.
    async fn alone(&self, want: &Want) -> Result<Outcome, WireError> {
        let lie = || Outcome::Lie(format!("content {} has other bytes", want.id));
        if want.size == 0 {
            return Ok(lie());
        }
        let answer = self.source.supply.range(self.module, (want.id, want.size), 0..want.size, None).await?;
        let Some(bytes) = answer.and_then(|encoded| proven(want, &encoded)) else { return Ok(lie()) };
        let (stage, id, attributes) = (Arc::clone(&self.stage), want.id, want.attributes);
        Ok(blocking(&self.workers, move || match stage.put_small(&id, &bytes, attributes) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Disk(error.into()),
        })
        .await)
    }

    async fn part(self, want: Arc<Want>, range: Range<u64>) -> Result<Outcome, WireError> {
        let (module, file) = (self.module, (want.id, want.size));
        let hashes = match self.source.supply {
            Supply::Peer(_) => None,
            Supply::Web(_) => self.hashes.get(module, file, &self.provers).await,
        };
        let answer = self.source.supply.range(module, file, range.clone(), hashes).await?;
        let Some(encoded) = answer else { return Ok(Outcome::Lacks(Vec::new())) };
        let Some(partial) = self.partial else { return Ok(Outcome::Done) };
        let source = self.source;
        Ok(blocking(&self.workers, move || {
            let outcome = match proof::decode_range(&want.id, want.size, range, &encoded) {
                Err(error) => Outcome::Lie(error.to_string()),
                Ok(verified) => match partial.write(&verified) {
                    Ok(()) => Outcome::Done,
                    Err(error) => Outcome::Disk(error.into()),
                },
            };
            source.supply.recycle(encoded);
            outcome
        })
        .await)
    }
}

/// Stages what came of a batch; gives those as well that are other contents than the ones asked for.
fn stage_all(stage: &Stage, wants: Vec<Want>, answer: Vec<Option<Vec<u8>>>) -> (Outcome, Vec<Want>) {
    let (mut lacks, mut others) = (Vec::new(), Vec::new());
    for (want, bytes) in wants.into_iter().zip(answer) {
        let Some(bytes) = bytes else {
            lacks.push(want);
            continue;
        };
        match stage.put_small(&want.id, &bytes, want.attributes) {
            Ok(()) => {}
            Err(StageError::False { .. }) => others.push(want),
            Err(error) => return (Outcome::Disk(error.into()), Vec::new()),
        }
    }
    (if lacks.is_empty() { Outcome::Done } else { Outcome::Lacks(lacks) }, others)
}

/// The bytes of a whole small content, if they are proven.
fn proven(want: &Want, encoded: &[u8]) -> Option<Vec<u8>> {
    let verified = proof::decode_range(&want.id, want.size, 0..want.size, encoded).ok()?;
    Some(verified.data())
}

/// Runs hashing and disk work off the event loop, on as many threads at once as there are processors and one that waits for
/// the disk: more would only wait for each other in the file system.
async fn blocking<T: Unfinished>(workers: &Arc<Semaphore>, work: impl FnOnce() -> T + Send + 'static) -> T {
    let worker = Arc::clone(workers).acquire_owned().await;
    // The permit goes with the work, which does not end when nobody waits for it any more.
    let work = tokio::task::spawn_blocking(move || {
        let _worker = worker;
        work()
    });
    work.await.unwrap_or_else(|error| T::unfinished(format!("worker: {error}")))
}

/// What is told of work that did not end.
trait Unfinished: Send + 'static {
    fn unfinished(why: String) -> Self;
}

impl Unfinished for Outcome {
    fn unfinished(why: String) -> Self {
        Self::Gone(why)
    }
}

impl<T: Send + 'static> Unfinished for (Outcome, Vec<T>) {
    fn unfinished(why: String) -> Self {
        (Outcome::Gone(why), Vec::new())
    }
}

/// Waits until none of so many workers works.
pub(super) async fn settle(workers: &Semaphore, count: u32) {
    drop(workers.acquire_many(count).await);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_nobody_waits_for_is_over_before_the_end() {
        let workers = Arc::new(Semaphore::new(2));
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let ended = Arc::new(AtomicU64::new(0));
        let (theirs, end) = (Arc::clone(&workers), Arc::clone(&ended));
        let flight = tokio::spawn(async move {
            blocking(&theirs, move || {
                started.send(()).unwrap();
                may_go.recv().unwrap();
                end.store(1, Ordering::SeqCst);
                Outcome::Done
            })
            .await
        });
        tokio::task::spawn_blocking(move || has_started.recv().unwrap()).await.unwrap();
        flight.abort();
        assert!(flight.await.is_err_and(|error| error.is_cancelled()));
        let settled = tokio::spawn(async move { settle(&workers, 2).await });
        go.send(()).unwrap();
        settled.await.unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }
}
