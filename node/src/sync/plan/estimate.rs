//! What bringing the bytes will cost, guessed before anybody is asked: per file what a delta would and what the whole would. The
//! shares are those of docs/PERFORMANCE.md, rounded up.

use super::{Plan, Want};
use crate::delta::{MAX_NEW, WINDOW, blocks};

/// Bytes that naming one file costs in a request and its answer, by its beginning and by its whole id.
const NAMED: (u64, u64) = (30, 42);
/// Percent of a file that a patch from both versions has.
const PATCH: u64 = 5;
/// Percent of a file that is not found by the sums of the new version alone.
const LITERAL: u64 = 12;
/// Bytes of one sum.
const SUM: u64 = 5;
/// Most bytes of one answer.
const ANSWER: u64 = 1 << 20;

/// Bytes and round trips of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Files that are brought as what differs from their old version.
    pub deltas: u64,
    /// Bytes of the new versions of these.
    pub delta_size: u64,
    /// Bytes of these where a source has both versions.
    pub patched: u64,
    /// Bytes of these where all sources have the new one only.
    pub matched: u64,
    /// Files that are brought whole.
    pub wholes: u64,
    /// Bytes of these, before compression.
    pub whole: u64,
    /// Requests that wait for each other, about.
    pub round_trips: u64,
}

/// Bytes for a file from both versions, and from the new one only.
fn delta(size: u64, old: u64) -> (u64, u64) {
    // What the old version cannot have is new in any case.
    let surely_new = size.saturating_sub(old);
    let rest = size - surely_new;
    let sums = size.div_ceil(u64::from(blocks::block_length(size.min(WINDOW)))) * SUM;
    (NAMED.0 + surely_new + rest * PATCH / 100, 2 * NAMED.0 + surely_new + sums + rest * LITERAL / 100)
}

/// True if a new version of `size` bytes is better brought as what differs from an old one of `old` bytes, whoever has it.
pub fn pays(size: u64, old: u64) -> bool {
    delta(size, old).1 < NAMED.1 + size
}

impl Plan {
    /// What bringing the bytes will cost; with `may_delta` false all travels whole.
    pub fn estimate(&self, may_delta: bool) -> Estimate {
        let bases = self.bases();
        let deltas: Vec<_> = bases.iter().filter(|(want, _, old)| may_delta && pays(want.size, *old)).collect();
        let mut sum = Estimate::default();
        for (want, _, old) in &deltas {
            let (patched, matched) = delta(want.size, *old);
            sum.deltas += 1;
            sum.delta_size += want.size;
            sum.patched += patched;
            sum.matched += matched;
        }
        let wants = self.wants();
        let size = |wants: &[Want]| wants.iter().fold(0u64, |sum, want| sum.saturating_add(want.size));
        sum.wholes = u64::try_from(wants.len()).unwrap_or(u64::MAX) - sum.deltas;
        sum.whole = size(&wants).saturating_sub(sum.delta_size);
        // One request shows what a source has; then some are always under way.
        let requests = sum.delta_size.div_ceil(MAX_NEW) + sum.whole.div_ceil(ANSWER);
        sum.round_trips = u64::from(sum.deltas > 0) + requests.div_ceil(4);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_files_and_those_with_little_in_common_travel_whole() {
        assert!(!pays(20, 20));
        assert!(pays(400, 400));
        assert!(pays(1 << 30, 1 << 29));
        assert!(!pays(1 << 20, 100), "an old version that is nearly nothing");
        assert_eq!(Plan::default().estimate(true), Estimate::default());
    }
}
