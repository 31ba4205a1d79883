//! The least bytes that make a new file from an old one. Pure: no I/O.
//!
//! A file is made window by window. Both ways are one zstd frame with a prefix that both sides have: what an old version has
//! in common with a window ([`patch`]), or what of the window itself was found at home ([`blocks`]). Many small files and many
//! windows share a frame.

pub mod anchors;
pub mod blocks;
pub mod pack;
pub mod patch;
pub mod rolling;

/// Files are made in windows of so many bytes; up to this size in one.
pub const WINDOW: u64 = 1 << 20;
/// Most bytes of new files in one frame: what is further apart is found less well.
pub const MAX_NEW: u64 = 2 << 20;
/// Most bytes of old files that one frame is made with.
pub const MAX_OLD: u64 = 4 << 20;
/// Most bytes of one old file that help with one window.
pub const MAX_HELP: u64 = 2 << 20;
/// Most ranges of one old file that help with one window.
pub const MAX_RANGES: usize = 64;

/// Window `number` of a file of `size` bytes; none beyond its end.
pub fn window(size: u64, number: u64) -> Option<std::ops::Range<u64>> {
    let start = number.checked_mul(WINDOW).filter(|start| *start < size)?;
    Some(start..size.min(start.saturating_add(WINDOW)))
}

/// Bytes of an old file of `size` bytes that help with one window, at most.
pub fn help(size: u64) -> u64 {
    if size <= WINDOW { size } else { MAX_HELP }
}

/// The bytes in some ranges, one after the other; none if they are not all there.
pub fn cut(bytes: &[u8], ranges: &[std::ops::Range<u64>]) -> Option<Vec<u8>> {
    let mut cut = Vec::new();
    for range in ranges {
        cut.extend_from_slice(bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?);
    }
    Some(cut)
}
