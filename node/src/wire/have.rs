//! Which entries of a tree somebody holds, by their number (rank in the sorted tree), and which groups of those in flight.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Runs in one map. A holder with more leaves some out: to claim less is harmless.
pub const MAX_RUNS: usize = 4096;
/// Parts of files in one map; the same.
pub const MAX_PARTS: usize = 1024;
/// Bytes of a group of a part.
const GROUP: u64 = super::rules::GROUP;

/// So many groups of 16 KiB of an entry, from one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups(u64, u64, u64);

impl Groups {
    /// The whole groups in a range of bytes of entry `number`, a file of `size` bytes; none if there are none.
    pub fn of(number: u64, range: &Range<u64>, size: u64) -> Option<Self> {
        let end = if range.end == size { size.div_ceil(GROUP) } else { range.end / GROUP };
        let first = range.start.div_ceil(GROUP);
        (first < end).then_some(Self(number, first, end - first))
    }

    /// The group after the last; none on overflow.
    fn end(self) -> Option<u64> {
        self.1.checked_add(self.2).filter(|end| end.checked_mul(GROUP).is_some())
    }
}

/// What is held of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// Everything.
    Whole,
    /// Nothing.
    None,
    /// These entries: (first number, count), ascending, at least one entry apart, never empty.
    Runs(Vec<(u64, u64)>),
    /// The same (here perhaps none), and parts of further entries, ascending and apart, never empty.
    Partly(Vec<(u64, u64)>, Vec<Groups>),
}

impl Have {
    /// The map of these entry numbers, which must ascend; at most [`MAX_RUNS`] runs are kept.
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            let full = runs.len() == MAX_RUNS;
            match runs.last_mut() {
                Some((start, count)) if *start + *count == number => *count += 1,
                _ if full => break,
                _ => runs.push((number, 1)),
            }
        }
        if runs.is_empty() { Self::None } else { Self::Runs(runs) }
    }

    /// The same with parts of files in flight, which must ascend; at most [`MAX_PARTS`] are kept.
    #[must_use]
    pub fn with_parts(self, parts: impl IntoIterator<Item = Groups>) -> Self {
        let parts: Vec<Groups> = parts.into_iter().take(MAX_PARTS).collect();
        match self {
            whole_or_more if parts.is_empty() || whole_or_more == Self::Whole => whole_or_more,
            Self::Runs(runs) | Self::Partly(runs, _) => Self::Partly(runs, parts),
            _ => Self::Partly(Vec::new(), parts),
        }
    }

    /// True if something is missing, and something is there.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Runs(_) | Self::Partly(..))
    }

    /// Whether this range of entry `number` is held, the entry itself perhaps not.
    pub fn contains_range(&self, number: u64, range: &Range<u64>) -> bool {
        let Self::Partly(_, parts) = self else { return self.contains(number) };
        let (first, end) = (range.start / GROUP, range.end.div_ceil(GROUP));
        let after = parts.partition_point(|part| (part.0, part.1) <= (number, first));
        let before = after.checked_sub(1).and_then(|index| parts.get(index));
        let covers = |part: &Groups| part.0 == number && part.end().is_some_and(|last| last >= end);
        self.contains(number) || before.is_some_and(covers)
    }

    /// Whether entry `number` is held.
    pub fn contains(&self, number: u64) -> bool {
        match self {
            Self::Whole => true,
            Self::None => false,
            Self::Runs(runs) | Self::Partly(runs, _) => {
                let after = runs.partition_point(|(start, _)| *start <= number);
                let before = after.checked_sub(1).and_then(|index| runs.get(index));
                before.is_some_and(|(start, count)| number - start < *count)
            }
        }
    }

    /// The same claim within the bounds of a frame.
    pub(super) fn bounded(mut self) -> Self {
        if let Self::Runs(runs) | Self::Partly(runs, _) = &mut self {
            runs.truncate(MAX_RUNS);
        }
        if let Self::Partly(_, parts) = &mut self {
            parts.truncate(MAX_PARTS);
        }
        self
    }
}

/// How a map is written: `whole`, or runs as (gap since the end of the last run, count), and parts as (entry, first group, count).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    whole: bool,
    runs: Vec<(u64, u64)>,
    parts: Vec<Groups>,
}

impl From<&Have> for Written {
    fn from(have: &Have) -> Self {
        let (runs, parts) = match have {
            Have::Runs(runs) => (runs, Vec::new()),
            Have::Partly(runs, parts) => (runs, parts.clone()),
            Have::Whole | Have::None => {
                return Self { whole: *have == Have::Whole, runs: Vec::new(), parts: Vec::new() };
            }
        };
        let mut end = 0;
        let gaps = runs.iter().map(|(start, count)| {
            let gap = start.saturating_sub(end);
            end = start.saturating_add(*count);
            (gap, *count)
        });
        Self { whole: false, runs: gaps.collect(), parts }
    }
}

impl Written {
    /// The map, or none when it is not written in the one right way.
    pub(super) fn read(self) -> Option<Have> {
        let empty = self.runs.is_empty() && self.parts.is_empty();
        if self.runs.len() > MAX_RUNS || self.parts.len() > MAX_PARTS || self.whole && !empty || !is_apart(&self.parts)
        {
            return None;
        }
        let mut runs = Vec::with_capacity(self.runs.len());
        let mut end = 0u64;
        for (index, (gap, count)) in self.runs.into_iter().enumerate() {
            if count == 0 || gap == 0 && index > 0 {
                return None;
            }
            let start = end.checked_add(gap)?;
            end = start.checked_add(count)?;
            runs.push((start, count));
        }
        Some(match (self.whole, runs.is_empty()) {
            (true, _) => Have::Whole,
            _ if !self.parts.is_empty() => Have::Partly(runs, self.parts),
            (false, true) => Have::None,
            (false, false) => Have::Runs(runs),
        })
    }
}

/// True if parts ascend, are not empty, do not touch and do not overflow.
fn is_apart(parts: &[Groups]) -> bool {
    let after =
        |one: &Groups, next: &Groups| one.0 < next.0 || one.0 == next.0 && one.end().is_some_and(|end| end < next.1);
    let sound = |part: &Groups| part.2 > 0 && part.end().is_some();
    parts.iter().all(sound) && parts.windows(2).all(|pair| after(&pair[0], &pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_runs_and_are_found_again() {
        let have = Have::of([0, 1, 2, 7, 9, 10]);
        assert_eq!(have, Have::Runs(vec![(0, 3), (7, 1), (9, 2)]));
        let held: Vec<u64> = (0..12).filter(|number| have.contains(*number)).collect();
        assert_eq!(held, [0, 1, 2, 7, 9, 10]);
        assert_eq!(Have::of([]), Have::None);
        for have in [have, Have::Whole, Have::None] {
            assert_eq!(Written::from(&have).read(), Some(have));
        }
    }

    #[test]
    fn a_map_is_written_in_one_way_only() {
        let read = |whole, runs: &[(u64, u64)]| Written { whole, runs: runs.to_vec(), parts: Vec::new() }.read();
        assert_eq!(read(true, &[(0, 1)]), None, "whole and runs");
        assert_eq!(read(false, &[(0, 0)]), None, "an empty run");
        assert_eq!(read(false, &[(0, 1), (0, 1)]), None, "touching runs");
        assert_eq!(read(false, &[(u64::MAX, 1)]), None, "overflow");
        assert_eq!(read(false, &[(1, u64::MAX)]), None, "overflow of the end");
        assert_eq!(read(false, &vec![(1, 1); MAX_RUNS + 1]), None, "too many");
    }

    #[test]
    fn parts_of_files_in_flight_are_told_and_found() {
        let size = 5 * GROUP + 1;
        let parts = [Groups::of(7, &(GROUP..3 * GROUP), size), Groups::of(7, &(4 * GROUP..size), size)];
        let have = Have::of([1, 2]).with_parts(parts.into_iter().flatten());
        assert_eq!(have, Have::Partly(vec![(1, 2)], vec![Groups(7, 1, 2), Groups(7, 4, 2)]));
        assert_eq!(Written::from(&have).read(), Some(have.clone()));
        for (number, range, held) in [
            (7, GROUP..3 * GROUP, true),
            (7, 4 * GROUP..size, true),
            (7, GROUP..5 * GROUP, false),
            (7, 0..GROUP, false),
            (8, GROUP..2 * GROUP, false),
            (2, 0..size, true),
        ] {
            assert_eq!(have.contains_range(number, &range), held, "{number} {range:?}");
        }
        assert!(!have.contains(7), "a part is not the whole");
        assert_eq!(Groups::of(1, &(1..GROUP + 5), 10 * GROUP), None, "no whole group");
        assert_eq!(Have::of([]).with_parts([Groups(1, 0, 1)]), Have::Partly(Vec::new(), vec![Groups(1, 0, 1)]));
        assert_eq!(Have::Whole.with_parts([Groups(1, 0, 1)]), Have::Whole);
    }

    #[test]
    fn parts_are_written_in_one_way_only() {
        let read = |parts: &[Groups]| Written { whole: false, runs: Vec::new(), parts: parts.to_vec() }.read();
        assert!(read(&[Groups(1, 0, 1), Groups(1, 2, 1), Groups(2, 0, 1)]).is_some());
        assert_eq!(read(&[Groups(1, 0, 0)]), None, "empty");
        assert_eq!(read(&[Groups(1, 0, 1), Groups(1, 1, 1)]), None, "touching");
        assert_eq!(read(&[Groups(2, 0, 1), Groups(1, 0, 1)]), None, "out of order");
        assert_eq!(read(&[Groups(1, u64::MAX, 1)]), None, "overflow");
        assert_eq!(read(&[Groups(1, u64::MAX / GROUP, 1)]), None, "overflow in bytes");
        assert_eq!(read(&vec![Groups(1, 0, 1); MAX_PARTS + 1]), None, "too many");
        assert_eq!(
            Written { whole: true, runs: Vec::new(), parts: vec![Groups(1, 0, 1)] }.read(),
            None,
            "whole and parts"
        );
    }

    #[test]
    fn a_map_with_too_many_runs_claims_less() {
        let Have::Runs(runs) = Have::of((0..20_000).map(|number| number * 2)) else { panic!("no runs") };
        assert_eq!(runs.len(), MAX_RUNS);
    }
}
