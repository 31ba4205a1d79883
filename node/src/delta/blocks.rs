//! rsync's algorithm the other way round (A. Tridgell and P. Mackerras, "The rsync algorithm", 1996): the holder of the new
//! file sends the sums of its blocks, and the asker looks for them at every offset of the old one. Nothing about local data
//! leaves the asker, and the sums are the same for everybody.
//!
//! A sum is a rolling hash cut to as few bytes as chance allows: what is made with it is verified as a whole.

use std::collections::HashMap;
use std::ops::Range;

use super::rolling::Rolling;

/// Shortest block, bytes.
pub const MIN_BLOCK: u32 = 256;
/// Longest block.
pub const MAX_BLOCK: u32 = 64 << 10;
/// Fewest bytes of a sum.
pub const MIN_WIDTH: u8 = 3;
/// Most bytes of a sum.
pub const MAX_WIDTH: u8 = 8;
/// Bits of the filter in front of the table, for each sum in it.
const FILTER: usize = 16;

/// How the sums of a file are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Bytes of a block.
    pub block: u32,
    /// Bytes of a sum.
    pub width: u8,
}

impl Form {
    /// Blocks of `block` bytes for `new` bytes that are looked for in `old` ones, a wrong match in 2^`chance` such searches.
    pub fn new(block: u32, new: u64, old: u64, chance: u32) -> Self {
        let comparisons = bits(old) + bits(new.div_ceil(u64::from(block.max(1))));
        let width = u8::try_from((comparisons + chance).div_ceil(8)).unwrap_or(MAX_WIDTH);
        Self { block, width: width.clamp(MIN_WIDTH, MAX_WIDTH) }
    }

    /// True if sums can be asked for in it.
    pub fn is_sound(self) -> bool {
        let block = self.block.is_power_of_two() && (MIN_BLOCK..=MAX_BLOCK).contains(&self.block);
        block && (MIN_WIDTH..=MAX_WIDTH).contains(&self.width)
    }

    /// How many bytes the sums of `length` bytes have.
    pub fn sums_length(self, length: u64) -> u64 {
        length.div_ceil(u64::from(self.block.max(1))).saturating_mul(u64::from(self.width))
    }

    /// The sums of all blocks of some bytes, the last of which may be short.
    pub fn sums(self, new: &[u8]) -> Vec<u8> {
        let mut sums = Vec::new();
        for block in new.chunks(self.block().max(1)) {
            sums.extend_from_slice(&Rolling::new(block).hash().to_be_bytes()[..self.width()]);
        }
        sums
    }

    fn block(self) -> usize {
        usize::try_from(self.block).unwrap_or(usize::MAX)
    }

    fn width(self) -> usize {
        usize::from(self.width).min(8)
    }

    /// The upper bits of a hash that a sum has.
    fn cut(self, hash: u64) -> u64 {
        hash >> (64 - 8 * u32::from(self.width.clamp(1, MAX_WIDTH)))
    }
}

fn bits(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

/// The block length for a small file of `size` bytes, a power of two.
pub fn block_length(size: u64) -> u32 {
    let root = u32::try_from(size.isqrt()).unwrap_or(u32::MAX).clamp(MIN_BLOCK, MAX_BLOCK);
    root.next_power_of_two().min(MAX_BLOCK)
}

/// The blocks of new bytes, and where each of them was found in the old ones.
#[derive(Debug)]
pub struct Search {
    form: Form,
    sums: Vec<u64>,
    /// The first block of each sum.
    first: HashMap<u64, usize>,
    filter: Vec<u64>,
    found: Vec<Option<u64>>,
}

impl Search {
    /// Begins with the sums of the new bytes. A last block that is short is found by [`Self::look_at_end`] only.
    pub fn new(form: Form, sums: &[u8]) -> Self {
        let number = |sum: &[u8]| sum.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let sums: Vec<u64> = sums.chunks(form.width().max(1)).map(number).collect();
        let bits = (sums.len() * FILTER).next_power_of_two().max(64);
        let mut search =
            Self { form, first: HashMap::new(), filter: vec![0; bits / 64], found: vec![None; sums.len()], sums };
        for (number, sum) in search.sums.iter().enumerate() {
            search.first.entry(*sum).or_insert(number);
            let (word, bit) = place(search.filter.len(), *sum);
            search.filter[word] |= bit;
        }
        search
    }

    /// Looks for whole blocks in old bytes, which begin at `base` of the old file. What is found there already is left.
    pub fn look(&mut self, old: &[u8], base: u64) {
        let block = self.form.block();
        let mut at = 0;
        while let Some(window) = old.get(at..).and_then(|rest| rest.get(..block)) {
            let Some((place, number)) = self.next_hit(old, at, Rolling::new(window)) else { return };
            self.found[number].get_or_insert(base.saturating_add(u64::try_from(place).unwrap_or(u64::MAX)));
            at = place + block;
        }
    }

    /// The next place from `at` on where some block stands.
    fn next_hit(&self, old: &[u8], mut at: usize, mut rolling: Rolling) -> Option<(usize, usize)> {
        let block = self.form.block();
        loop {
            let sum = self.form.cut(rolling.hash());
            let (word, bit) = place(self.filter.len(), sum);
            if self.filter[word] & bit != 0
                && let Some(number) = self.first.get(&sum)
            {
                return Some((at, *number));
            }
            let (out, next) = (old.get(at)?, old.get(at.checked_add(block)?)?);
            rolling.roll(*out, *next);
            at += 1;
        }
    }

    /// Looks for the last block, of `rest` bytes, at the very end of the old file, which is `old_size` long.
    pub fn look_at_end(&mut self, end: &[u8], rest: usize, old_size: u64) {
        let Some(tail) = end.len().checked_sub(rest).and_then(|start| end.get(start..)) else { return };
        if rest > 0
            && let (Some(sum), Some(found)) = (self.sums.last(), self.found.last_mut())
            && self.form.cut(Rolling::new(tail).hash()) == *sum
        {
            *found = old_size.checked_sub(u64::try_from(rest).unwrap_or(u64::MAX));
        }
    }

    /// Where each block stands in the old file, if anywhere. Equal blocks stand where the first of them does.
    pub fn end(self) -> Vec<Option<u64>> {
        let first = |sum: &u64| self.first.get(sum).and_then(|number| self.found.get(*number).copied().flatten());
        self.sums.iter().zip(&self.found).map(|(sum, found)| found.or_else(|| first(sum))).collect()
    }
}

/// Word and bit of a sum in a filter of so many words.
fn place(words: usize, sum: u64) -> (usize, u64) {
    // The lower bits of a cut hash are those in the middle of the whole.
    let index = usize::try_from(sum & 0xffff_ffff).unwrap_or(0) & (words * 64 - 1);
    (index / 64, 1 << (index % 64))
}

/// Bytes of the new file that stand in the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where in the new file.
    pub new: u64,
    /// Where in the old one.
    pub old: u64,
    /// How many.
    pub length: u64,
}

/// What of the new bytes was not found, as ranges that do not touch.
pub fn missing(found: &[Option<u64>], size: u64, block: u32) -> Vec<Range<u64>> {
    let block = u64::from(block);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (number, _) in (0u64..).zip(found).filter(|(_, found)| found.is_none()) {
        let (start, end) = (number * block, ((number + 1) * block).min(size));
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

/// What lies between ranges of `size` bytes, which ascend.
pub fn between(ranges: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let ends = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
    let starts = ranges.iter().map(|range| range.start).chain([size]);
    ends.zip(starts).map(|(start, end)| start..end).filter(|range| range.start < range.end).collect()
}

/// Runs of new bytes and where they stand in the old file, from the blocks that were found; `start` is where the blocks begin.
pub fn runs(found: &[Option<u64>], start: u64, size: u64, block: u32) -> Vec<Run> {
    let block = u64::from(block);
    let mut runs: Vec<Run> = Vec::new();
    for (number, old) in (0u64..).zip(found) {
        let Some(old) = *old else { continue };
        let at = number * block;
        let length = block.min(size.saturating_sub(at));
        match runs.last_mut() {
            Some(run) if run.new + run.length == start + at && run.old.checked_add(run.length) == Some(old) => {
                run.length += length;
            }
            _ => runs.push(Run { new: start + at, old, length }),
        }
    }
    runs
}

/// The new bytes from the known ones and those of the missing ranges; none if they do not fit. They still need to be verified.
pub fn assemble(mut known: &[u8], mut literal: &[u8], missing: &[Range<u64>], size: u64) -> Option<Vec<u8>> {
    let mut new = Vec::with_capacity(usize::try_from(size).ok()?);
    let mut at = 0;
    for range in missing {
        new.extend_from_slice(take(&mut known, range.start.checked_sub(at)?)?);
        new.extend_from_slice(take(&mut literal, range.end.checked_sub(range.start)?)?);
        at = range.end;
    }
    new.extend_from_slice(take(&mut known, size.checked_sub(at)?)?);
    (known.is_empty() && literal.is_empty()).then_some(new)
}

fn take<'a>(from: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (part, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn at(offset: u64) -> usize {
        usize::try_from(offset).expect("it fits")
    }

    fn cut(bytes: &[u8], ranges: &[Range<u64>]) -> Vec<u8> {
        ranges.iter().flat_map(|range| &bytes[at(range.start)..at(range.end)]).copied().collect()
    }

    /// The new bytes, and how many of them were missing.
    fn rebuild(old: &[u8], new: &[u8], block: u32) -> (Vec<u8>, usize) {
        let size = new.len() as u64;
        let form = Form::new(block, size, old.len() as u64, 9);
        let sums = form.sums(new);
        assert_eq!(sums.len() as u64, form.sums_length(size));
        let mut search = Search::new(form, &sums);
        // In two parts, as a large file is read.
        let (middle, reach) = (old.len() / 2, at(u64::from(block)) - 1);
        search.look(&old[..(middle + reach).min(old.len())], 0);
        search.look(&old[middle..], middle as u64);
        search.look_at_end(old, at(size % u64::from(block)), old.len() as u64);
        let found = search.end();
        let missing = missing(&found, size, block);
        let part = |run: &Run| old[at(run.old)..at(run.old + run.length)].to_vec();
        let known = runs(&found, 0, size, block).iter().flat_map(part).collect::<Vec<u8>>();
        assert_eq!(known, cut(new, &between(&missing, size)));
        let literal = cut(new, &missing);
        (assemble(&known, &literal, &missing, size).expect("it fits"), literal.len())
    }

    #[test]
    fn inserted_appended_and_moved_bytes_cost_what_is_new() {
        let old = noise(1, 1 << 20);
        let block = block_length(1 << 20);
        assert_eq!(block, 1024);
        for new in [
            [b"in front", &old[..]].concat(),
            [&old[..], b"at the end"].concat(),
            [&old[500_000..], &old[..500_000]].concat(),
            old.clone(),
        ] {
            let (rebuilt, literal) = rebuild(&old, &new, block);
            assert!(rebuilt == new);
            assert!(literal <= 3 * at(u64::from(block)), "{literal} literal bytes");
        }
        let (rebuilt, literal) = rebuild(&old, &noise(2, 300_000), block);
        assert!(rebuilt == noise(2, 300_000) && literal == 300_000, "nothing in common");
    }

    #[test]
    fn sums_are_as_long_as_chance_asks_for() {
        assert_eq!(Form::new(512, 20_000, 20_000, 9).width, 4);
        assert_eq!(Form::new(512, 1 << 30, 1 << 30, 9).width, 8);
        assert_eq!(Form::new(512, 0, 0, 0).width, MIN_WIDTH);
        assert!(Form { block: 512, width: 9 }.sums(&[0; 512]).len() <= 8);
        assert!(!Form { block: 0, width: 4 }.is_sound() && !Form { block: 512, width: 9 }.is_sound());
    }

    #[test]
    fn the_same_everywhere_is_found_everywhere() {
        let (rebuilt, literal) = rebuild(&[0; 5000], &[0; 20_000], MIN_BLOCK);
        assert!(rebuilt == [0; 20_000] && literal < 256);
    }

    proptest! {
        #[test]
        fn any_edit_is_rebuilt(seed in 0u64..1000, cuts in proptest::collection::vec((0usize..20_000, 0usize..3000), 0..6)) {
            let old = noise(seed, 20_000);
            let mut new = old.clone();
            for (at, length) in cuts {
                let at = at.min(new.len());
                if length % 2 == 0 {
                    let end = (at + length).min(new.len());
                    new.drain(at..end);
                } else {
                    new.splice(at..at, noise(length as u64, length));
                }
            }
            let (rebuilt, _) = rebuild(&old, &new, MIN_BLOCK);
            prop_assert!(rebuilt == new);
        }

        #[test]
        fn hostile_sums_do_no_harm(sums in proptest::collection::vec(any::<u8>(), 0..600), size in 0u64..30_000, width in 0u8..12) {
            let old = noise(7, 10_000);
            let mut search = Search::new(Form { block: MIN_BLOCK, width }, &sums);
            search.look(&old, 0);
            search.look_at_end(&old, 100, 10_000);
            let found = search.end();
            let missing = missing(&found, size, MIN_BLOCK);
            let _ = runs(&found, 0, size, MIN_BLOCK);
            let _ = assemble(&old, &sums, &missing, size);
        }
    }
}
