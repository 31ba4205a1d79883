//! What is asked of sources: small contents many to a request, large ones by range.

use std::ops::Range;
use std::sync::Arc;

use smallvec::smallvec;

use super::SMALL;
use crate::manifest::ContentId;
use crate::store::outboard::GROUP;
use crate::store::stage::Stage;
use crate::sync::SyncError;
use crate::sync::pick::Piece;
use crate::sync::plan::Want;

/// Most payload bytes of one request.
const PIECE: u64 = 1 << 20;
/// Under a limit, a request asks for what comes in a quarter of a second, but for this at least.
const LEAST_PIECE: u64 = 64 << 10;
/// Most small files of one request.
const BATCH_ITEMS: usize = 1024;

/// What one request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// Whole small contents.
    Batch(Vec<Want>),
    /// A proven range of a larger one.
    Part { want: Arc<Want>, range: Range<u64> },
}

impl Job {
    /// As the picker sees it.
    pub(super) fn piece(&self) -> Piece {
        match self {
            Self::Batch(wants) => Piece {
                bytes: wants.iter().map(|want| want.size).sum(),
                entries: wants.iter().map(|want| want.number).collect(),
                range: None,
            },
            Self::Part { want, range } => {
                Piece { bytes: range.end - range.start, entries: smallvec![want.number], range: Some(range.clone()) }
            }
        }
    }

    /// The large content that it is a part of.
    pub(super) fn content(&self) -> Option<ContentId> {
        match self {
            Self::Batch(_) => None,
            Self::Part { want, .. } => Some(want.id),
        }
    }
}

/// Most payload bytes of one request where `rate` bytes may come per second: what is asked for comes at full speed.
fn piece(rate: Option<u64>) -> u64 {
    rate.map_or(PIECE, |rate| (rate / 4).clamp(LEAST_PIECE, PIECE) / GROUP * GROUP)
}

/// Cuts the wants into requests: small ones together, large ones by range.
pub(super) fn cut(stage: &Stage, wants: Vec<Want>, rate: Option<u64>) -> Result<Vec<Job>, SyncError> {
    let (piece, staged) = (piece(rate), stage.whole()?);
    let mut jobs = Vec::new();
    let mut batch = Vec::new();
    let mut batched = 0;
    for want in wants {
        if staged.contains(&want.id) {
            continue;
        }
        if want.size > SMALL {
            cut_large(stage, &Arc::new(want), piece, &mut jobs)?;
            continue;
        }
        if batch.len() >= BATCH_ITEMS || batched + want.size > piece {
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
fn cut_large(stage: &Stage, want: &Arc<Want>, piece: u64, jobs: &mut Vec<Job>) -> Result<(), SyncError> {
    if !stage.has_partial(&want.id) {
        cut_range(want, 0..want.size, piece, jobs);
        return Ok(());
    }
    let partial = stage.partial(&want.id, want.size)?;
    let missing = partial.missing();
    if missing.is_empty() {
        stage.finish(&partial)?;
    }
    for range in missing {
        cut_range(want, range, piece, jobs);
    }
    Ok(())
}

/// Cuts one missing range at multiples of `piece`.
fn cut_range(want: &Arc<Want>, missing: Range<u64>, piece: u64, jobs: &mut Vec<Job>) {
    let mut start = missing.start;
    while start < missing.end {
        let end = ((start / piece + 1) * piece).min(missing.end);
        jobs.push(Job::Part { want: Arc::clone(want), range: start..end });
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_a_limit_requests_are_of_a_quarter_of_a_second() {
        assert_eq!([None, Some(1 << 30), Some(400 << 10), Some(1)].map(piece), [PIECE, PIECE, 96 << 10, LEAST_PIECE]);
    }
}
