//! Which entries of a tree somebody holds, by their number (rank in the sorted tree).

use serde::{Deserialize, Serialize};

/// Runs in one map. A holder with more leaves some out: to claim less is harmless.
pub const MAX_RUNS: usize = 4096;

/// What is held of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// Everything.
    Whole,
    /// Nothing.
    None,
    /// These entries: (first number, count), ascending, at least one entry apart, never empty.
    Runs(Vec<(u64, u64)>),
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

    /// Whether entry `number` is held.
    pub fn contains(&self, number: u64) -> bool {
        match self {
            Self::Whole => true,
            Self::None => false,
            Self::Runs(runs) => {
                let after = runs.partition_point(|(start, _)| *start <= number);
                let before = after.checked_sub(1).and_then(|index| runs.get(index));
                before.is_some_and(|(start, count)| number - start < *count)
            }
        }
    }

    /// The same claim within the bounds of a frame.
    pub(super) fn bounded(mut self) -> Self {
        if let Self::Runs(runs) = &mut self {
            runs.truncate(MAX_RUNS);
        }
        self
    }
}

/// How a map is written: `whole`, or runs as (gap since the end of the last run, count).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    whole: bool,
    runs: Vec<(u64, u64)>,
}

impl From<&Have> for Written {
    fn from(have: &Have) -> Self {
        let Have::Runs(runs) = have else {
            return Self { whole: *have == Have::Whole, runs: Vec::new() };
        };
        let mut end = 0;
        let gaps = runs.iter().map(|(start, count)| {
            let gap = start.saturating_sub(end);
            end = start.saturating_add(*count);
            (gap, *count)
        });
        Self { whole: false, runs: gaps.collect() }
    }
}

impl Written {
    /// The map, or none when it is not written in the one right way.
    pub(super) fn read(self) -> Option<Have> {
        if self.runs.len() > MAX_RUNS || self.whole && !self.runs.is_empty() {
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
            (false, true) => Have::None,
            (false, false) => Have::Runs(runs),
        })
    }
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
        let read = |whole, runs: &[(u64, u64)]| Written { whole, runs: runs.to_vec() }.read();
        assert_eq!(read(true, &[(0, 1)]), None, "whole and runs");
        assert_eq!(read(false, &[(0, 0)]), None, "an empty run");
        assert_eq!(read(false, &[(0, 1), (0, 1)]), None, "touching runs");
        assert_eq!(read(false, &[(u64::MAX, 1)]), None, "overflow");
        assert_eq!(read(false, &[(1, u64::MAX)]), None, "overflow of the end");
        assert_eq!(read(false, &vec![(1, 1); MAX_RUNS + 1]), None, "too many");
    }

    #[test]
    fn a_map_with_too_many_runs_claims_less() {
        let Have::Runs(runs) = Have::of((0..20_000).map(|number| number * 2)) else { panic!("no runs") };
        assert_eq!(runs.len(), MAX_RUNS);
    }
}
