//! The least bytes that make a new file from an old one. Pure: no I/O.

pub mod blocks;
pub mod pack;
pub mod patch;

/// Largest file, old or new, that is patched; larger ones travel whole. Bounds memory on both sides.
pub const MAX_FILE: u64 = 64 << 20;
