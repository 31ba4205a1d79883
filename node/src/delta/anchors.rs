//! Where the parts of a large old file stand in a new one: at places that the content itself chooses, one in some thousands,
//! the hash of the next bytes is noted for the old file and looked up for the new one. Only the maker of a patch needs it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use super::rolling::Rolling;
use super::{MAX_HELP, MAX_RANGES, WINDOW};

/// Bytes under one hash: short enough for programs, whose addresses change all over.
const LENGTH: usize = 32;
/// One place in 2^this is an anchor, of files up to [`DENSE`] ...
const RARE: u32 = 8;
/// ... which get so many anchors; larger ones have as many, further apart.
const DENSE: u64 = 256 << 20;
/// Old bytes are taken in bins of so many, those first that have most anchors of the new ones: what is common everywhere, such as
/// a licence in each file, leads anywhere, but not often to the same place.
const BIN: u64 = 128 << 10;

/// The anchors of an old file.
#[derive(Debug)]
pub struct Anchors {
    rare: u32,
    places: HashMap<u64, u64>,
}

/// Hash and place of every anchor.
fn anchors(bytes: &[u8], rare: u32) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut rolling = bytes.get(..LENGTH).map(Rolling::new);
    let rolled = bytes.iter().zip(bytes.iter().skip(LENGTH).map(Some).chain([None]));
    (0u64..).zip(rolled).filter_map(move |(at, (out, next))| {
        let hash = rolling?.hash();
        if let (Some(rolling), Some(next)) = (&mut rolling, next) {
            rolling.roll(*out, *next);
        }
        (hash >> (64 - rare) == 0).then_some((hash, at))
    })
}

impl Anchors {
    /// None yet, of an old file of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { rare: RARE + size.div_ceil(DENSE).max(1).ilog2(), places: HashMap::new() }
    }

    /// Notes those of a part of the old file, which begins at `base`. Parts overlap by nothing: what stands across is passed over.
    pub fn add(&mut self, base: u64, part: &[u8]) {
        for (hash, at) in anchors(part, self.rare) {
            self.places.entry(hash).or_insert(base.saturating_add(at));
        }
    }

    /// Another part's.
    pub fn join(&mut self, other: Self) {
        for (hash, at) in other.places {
            let place = self.places.entry(hash).or_insert(at);
            *place = at.min(*place);
        }
    }

    /// The ranges of an old file of `size` bytes that help most with new bytes, which begin at `start` of theirs: at most
    /// [`MAX_RANGES`] and [`MAX_HELP`] bytes, ascending and apart. Where nothing is the same, what stands about there.
    pub fn ranges(&self, size: u64, new: &[u8], start: u64) -> Vec<Range<u64>> {
        let mut places: Vec<u64> =
            anchors(new, self.rare).filter_map(|(hash, _)| self.places.get(&hash).copied()).collect();
        places.sort_unstable();
        places.dedup();
        let bins = places.chunk_by(|one, other| one / BIN == other / BIN);
        let mut bins: Vec<(usize, u64)> = bins.map(|bin| (bin.len(), bin.first().map_or(0, |at| at / BIN))).collect();
        bins.sort_unstable_by_key(|(count, bin)| (Reverse(*count), *bin));
        let most = usize::try_from(MAX_HELP / BIN).unwrap_or(MAX_RANGES).min(MAX_RANGES);
        let mut best: Vec<u64> = bins.into_iter().take(most).map(|(_, bin)| bin).collect();
        best.sort_unstable();
        let runs = best.chunk_by(|one, other| one + 1 == *other);
        let range = |run: &[u64]| Some(run.first()? * BIN..((run.last()? + 1) * BIN).min(size));
        let ranges: Vec<Range<u64>> = runs.filter_map(range).collect();
        if ranges.is_empty() { vec![about(size, start)] } else { ranges }
    }
}

/// What stands at the same place of the old file, and before and behind it.
pub fn about(size: u64, start: u64) -> Range<u64> {
    let end = start.saturating_add(WINDOW + WINDOW / 2).min(size);
    end.saturating_sub(MAX_HELP)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_moved_is_found_where_it_stands_now() {
        let old = noise(1, 6 << 20);
        let size = old.len() as u64;
        let mut found = Anchors::new(6 << 20);
        for (part, base) in old.chunks(1 << 20).zip((0u64..).step_by(1 << 20)) {
            let mut other = Anchors::new(6 << 20);
            other.add(base, part);
            found.join(other);
        }
        // From two places, with something new between.
        let new = [&old[5_000_000..5_400_000], &noise(2, 10_000)[..], &old[1_000_000..1_500_000]].concat();
        let ranges = found.ranges(size, &new, 3 << 20);
        assert_eq!(ranges.len(), 2, "{ranges:?}");
        let near = |at: u64, wanted: u64| at.abs_diff(wanted) < 300 << 10;
        assert!(near(ranges[0].start, 1_000_000) && near(ranges[0].end, 1_500_000), "{ranges:?}");
        assert!(near(ranges[1].start, 5_000_000) && near(ranges[1].end, 5_400_000), "{ranges:?}");
        let total: u64 = found.ranges(size, &old, 0).iter().map(|range| range.end - range.start).sum();
        assert!(total <= MAX_HELP && total > MAX_HELP / 2, "no more than may help: {total}");
    }

    #[test]
    fn what_is_common_everywhere_does_not_lead_astray() {
        // The same kilobyte in front of each part of 16 KiB.
        let common = noise(9, 1024);
        let parts: Vec<u8> = (0..250).flat_map(|number| [common.clone(), noise(number, 15 << 10)].concat()).collect();
        let mut found = Anchors::new(parts.len() as u64);
        found.add(0, &parts);
        let ranges = found.ranges(parts.len() as u64, &parts[3_000_000..3_500_000], 0);
        let inside: u64 =
            ranges.iter().map(|range| range.end.min(3_500_000).saturating_sub(range.start.max(3_000_000))).sum();
        assert!(inside > 480_000, "{ranges:?}");
    }

    #[test]
    fn strangers_are_compared_where_they_stand() {
        let mut found = Anchors::new(6 << 20);
        found.add(0, &noise(1, 1 << 20));
        let half = 1 << 19;
        assert_eq!(found.ranges(5 << 20, &noise(2, 1 << 20), 3 << 20), vec![5 * half..9 * half; 1]);
        assert_eq!(about(100, 7 << 20), 0..100);
        assert_eq!(about(5 << 20, 0), 0..3 * (1 << 19));
    }
}
