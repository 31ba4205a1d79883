//! rsync's algorithm the other way round (A. Tridgell and P. Mackerras, "The rsync algorithm", 1996): the holder of the new
//! file sends the sums of its blocks, and the asker looks for them at every offset of the old one. Nothing about local data
//! leaves the asker, and the sums are the same for everybody.

use std::collections::HashMap;
use std::ops::Range;

/// Shortest block, bytes.
pub const MIN_BLOCK: u32 = 512;
/// Longest block.
pub const MAX_BLOCK: u32 = 64 << 10;
/// Bytes of one sum: a weak one that rolls, and a strong one.
pub const SUM: usize = 12;
/// Positions of the old file that one weak sum may stand for: equal blocks need no more.
const MAX_SAME: usize = 4;

/// The block length for a file of `size` bytes: about the square root, a power of two.
pub fn block_length(size: u64) -> u32 {
    let root = u32::try_from(size.isqrt()).unwrap_or(u32::MAX).clamp(MIN_BLOCK, MAX_BLOCK);
    root.next_power_of_two().min(MAX_BLOCK)
}

/// The sums of all blocks of a file, the last of which may be short.
pub fn sums(new: &[u8], block: u32) -> Vec<u8> {
    let length = usize::try_from(block).unwrap_or(usize::MAX).max(1);
    let mut sums = Vec::with_capacity(new.len().div_ceil(length) * SUM);
    for block in new.chunks(length) {
        sums.extend(Rolling::new(block).sum().to_be_bytes());
        sums.extend(strong(block));
    }
    sums
}

/// How many bytes the sums of a file have.
pub fn sums_length(size: u64, block: u32) -> u64 {
    size.div_ceil(u64::from(block.max(1))).saturating_mul(SUM as u64)
}

/// Where each block of the new file stands in the old one, if anywhere; `sums` are those of the new one.
pub fn find(old: &[u8], sums: &[u8], size: u64, block: u32) -> Vec<Option<usize>> {
    let length = usize::try_from(block).unwrap_or(usize::MAX).max(1);
    let (sums, _) = sums.as_chunks::<SUM>();
    let mut found = vec![None; sums.len()];
    // The last block, if it is short, is looked for at the end of the old file only.
    let whole = usize::try_from(size / u64::from(block.max(1))).unwrap_or(usize::MAX).min(sums.len());
    let mut by_weak: HashMap<u32, Vec<usize>> = HashMap::new();
    for (number, sum) in sums.iter().enumerate().take(whole) {
        let same = by_weak.entry(weak_of(sum)).or_default();
        if same.len() < MAX_SAME || same.iter().all(|other| sums[*other] != *sum) {
            same.push(number);
        }
    }
    let mut at = 0;
    let mut rolling = old.get(..length).map(Rolling::new);
    while let Some(sum) = rolling.as_mut().filter(|_| at + length <= old.len()) {
        let window = &old[at..at + length];
        let numbers = by_weak.get(&sum.sum());
        let strong = numbers.map(|_| strong(window));
        let hit = numbers
            .into_iter()
            .flatten()
            .find(|number| strong.as_ref().is_some_and(|strong| sums[**number][4..] == *strong));
        match hit {
            Some(hit) => {
                found[*hit] = Some(at);
                at += length;
                rolling = old.get(at..at + length).map(Rolling::new);
            }
            None => {
                if let (Some(out), Some(next)) = (old.get(at), old.get(at + length)) {
                    sum.roll(*out, *next);
                }
                at += 1;
            }
        }
    }
    share(sums, &mut found);
    if let (Some(last), Some(rest)) = (sums.get(whole), usize::try_from(size % u64::from(block.max(1))).ok()) {
        let end = old.len().checked_sub(rest).filter(|start| {
            let tail = &old[*start..];
            Rolling::new(tail).sum() == weak_of(last) && strong(tail) == last[4..]
        });
        found[whole] = end;
    }
    found
}

/// Equal blocks of the new file stand where the first of them was found.
fn share(sums: &[[u8; SUM]], found: &mut [Option<usize>]) {
    let known: HashMap<&[u8; SUM], usize> =
        sums.iter().zip(found.iter()).filter_map(|(sum, found)| Some((sum, (*found)?))).collect();
    for (sum, found) in sums.iter().zip(found.iter_mut()) {
        *found = found.or_else(|| known.get(sum).copied());
    }
}

/// What of the new file was not found, as ranges of bytes that do not touch.
pub fn missing(found: &[Option<usize>], size: u64, block: u32) -> Vec<Range<u64>> {
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

/// The new file from the old one and the bytes of the missing ranges, one after the other; none if they do not fit. The bytes
/// still need to be verified.
pub fn assemble(old: &[u8], found: &[Option<usize>], literal: &[u8], size: u64, block: u32) -> Option<Vec<u8>> {
    let size = usize::try_from(size).ok()?;
    let length = usize::try_from(block).ok()?;
    let mut new = Vec::with_capacity(size);
    let mut rest = literal;
    for place in found {
        let wanted = length.min(size.checked_sub(new.len())?);
        match place {
            Some(at) => new.extend_from_slice(old.get(*at..at.checked_add(wanted)?)?),
            None => {
                let (part, after) = rest.split_at_checked(wanted)?;
                new.extend_from_slice(part);
                rest = after;
            }
        }
    }
    (new.len() == size && rest.is_empty()).then_some(new)
}

fn weak_of(sum: &[u8; SUM]) -> u32 {
    u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]])
}

fn strong(block: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(block).as_bytes()[..8]);
    short
}

/// The rolling sum of the paper's section 3.
struct Rolling {
    a: u32,
    b: u32,
    length: u32,
}

impl Rolling {
    fn new(block: &[u8]) -> Self {
        let (mut a, mut b) = (0u32, 0u32);
        for byte in block {
            a = a.wrapping_add(u32::from(*byte));
            b = b.wrapping_add(a);
        }
        Self { a, b, length: u32::try_from(block.len()).unwrap_or(u32::MAX) }
    }

    fn roll(&mut self, out: u8, next: u8) {
        let (out, next) = (u32::from(out), u32::from(next));
        self.a = self.a.wrapping_sub(out).wrapping_add(next);
        self.b = self.b.wrapping_sub(self.length.wrapping_mul(out)).wrapping_add(self.a);
    }

    fn sum(&self) -> u32 {
        (self.a & 0xffff) | (self.b << 16)
    }
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

    fn rebuild(old: &[u8], new: &[u8], block: u32) -> (Vec<u8>, u64) {
        let size = new.len() as u64;
        let found = find(old, &sums(new, block), size, block);
        let ranges = missing(&found, size, block);
        let literal: Vec<u8> = ranges.iter().flat_map(|range| &new[at(range.start)..at(range.end)]).copied().collect();
        (assemble(old, &found, &literal, size, block).expect("it fits"), literal.len() as u64)
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
            assert!(literal <= 3 * u64::from(block), "{literal} literal bytes");
        }
        let (rebuilt, literal) = rebuild(&old, &noise(2, 300_000), block);
        assert!(rebuilt == noise(2, 300_000) && literal == 300_000, "nothing in common");
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
        fn hostile_sums_do_no_harm(sums in proptest::collection::vec(any::<u8>(), 0..600), size in 0u64..30_000) {
            let old = noise(7, 10_000);
            let found = find(&old, &sums, size, MIN_BLOCK);
            let _ = missing(&found, size, MIN_BLOCK);
            let _ = assemble(&old, &found, &sums, size, MIN_BLOCK);
        }
    }
}
