//! Proofs of ranges: what goes over the wire is bao's response encoding without the size prefix (bao-tree 0.17: pairs
//! and leaves in pre-order) in groups of 16 KiB. Nothing that does not verify is written or handed on.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bao_tree::{BlockSize, ChunkNum, ChunkRanges};
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, left_subtree_len};
use rayon::prelude::*;

use super::outboard::{GROUP, Outboard, PAIR, Pair, WIDE_GROUP, fold, merge, pair};
use crate::manifest::ContentId;

/// Most bytes of a file in one proof.
pub const MAX_RANGE: u64 = 1024 * 1024;
/// Most bytes of a file: the largest offset a file system takes. Shapes of larger trees would overflow.
const MAX_SIZE: u64 = i64::MAX.unsigned_abs();
/// Most bytes of one encoded range: its data, the pairs inside it and two paths from the root of the largest tree.
pub const MAX_ENCODED: u64 = MAX_RANGE + (MAX_RANGE / GROUP + 2 * 64) * PAIR as u64;
/// [`GROUP`] as bao-tree counts it: 2^4 chunks of 1 KiB.
pub(super) const BLOCK: BlockSize = BlockSize::from_chunk_log(4);

/// A proof that could not be made or did not hold.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// Not a range of groups of this file, or a longer one than [`MAX_RANGE`].
    #[error("no provable range: {start}..{end} of {size} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Of the file.
        size: u64,
    },
    /// The file here no longer has the content of its id.
    #[error("content changed or damaged at byte {offset}")]
    Damaged {
        /// Start of the bad group.
        offset: u64,
    },
    /// A file over 256 KiB needs its outboard to prove a range.
    #[error("no outboard")]
    NoOutboard,
    /// What the other side sent is not the proof of this range.
    #[error("false proof: {what}")]
    False {
        /// What is wrong in it.
        what: String,
    },
    /// The file could not be read.
    #[error(transparent)]
    Io {
        /// Why.
        #[from]
        source: io::Error,
    },
}

/// What hashing a file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// BLAKE3 of its bytes.
    pub id: ContentId,
    /// How many they are.
    pub size: u64,
    /// Of a file over 256 KiB.
    pub outboard: Option<Outboard>,
}

/// Hashes the bytes a file has now, in one pass, on all cores if it is big. A file that gets shorter meanwhile is an
/// error (`UnexpectedEof`); other changes are the caller's to notice, by stat.
pub fn hash_file(file: &File) -> io::Result<Hashed> {
    let size = file.metadata()?.len();
    if size <= WIDE_GROUP {
        let data = read(file, 0, size)?;
        return Ok(Hashed { id: hash_bytes(&data), size, outboard: None });
    }
    let groups: Vec<ChainingValue> = (0..size.div_ceil(WIDE_GROUP))
        .into_par_iter()
        .map_init(Vec::new, |buffer, number| {
            let offset = number * WIDE_GROUP;
            buffer.resize(usize::try_from(WIDE_GROUP.min(size - offset)).unwrap_or(0), 0);
            file.read_exact_at(buffer, offset)?;
            Ok(chaining_value(offset, buffer))
        })
        .collect::<io::Result<_>>()?;
    let (id, outboard) = Outboard::from_groups(size, &groups);
    Ok(Hashed { id, size, outboard: Some(outboard) })
}

/// Whether `bytes` are the content of `id`.
pub fn verify_small(id: &ContentId, bytes: &[u8]) -> bool {
    hash_bytes(bytes) == *id
}

fn hash_bytes(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

/// Encodes `range` of the file `id` with its proof. The range starts at a group and ends at one or at the end of the
/// file; every 256 KiB group it touches is read once and checked first. `outboard` is needed over 256 KiB.
pub fn encode_range(
    file: &File,
    id: &ContentId,
    size: u64,
    outboard: Option<&Outboard>,
    range: Range<u64>,
) -> Result<Vec<u8>, ProofError> {
    check_range(size, &range)?;
    if file.metadata()?.len() != size {
        return Err(ProofError::Damaged { offset: 0 });
    }
    let outboard = outboard.filter(|o| o.size() == size);
    let out = Vec::with_capacity(index(range.end - range.start + MAX_ENCODED - MAX_RANGE));
    let mut encoder = Encoder { source: Bytes::File(file), size, outboard, range, data: Vec::new(), out };
    encoder.above(Span { start: 0, len: size }, 0, id.0)?;
    Ok(encoder.out)
}

/// Encodes `range` like [`encode_range`] of bytes that came from anywhere: `data` are those of the file from `start`, a multiple of
/// 256 KiB, up to another or to the end, with the range in them. `Damaged` where they are not this file's.
pub fn encode_bytes(
    (start, data): (u64, &[u8]),
    id: &ContentId,
    outboard: &Outboard,
    range: Range<u64>,
) -> Result<Vec<u8>, ProofError> {
    let size = outboard.size();
    check_range(size, &range)?;
    let out = Vec::with_capacity(index(range.end - range.start + MAX_ENCODED - MAX_RANGE));
    let source = Bytes::Memory { start, data };
    let mut encoder = Encoder { source, size, outboard: Some(outboard), range, data: Vec::new(), out };
    encoder.above(Span { start: 0, len: size }, 0, id.0)?;
    Ok(encoder.out)
}

/// Any bytes of a file over 256 KiB; every group of 256 KiB that they touch is read and checked.
pub fn read_range(file: &File, outboard: &Outboard, range: &Range<u64>) -> Result<Vec<u8>, ProofError> {
    let wide = widened(range, outboard.size());
    let damaged = |offset| ProofError::Damaged { offset };
    if range.start >= range.end || range.end > outboard.size() {
        return Err(ProofError::Range { start: range.start, end: range.end, size: outboard.size() });
    }
    let mut data = read(file, wide.start, wide.end - wide.start).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(wide.start),
        _ => error.into(),
    })?;
    for (group, offset) in data.chunks(index(WIDE_GROUP)).zip((wide.start..).step_by(index(WIDE_GROUP))) {
        if outboard.group(offset / WIDE_GROUP) != Some(chaining_value(offset, group)) {
            return Err(damaged(offset));
        }
    }
    data.truncate(index(range.end - wide.start));
    data.drain(..index(range.start - wide.start));
    Ok(data)
}

/// The groups of 256 KiB that `range` touches: what [`encode_bytes`] needs.
pub fn widened(range: &Range<u64>, size: u64) -> Range<u64> {
    range.start / WIDE_GROUP * WIDE_GROUP..range.end.div_ceil(WIDE_GROUP).saturating_mul(WIDE_GROUP).min(size)
}

/// Outboard of bytes in memory; none where they are not those of `id`, or too few to have one.
pub fn outboard_of(id: &ContentId, data: &[u8]) -> Option<Outboard> {
    let size = u64::try_from(data.len()).ok().filter(|size| *size > WIDE_GROUP)?;
    let offsets = (0u64..).step_by(index(WIDE_GROUP));
    let groups: Vec<ChainingValue> =
        data.chunks(index(WIDE_GROUP)).zip(offsets).map(|(group, offset)| chaining_value(offset, group)).collect();
    let (hash, outboard) = Outboard::from_groups(size, &groups);
    (hash == *id).then_some(outboard)
}

/// Where an encoder reads.
enum Bytes<'a> {
    File(&'a File),
    /// A part of the file.
    Memory {
        start: u64,
        data: &'a [u8],
    },
}

impl Bytes<'_> {
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(out, offset),
            Self::Memory { start, data } => {
                let from = offset.checked_sub(*start).map(index);
                let part = from.and_then(|from| data.get(from..from.checked_add(out.len())?));
                out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// A run of bytes under one node.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    len: u64,
}

impl Span {
    /// Whether any of its bytes are in `range`; the one leaf of an empty file is in every range.
    fn meets(self, range: &Range<u64>) -> bool {
        self.len == 0 || (self.start < range.end && self.start + self.len > range.start)
    }

    /// What the node's two children cover.
    fn split(self) -> (Self, Self) {
        let left = left_subtree_len(self.len);
        (Self { len: left, ..self }, Self { start: self.start + left, len: self.len - left })
    }
}

struct Encoder<'a> {
    source: Bytes<'a>,
    size: u64,
    outboard: Option<&'a Outboard>,
    range: Range<u64>,
    /// The group being read.
    data: Vec<u8>,
    out: Vec<u8>,
}

impl Encoder<'_> {
    /// The node over `span`, from the outboard; `number` is its pre-order number there.
    fn above(&mut self, span: Span, number: usize, expected: ChainingValue) -> Result<(), ProofError> {
        if !self.wants(span) {
            return Ok(());
        }
        if span.len <= WIDE_GROUP {
            return self.group(span, span.len == self.size, expected);
        }
        let pair = self.outboard.and_then(|o| o.pair(number)).copied().ok_or(ProofError::NoOutboard)?;
        self.out.extend_from_slice(pair.as_flattened());
        let (left, right) = span.split();
        self.above(left, number + 1, pair[0])?;
        self.above(right, number + index(left.len / WIDE_GROUP), pair[1])
    }

    /// The 256 KiB group (or less, at the end) over `span`, its inner pairs computed from its bytes.
    fn group(&mut self, span: Span, is_root: bool, expected: ChainingValue) -> Result<(), ProofError> {
        let damaged = || ProofError::Damaged { offset: span.start };
        let mut data = std::mem::take(&mut self.data);
        data.resize(index(span.len), 0);
        self.source.read_exact_at(&mut data, span.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(),
            _ => error.into(),
        })?;
        let (hash, pairs) = if is_root && span.len <= GROUP {
            (hash_bytes(&data).0, Vec::new())
        } else {
            let starts = (span.start..).step_by(index(GROUP));
            let values: Vec<_> =
                data.chunks(index(GROUP)).zip(starts).map(|(leaf, start)| chaining_value(start, leaf)).collect();
            fold(span.len, GROUP, &values, is_root)
        };
        if hash != expected {
            return Err(damaged());
        }
        self.inside(span, &data, &pairs);
        self.data = data;
        Ok(())
    }

    /// A node inside a checked group: `data` are the bytes under it, `pairs` its own pair and all below.
    fn inside(&mut self, span: Span, data: &[u8], pairs: &[Pair]) {
        if !self.wants(span) {
            return;
        }
        let Some((pair, below)) = pairs.split_first() else {
            self.out.extend_from_slice(data);
            return;
        };
        self.out.extend_from_slice(pair.as_flattened());
        let (left, right) = span.split();
        let (left_data, right_data) = data.split_at(index(left.len));
        let (left_pairs, right_pairs) = below.split_at(index(left.len / GROUP) - 1);
        self.inside(left, left_data, left_pairs);
        self.inside(right, right_data, right_pairs);
    }

    fn wants(&self, span: Span) -> bool {
        span.meets(&self.range)
    }
}

/// A range whose proof held: its bytes, where they stand in the encoding, and the pairs that lead to them. Only
/// [`decode_range`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    pub(super) id: ContentId,
    pub(super) size: u64,
    pub(super) offset: u64,
    /// The bytes, group by group.
    pub(super) groups: Vec<&'a [u8]>,
    /// By pre-order number in the tree of 16 KiB groups.
    pub(super) parents: Vec<(u64, Pair)>,
}

impl Verified<'_> {
    /// Where in the file the bytes belong.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes.
    pub fn length(&self) -> u64 {
        self.groups.iter().map(|group| group.len() as u64).sum()
    }

    /// The bytes, in one piece.
    pub fn data(&self) -> Vec<u8> {
        self.groups.concat()
    }
}

/// Verifies that `bytes` are the encoding of exactly `range` of the file `id` of `size` bytes.
///
/// That a range holds says nothing about the size unless it reaches the end: a file is whole when all of its groups,
/// the last among them, were proven under the same size.
pub fn decode_range<'a>(
    id: &ContentId,
    size: u64,
    range: Range<u64>,
    bytes: &'a [u8],
) -> Result<Verified<'a>, ProofError> {
    check_range(size, &range)?;
    let mut decoder = Decoder { range: range.clone(), rest: bytes, groups: Vec::new(), parents: Vec::new() };
    decoder.node(Span { start: 0, len: size }, 0, id.0, true)?;
    let Decoder { rest, groups, parents, .. } = decoder;
    if !rest.is_empty() {
        return Err(ProofError::False { what: format!("{} bytes too many", rest.len()) });
    }
    Ok(Verified { id: *id, size, offset: range.start, groups, parents })
}

/// Takes an encoding apart in its order; what does not hash to what is expected goes no further.
struct Decoder<'a> {
    range: Range<u64>,
    rest: &'a [u8],
    groups: Vec<&'a [u8]>,
    parents: Vec<(u64, Pair)>,
}

impl Decoder<'_> {
    /// The node over `span`; `number` is its pre-order number in the tree of 16 KiB groups.
    fn node(&mut self, span: Span, number: u64, expected: ChainingValue, is_root: bool) -> Result<(), ProofError> {
        if !span.meets(&self.range) {
            return Ok(());
        }
        let short = || ProofError::False { what: format!("ends within the group at byte {}", span.start) };
        let wrong =
            |what: &str| ProofError::False { what: format!("{what} at byte {} is not of this file", span.start) };
        if span.len <= GROUP {
            let (leaf, rest) = self.rest.split_at_checked(index(span.len)).ok_or_else(short)?;
            let hash = if is_root { hash_bytes(leaf).0 } else { chaining_value(span.start, leaf) };
            if hash != expected {
                return Err(wrong("the group"));
            }
            self.groups.push(leaf);
            self.rest = rest;
            return Ok(());
        }
        let (bytes, rest) = self.rest.split_first_chunk::<PAIR>().ok_or_else(short)?;
        self.rest = rest;
        let pair = pair(bytes);
        if merge(&pair, is_root) != expected {
            return Err(wrong("a hash above the group"));
        }
        self.parents.push((number, pair));
        let (left, right) = span.split();
        self.node(left, number + 1, pair[0], false)?;
        self.node(right, number + left.len / GROUP, pair[1], false)
    }
}

/// Whether `range` can be proven at all: see [`encode_range`].
pub fn check_range(size: u64, range: &Range<u64>) -> Result<(), ProofError> {
    let &Range { start, end } = range;
    let whole = start == 0 && end == size;
    let aligned = start % GROUP == 0 && (end % GROUP == 0 || end == size);
    if size <= MAX_SIZE && end <= size && aligned && (start < end || whole) && end - start <= MAX_RANGE {
        return Ok(());
    }
    Err(ProofError::Range { start, end, size })
}

/// A checked range as bao-tree wants it; open where it reaches the end, which includes the one leaf of an empty file.
pub(super) fn chunks(size: u64, range: &Range<u64>) -> ChunkRanges {
    let start = ChunkNum::full_chunks(range.start);
    match range.end == size {
        true => ChunkRanges::from(start..),
        false => ChunkRanges::from(start..ChunkNum::chunks(range.end)),
    }
}

/// Chaining value of the subtree over `data`, which starts at `offset` of its file and is not all of it.
fn chaining_value(offset: u64, data: &[u8]) -> ChainingValue {
    Hasher::new().set_input_offset(offset).update(data).finalize_non_root()
}

fn read(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut data = vec![0; index(len)];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

/// Lengths of ranges and groups, which are small.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
