//! What is asked of sources: small contents many to a request, large ones by range.

use std::ops::Range;

use super::SMALL;
use crate::manifest::ContentId;
use crate::store::stage::Stage;
use crate::sync::SyncError;
use crate::sync::pick::Piece;
use crate::sync::plan::Want;

/// Most payload bytes of one request.
const PIECE: u64 = 1 << 20;
/// Most small files of one request.
const BATCH_ITEMS: usize = 1024;

/// What one request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// Whole small contents.
    Batch(Vec<Want>),
    /// A proven range of a larger one.
    Part { want: Want, range: Range<u64> },
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
                Piece { bytes: range.end - range.start, entries: vec![want.number], range: Some(range.clone()) }
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

/// Cuts the wants into requests: small ones together, large ones by range.
pub(super) fn cut(stage: &Stage, wants: Vec<Want>) -> Result<Vec<Job>, SyncError> {
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
        cut_range(want, 0..want.size, jobs);
        return Ok(());
    }
    let partial = stage.partial(&want.id, want.size)?;
    let missing = partial.missing();
    if missing.is_empty() {
        stage.finish(&partial)?;
    }
    for range in missing {
        cut_range(want, range, jobs);
    }
    Ok(())
}

/// Cuts one missing range at multiples of [`PIECE`].
fn cut_range(want: &Want, missing: Range<u64>, jobs: &mut Vec<Job>) {
    let mut start = missing.start;
    while start < missing.end {
        let end = ((start / PIECE + 1) * PIECE).min(missing.end);
        jobs.push(Job::Part { want: want.clone(), range: start..end });
        start = end;
    }
}
