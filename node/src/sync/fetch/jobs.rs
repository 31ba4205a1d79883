//! What is asked of sources: small contents many to a request, large ones by range.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::{iter, vec};

use smallvec::smallvec;

use super::SMALL;
use crate::manifest::ContentId;
use crate::store::outboard::GROUP;
use crate::sync::pick::Piece;
use crate::sync::plan::Want;

/// Most payload bytes of one request.
const PIECE: u64 = 1 << 20;
/// Under a limit, a request asks for what comes in a quarter of a second, but for this at least.
const LEAST_PIECE: u64 = 64 << 10;
/// Most small files of one request.
const BATCH_ITEMS: usize = 1024;
/// Requests of one round: 64 GiB in pieces of 1 MiB.
pub(super) const ROUND: usize = 1 << 16;
/// Where a tree takes several rounds, each has something of so many places: whoever holds only a part of the tree can give
/// something in most of them.
const SLICES: u64 = 16;

/// What one request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// Whole small contents.
    Batch(Vec<Want>),
    /// A proven range of a larger one.
    Part { want: Arc<Want>, range: Range<u64> },
}

impl Job {
    /// The first content that it asks for, or for a part of.
    pub(super) fn content(&self) -> Option<ContentId> {
        match self {
            Self::Batch(wants) => wants.first().map(|want| want.id),
            Self::Part { want, .. } => Some(want.id),
        }
    }

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
}

/// Most payload bytes of one request where `rate` bytes may come per second: what is asked for comes at full speed.
fn piece(rate: Option<u64>) -> u64 {
    rate.map_or(PIECE, |rate| (rate / 4).clamp(LEAST_PIECE, PIECE) / GROUP * GROUP)
}

/// What is still to be asked for. It is cut a round at a time: the requests for a tree of terabytes would take gigabytes.
pub(super) struct Todo {
    slices: Vec<Slice>,
    /// What is missing of large contents of which something is here.
    left: HashMap<ContentId, VecDeque<Range<u64>>>,
    /// Payload bytes of one request.
    piece: u64,
}

impl Todo {
    /// Small contents together, large ones by range; `rate` bytes may come per second. `left`: what is missing of contents that
    /// are not missing as a whole.
    pub(super) fn new(wants: Vec<Want>, left: HashMap<ContentId, VecDeque<Range<u64>>>, rate: Option<u64>) -> Self {
        let mut this = Self { slices: Vec::new(), left, piece: piece(rate) };
        let bytes: u64 = wants.iter().map(|want| this.missing(want)).sum();
        let requests = bytes / this.piece + (wants.len() / BATCH_ITEMS) as u64;
        let count = if requests > ROUND as u64 { SLICES } else { 1 };
        let runs = divide(wants, bytes / count, |want| this.missing(want));
        this.slices = runs.into_iter().map(Slice::of).collect();
        this
    }

    /// Payload bytes of a content that are not here.
    fn missing(&self, want: &Want) -> u64 {
        self.left.get(&want.id).map_or(want.size, |ranges| ranges.iter().map(|range| range.end - range.start).sum())
    }

    /// Payload bytes of all that was not asked for yet.
    pub(super) fn bytes(&self) -> u64 {
        self.slices.iter().flat_map(|slice| slice.wants.as_slice()).map(|want| self.missing(want)).sum()
    }

    /// The requests of the next round, `most` or a few more, in the order of the tree; none if that was all.
    pub(super) fn round(&mut self, most: usize) -> Vec<Job> {
        let share = most.div_ceil(self.slices.len().max(1));
        let mut jobs = Vec::new();
        for slice in &mut self.slices {
            jobs.extend(iter::from_fn(|| slice.next(self.piece, &mut self.left)).take(share));
        }
        self.slices.retain(|slice| !slice.is_empty());
        jobs
    }
}

/// A run of the tree, whose requests are cut one after the other.
struct Slice {
    wants: vec::IntoIter<Want>,
    /// The small contents of the request after this one.
    batch: Vec<Want>,
    /// The large content that is being cut, and what is left of it.
    large: Option<(Arc<Want>, VecDeque<Range<u64>>)>,
}

impl Slice {
    fn of(wants: Vec<Want>) -> Self {
        Self { wants: wants.into_iter(), batch: Vec::new(), large: None }
    }

    fn is_empty(&self) -> bool {
        self.wants.as_slice().is_empty() && self.batch.is_empty() && self.large.is_none()
    }

    fn next(&mut self, piece: u64, left: &mut HashMap<ContentId, VecDeque<Range<u64>>>) -> Option<Job> {
        loop {
            if let Some(job) = self.part(piece) {
                return Some(job);
            }
            let Some(want) = self.wants.next() else { return self.full() };
            if want.size > SMALL {
                let missing = left.remove(&want.id).unwrap_or_else(|| iter::once(0..want.size).collect());
                self.large = Some((Arc::new(want), missing));
                continue;
            }
            let bytes: u64 = self.batch.iter().map(|want| want.size).sum();
            let full = if self.batch.len() >= BATCH_ITEMS || bytes + want.size > piece { self.full() } else { None };
            self.batch.push(want);
            if full.is_some() {
                return full;
            }
        }
    }

    /// The small contents that are together.
    fn full(&mut self) -> Option<Job> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { None } else { Some(Job::Batch(batch)) }
    }

    /// The next range of the large content, up to a multiple of `piece`.
    fn part(&mut self, piece: u64) -> Option<Job> {
        let (want, missing) = self.large.as_mut()?;
        let Some(range) = missing.front_mut() else {
            self.large = None;
            return None;
        };
        let end = ((range.start / piece + 1) * piece).min(range.end);
        let job = Job::Part { want: Arc::clone(want), range: range.start..end };
        range.start = end;
        if range.is_empty() {
            missing.pop_front();
        }
        if missing.is_empty() {
            self.large = None;
        }
        Some(job)
    }
}

/// Runs of the tree of `share` bytes each, or somewhat more.
fn divide(mut wants: Vec<Want>, share: u64, bytes: impl Fn(&Want) -> u64) -> Vec<Vec<Want>> {
    let (mut before, mut ends) = (0, Vec::new());
    for (at, want) in wants.iter().enumerate() {
        before += bytes(want);
        if before >= share.max(1) {
            (before, _) = (0, ends.push(at + 1));
        }
    }
    let mut runs = Vec::new();
    for end in ends.into_iter().rev() {
        runs.push(wants.split_off(end));
        wants.shrink_to_fit();
    }
    runs.push(wants);
    runs.reverse();
    runs.retain(|run| !run.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::store::files::Attributes;

    fn want(number: u64, size: u64) -> Want {
        let id = ContentId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        Want { id, size, number, attributes: Attributes::default() }
    }

    /// Everything that is asked for in rounds of `most`, and in how many.
    fn rounds(mut todo: Todo, most: usize) -> (Vec<Job>, usize) {
        let rounds = iter::from_fn(|| Some(todo.round(most)).filter(|jobs| !jobs.is_empty()));
        let all: Vec<Vec<Job>> = rounds.collect();
        let count = all.len();
        (all.concat(), count)
    }

    proptest! {
        #[test]
        fn each_byte_is_asked_for_once_whatever_the_rounds(
            sizes in proptest::collection::vec(prop_oneof![0..SMALL, SMALL + 1..9 * PIECE], 0..60),
            most in 1usize..50,
        ) {
            let wants: Vec<Want> = (0..).zip(&sizes).map(|(number, size)| want(number, *size)).collect();
            // Of one large content the middle is here.
            let broken = wants.iter().find(|want| want.size > 4 * PIECE).cloned();
            let ranges = broken.iter().map(|want| (want.id, VecDeque::from([0..PIECE, 2 * PIECE + GROUP..want.size])));
            let todo = || Todo::new(wants.clone(), ranges.clone().collect(), None);
            let bytes = todo().bytes();
            let (mut jobs, _) = rounds(todo(), most);
            prop_assert_eq!(jobs.iter().map(|job| job.piece().bytes).sum::<u64>(), bytes);
            prop_assert!(jobs.iter().all(|job| job.piece().bytes <= PIECE && job.piece().entries.len() <= BATCH_ITEMS));
            if todo().slices.len() == 1 {
                prop_assert_eq!(&jobs, &rounds(todo(), usize::MAX).0, "in the order of the tree");
            }
            let mut ranges: Vec<(u64, Range<u64>)> = Vec::new();
            let mut small: Vec<u64> = Vec::new();
            for job in jobs.drain(..) {
                match job {
                    Job::Batch(wants) => small.extend(wants.iter().map(|want| want.number)),
                    Job::Part { want, range } => ranges.push((want.number, range)),
                }
            }
            small.sort_unstable();
            prop_assert_eq!(small, wants.iter().filter(|want| want.size <= SMALL).map(|want| want.number).collect::<Vec<_>>());
            ranges.sort_unstable_by_key(|(number, range)| (*number, range.start));
            prop_assert!(ranges.windows(2).all(|two| two[0].0 != two[1].0 || two[0].1.end <= two[1].1.start));
        }
    }

    #[test]
    fn a_round_of_a_large_tree_has_something_of_everywhere() {
        let wants: Vec<Want> = (0..160).map(|number| want(number, 1 << 30)).collect();
        let mut todo = Todo::new(wants, HashMap::new(), None);
        let first = todo.round(ROUND);
        assert!((ROUND..ROUND + 16).contains(&first.len()), "{}", first.len());
        let places: BTreeSet<u64> = first.iter().map(|job| job.piece().entries[0] / 10).collect();
        assert_eq!(places.len(), 16);
        let (rest, rounds) = rounds(todo, ROUND);
        assert_eq!((first.len() + rest.len(), rounds), (160 << 10, 2));
    }

    #[test]
    fn under_a_limit_requests_are_of_a_quarter_of_a_second() {
        assert_eq!([None, Some(1 << 30), Some(400 << 10), Some(1)].map(piece), [PIECE, PIECE, 96 << 10, LEAST_PIECE]);
    }
}
