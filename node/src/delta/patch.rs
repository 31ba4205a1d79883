//! New bytes as one zstd frame with old ones as prefix (zstd(1), `--patch-from`).

use std::io::{Read, Write};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use super::{MAX_NEW, MAX_OLD};

/// How much work is put into a frame (docs/PERFORMANCE.md). Always without matches of long distance, which come first and hide
/// better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// zstd's level 9: for large files, window after window.
    Brisk,
    /// Level 12, which takes twice as long.
    Thorough,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            Self::Brisk => 9,
            Self::Thorough => 12,
        }
    }
}
/// Largest window, as a power of two: old and new together.
const MAX_WINDOW_LOG: u32 = 23;
/// Smallest window that zstd has.
const MIN_WINDOW_LOG: u32 = 10;

fn fits(old: usize, new: usize) -> bool {
    let within = |length: usize, bound: u64| u64::try_from(length).is_ok_and(|length| length <= bound);
    within(old, MAX_OLD) && within(new, MAX_NEW)
}

/// What makes `new` from `old`, at most [`MAX_NEW`] from at most [`MAX_OLD`] bytes; none where there cannot be one.
pub fn make(old: &[u8], new: &[u8], effort: Effort) -> Option<Vec<u8>> {
    if !fits(old.len(), new.len()) {
        return None;
    }
    let window = usize::BITS - (old.len() + new.len()).leading_zeros();
    let mut encoder = Encoder::with_ref_prefix(Vec::new(), effort.level(), old).ok()?;
    encoder.set_parameter(CParameter::WindowLog(window.clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG))).ok()?;
    encoder.include_contentsize(false).ok()?;
    encoder.include_dictid(false).ok()?;
    encoder.set_pledged_src_size(u64::try_from(new.len()).ok()).ok()?;
    encoder.write_all(new).ok()?;
    encoder.finish().ok()
}

/// The `size` new bytes; none if the patch is not one for `old`. They still need to be verified.
pub fn apply(old: &[u8], patch: &[u8], size: usize) -> Option<Vec<u8>> {
    if !fits(old.len(), size) {
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
        for length in [1000, 100_000, 2_000_000] {
            let old = noise(1, length);
            // Moved, edited, appended.
            let (front, back) = old.split_at(length / 3);
            let new = [back, b"something new", front, &noise(2, 300)].concat();
            let patch = make(&old, &new, Effort::Brisk).expect("a patch");
            assert!(patch.len() < 700 + length / 500, "{} bytes for {length}", patch.len());
            assert_eq!(apply(&old, &patch, new.len()), Some(new.clone()));
            assert_eq!(apply(&old, &patch, new.len() - 1), None, "a bomb stops at the announced length");
            assert_eq!(apply(&old, &patch, new.len() + 1), None, "less than was announced");
            let other = apply(&noise(3, length), &patch, new.len());
            assert!(other.is_none_or(|bytes| bytes != new));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(apply(b"old", b"no patch at all", 10), None);
        let bound = usize::try_from(MAX_NEW).expect("it fits");
        assert_eq!(make(b"", &vec![0; bound + 1], Effort::Brisk), None);
        assert_eq!(apply(b"", &make(b"", &vec![0; bound], Effort::Brisk).expect("a frame"), bound + 1), None);
    }
}
