//! Patches made where both versions are: zstd with the old bytes as prefix (zstd(1), `--patch-from`).

use std::io::{Read, Write};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use super::MAX_FILE;

/// Level for files up to [`SMALL`], where time does not matter.
const SMALL_LEVEL: i32 = 9;
/// Level above; with long-distance matching, which finds blocks wherever they moved.
const LARGE_LEVEL: i32 = 3;
/// Bytes.
const SMALL: usize = 256 << 10;
/// Largest window, as a power of two: old and new together.
const MAX_WINDOW_LOG: u32 = 27;
/// Smallest window that zstd has.
const MIN_WINDOW_LOG: u32 = 10;

fn fits(old: &[u8], size: usize) -> bool {
    let small = |length: usize| u64::try_from(length).is_ok_and(|length| length <= MAX_FILE);
    small(old.len()) && small(size)
}

/// What makes `new` from `old`; none where there cannot be one.
pub fn make(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    if !fits(old, new.len()) {
        return None;
    }
    let level = if new.len() <= SMALL { SMALL_LEVEL } else { LARGE_LEVEL };
    let window = usize::BITS - (old.len() + new.len()).leading_zeros();
    let mut encoder = Encoder::with_ref_prefix(Vec::new(), level, old).ok()?;
    encoder.set_parameter(CParameter::WindowLog(window.clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG))).ok()?;
    encoder.long_distance_matching(new.len() > SMALL).ok()?;
    encoder.set_pledged_src_size(u64::try_from(new.len()).ok()).ok()?;
    encoder.write_all(new).ok()?;
    encoder.finish().ok()
}

/// The new file of exactly `size` bytes; none if the patch is not one for `old`. The bytes still need to be verified.
pub fn apply(old: &[u8], patch: &[u8], size: usize) -> Option<Vec<u8>> {
    if !fits(old, size) {
        return None;
    }
    let mut decoder = Decoder::with_ref_prefix(patch, old).ok()?;
    decoder.window_log_max(MAX_WINDOW_LOG).ok()?;
    let mut new = Vec::with_capacity(size);
    // One byte more than announced is enough to see that it is not the one.
    decoder.take(u64::try_from(size).ok()?.saturating_add(1)).read_to_end(&mut new).ok()?;
    (new.len() == size).then_some(new)
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
    fn a_patch_is_small_and_makes_the_new_file() {
        for length in [1000, 100_000, 5_000_000] {
            let old = noise(1, length);
            // Moved, edited, appended.
            let (front, back) = old.split_at(length / 3);
            let new = [back, b"something new", front, &noise(2, 300)].concat();
            let patch = make(&old, &new).expect("a patch");
            assert!(patch.len() < 700 + length / 500, "{} bytes for {length}", patch.len());
            assert_eq!(apply(&old, &patch, new.len()), Some(new.clone()));
            assert_eq!(apply(&old, &patch, new.len() - 1), None, "a bomb stops at the announced length");
            let other = apply(&noise(3, length), &patch, new.len());
            assert!(other.is_none_or(|bytes| bytes != new));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(apply(b"old", b"no patch at all", 10), None);
    }
}
