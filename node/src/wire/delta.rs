//! What is asked and answered to bring new versions where old ones stand (docs/WIRE.md): patches from both versions, the sums
//! of the new one, and what of it was not found. Many files, and many windows of large ones, to a request.

use std::ops::Range;

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::rules::{MAX_BATCH, MAX_ITEMS, MAX_PAGE, MAX_PAGES, MAX_PROOF, MAX_PROVABLE};
use super::{ContentId, ModuleId};
use crate::delta::blocks::Form;
use crate::delta::{self, MAX_HELP, MAX_NEW, MAX_OLD, MAX_RANGES, WINDOW};
use crate::store::proof;

/// Most slices in one request.
pub const MAX_SLICES: usize = 16 << 10;
/// Most bytes that one request asks the sums of.
pub const MAX_SUMMED: u64 = 64 << 20;
/// Bytes worked on that cost as much as one byte sent.
const WORK: u64 = 8;

/// The first bytes of the hash in a content id or a page's name. They are enough to find it: what comes is verified under the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Short(ByteArray<8>);

impl Short {
    /// The bytes.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// The least content id that begins so.
    pub fn least(&self) -> ContentId {
        let mut first = [0; 32];
        first.iter_mut().zip(self.bytes()).for_each(|(to, from)| *to = *from);
        ContentId(first)
    }

    /// True if the id begins so.
    pub fn begins(&self, id: &ContentId) -> bool {
        id.0.starts_with(self.bytes())
    }
}

impl From<&Cid> for Short {
    fn from(page: &Cid) -> Self {
        let first = page.hash().digest().first_chunk().copied();
        Self(ByteArray::new(first.unwrap_or_default()))
    }
}

impl From<&ContentId> for Short {
    fn from(id: &ContentId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = id.0;
        Self(ByteArray::new([a, b, c, d, e, f, g, h]))
    }
}

/// One window of a new file, and the old file that it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Short, u64, Short, u64, u64)", into = "(Short, u64, Short, u64, u64)")]
pub struct Pair {
    /// The old file.
    pub old: Short,
    /// Its size in bytes.
    pub old_size: u64,
    /// The new file.
    pub id: Short,
    /// Its size in bytes.
    pub size: u64,
    /// Number of the window ([`delta::window`]).
    pub window: u64,
}

impl From<(Short, u64, Short, u64, u64)> for Pair {
    fn from((old, old_size, id, size, window): (Short, u64, Short, u64, u64)) -> Self {
        Self { old, old_size, id, size, window }
    }
}

impl From<Pair> for (Short, u64, Short, u64, u64) {
    fn from(pair: Pair) -> Self {
        (pair.old, pair.old_size, pair.id, pair.size, pair.window)
    }
}

/// Asks for what makes new files from old ones, of one who has both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetPatches {
    /// Whose files.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// What is wanted.
    pub pairs: Vec<Pair>,
}

/// A part of a file whose sums are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Short, u64, u64, u64, u32, u8)", into = "(Short, u64, u64, u64, u32, u8)")]
pub struct Part {
    /// The file.
    pub id: Short,
    /// Its size in bytes.
    pub size: u64,
    /// Where the part begins.
    pub start: u64,
    /// Bytes of it.
    pub length: u64,
    /// How the sums are made.
    pub form: Form,
}

impl From<(Short, u64, u64, u64, u32, u8)> for Part {
    fn from((id, size, start, length, block, width): (Short, u64, u64, u64, u32, u8)) -> Self {
        Self { id, size, start, length, form: Form { block, width } }
    }
}

impl From<Part> for (Short, u64, u64, u64, u32, u8) {
    fn from(part: Part) -> Self {
        (part.id, part.size, part.start, part.length, part.form.block, part.form.width)
    }
}

/// Asks for the sums of all blocks of parts of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSums {
    /// Whose files.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// Which parts.
    pub parts: Vec<Part>,
}

/// One window of a file, and what of it the asker lacks: the bytes passed over and those wanted, by turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Short, u64, u64, Vec<(u32, u32)>)", into = "(Short, u64, u64, Vec<(u32, u32)>)")]
pub struct Lacking {
    /// The file.
    pub id: Short,
    /// Its size in bytes.
    pub size: u64,
    /// Number of the window.
    pub window: u64,
    /// Bytes passed over, bytes wanted.
    pub gaps: Vec<(u32, u32)>,
}

impl From<(Short, u64, u64, Vec<(u32, u32)>)> for Lacking {
    fn from((id, size, window, gaps): (Short, u64, u64, Vec<(u32, u32)>)) -> Self {
        Self { id, size, window, gaps }
    }
}

impl From<Lacking> for (Short, u64, u64, Vec<(u32, u32)>) {
    fn from(lacking: Lacking) -> Self {
        (lacking.id, lacking.size, lacking.window, lacking.gaps)
    }
}

impl Lacking {
    /// What `ranges` of a window, ascending and apart, look like here.
    pub fn gaps(ranges: &[Range<u64>]) -> Vec<(u32, u32)> {
        let length = |length: u64| u32::try_from(length).unwrap_or(u32::MAX);
        let before = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
        let both = before.zip(ranges);
        both.map(|(end, range)| (length(range.start - end), length(range.end - range.start))).collect()
    }

    /// The wanted ranges within the window; none where they leave it, or one is empty or touches the one before.
    pub fn ranges(&self) -> Option<Vec<Range<u64>>> {
        let window = delta::window(self.size, self.window)?;
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(self.gaps.len());
        let mut at = 0;
        for (over, wanted) in &self.gaps {
            let start = at + u64::from(*over);
            let end = start + u64::from(*wanted);
            let apart = ranges.is_empty() || *over > 0;
            if *wanted == 0 || !apart || end > window.end - window.start {
                return None;
            }
            ranges.push(start..end);
            at = end;
        }
        Some(ranges)
    }
}

/// Asks for parts of files by one who has all the rest of their windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSlices {
    /// Whose files.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// What is wanted.
    pub parts: Vec<Lacking>,
}

/// Answers [`GetPatches`] and [`GetSlices`]: a slot for each thing asked, absent or made by the frame, and the frame. With fewer
/// slots, at least one, the rest is to be asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The ranges of an old file over [`WINDOW`] that help, first byte and length: they are a part of the frame's prefix. Smaller
    /// ones are so whole, without a word.
    pub slots: Vec<Option<Vec<(u64, u64)>>>,
    /// One zstd frame: all windows, or all slices, one after the other.
    pub frame: Vec<u8>,
}

impl Made {
    /// Nothing of so many that were asked for.
    pub fn none(asked: usize) -> Self {
        Self { slots: vec![None; asked], frame: Vec::new() }
    }
}

/// Asks for pages of a tree by one who has the pages of a former one that stood in their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetPagePatches {
    /// Whose tree.
    #[serde(with = "super::id")]
    pub module: ModuleId,
    /// Former and new pages.
    pub pages: Vec<(Short, Short)>,
}

/// Answers [`GetPagePatches`], as many as fit from the first on: the sizes of new pages, and one frame of them, with the former
/// ones as prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PagePatches {
    /// The size of each page in bytes; absent where one of the two is not there.
    pub sizes: Vec<Option<u32>>,
    /// One zstd frame.
    pub frame: Vec<u8>,
}

fn fits(good: bool, what: &'static str) -> Result<(), &'static str> {
    if good { Ok(()) } else { Err(what) }
}

fn count(items: usize) -> Result<(), &'static str> {
    fits((1..=MAX_ITEMS).contains(&items), "no files or too many")
}

fn length(size: u64, window: u64) -> Option<u64> {
    let window = delta::window(size, window).filter(|_| size <= MAX_PROVABLE)?;
    Some(window.end - window.start)
}

fn sum(lengths: impl Iterator<Item = u64>) -> u64 {
    lengths.fold(0, u64::saturating_add)
}

impl GetPatches {
    /// Refuses what asks for too much or out of form.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        count(self.pairs.len())?;
        let windows = self.pairs.iter().all(|pair| length(pair.size, pair.window).is_some());
        fits(windows && self.pairs.iter().all(|pair| pair.old_size <= MAX_PROVABLE), "no such window")?;
        let old = sum(self.pairs.iter().map(|pair| delta::help(pair.old_size)));
        fits(self.new_bytes() <= MAX_NEW && old <= MAX_OLD, "too many bytes for one patch")
    }

    fn new_bytes(&self) -> u64 {
        sum(self.pairs.iter().filter_map(|pair| length(pair.size, pair.window)))
    }

    /// Whole files are read and worked on.
    pub(super) fn cost(&self) -> u64 {
        self.new_bytes().saturating_add(sum(self.pairs.iter().map(|pair| delta::help(pair.old_size)))) / WORK
    }

    /// Judges an answer.
    pub(super) fn judge(&self, made: &Made) -> Result<(), &'static str> {
        made.judge(self.pairs.len())?;
        let good = |(slot, pair): (&Option<Vec<(u64, u64)>>, &Pair)| {
            slot.as_ref().is_none_or(|ranges| helps(ranges, pair.old_size))
        };
        fits(made.slots.iter().zip(&self.pairs).all(good), "ranges of an old file that cannot be")
    }
}

/// True if these may be the ranges of an old file that help with one window.
fn helps(ranges: &[(u64, u64)], size: u64) -> bool {
    if size <= WINDOW {
        return ranges.is_empty();
    }
    let mut at = 0u64;
    let apart = ranges.iter().all(|(start, length)| {
        let before = std::mem::replace(&mut at, start.saturating_add(*length));
        *start >= before && *length > 0 && at <= size
    });
    apart && ranges.len() <= MAX_RANGES && sum(ranges.iter().map(|(_, length)| *length)) <= MAX_HELP
}

impl Part {
    /// What is read for it: all of a small file, the groups of a large one that hold the part.
    fn read_bytes(&self) -> u64 {
        if self.size <= WINDOW {
            return self.size;
        }
        let groups = proof::widened(&(self.start..self.start.saturating_add(self.length)), self.size);
        groups.end.saturating_sub(groups.start)
    }
}

impl GetSums {
    /// Refuses what asks for too much or out of form.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        count(self.parts.len())?;
        let sound = |part: &Part| {
            let end = part.start.checked_add(part.length).filter(|_| part.length > 0);
            part.form.is_sound() && part.size <= MAX_PROVABLE && end.is_some_and(|end| end <= part.size)
        };
        fits(self.parts.iter().all(sound), "sums out of form")?;
        let read = sum(self.parts.iter().map(Part::read_bytes));
        fits(read <= MAX_SUMMED && self.answer_bytes() <= MAX_BATCH, "too many sums")
    }

    fn answer_bytes(&self) -> u64 {
        sum(self.parts.iter().map(|part| part.form.sums_length(part.length)))
    }

    /// Whole files are read and worked on.
    pub(super) fn cost(&self) -> u64 {
        self.answer_bytes().saturating_add(sum(self.parts.iter().map(Part::read_bytes)) / WORK)
    }

    /// Judges the sizes of an answer.
    pub(super) fn judge(&self, sizes: &[Option<u32>]) -> Result<(), &'static str> {
        let exact = |(size, part): (&Option<u32>, &Part)| {
            size.is_none_or(|size| u64::from(size) == part.form.sums_length(part.length))
        };
        fits(sizes.iter().zip(&self.parts).all(exact), "sums of wrong length")
    }
}

impl GetSlices {
    /// Refuses what asks for too much or out of form.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        count(self.parts.len())?;
        let slices: usize = self.parts.iter().map(|part| part.gaps.len()).sum();
        fits(slices <= MAX_SLICES, "too many slices")?;
        let sound = |part: &Lacking| length(part.size, part.window).is_some() && part.ranges().is_some();
        fits(self.parts.iter().all(sound), "slices out of order or beyond the end")?;
        fits(self.windows() <= MAX_NEW, "slices of too many bytes")
    }

    fn windows(&self) -> u64 {
        sum(self.parts.iter().filter_map(|part| length(part.size, part.window)))
    }

    /// Whole windows are read and worked on.
    pub(super) fn cost(&self) -> u64 {
        let wanted = self.parts.iter().flat_map(|part| &part.gaps).map(|(_, wanted)| u64::from(*wanted));
        sum(wanted).min(MAX_BATCH).saturating_add(self.windows() / WORK)
    }

    /// Judges an answer.
    pub(super) fn judge(&self, made: &Made) -> Result<(), &'static str> {
        made.judge(self.parts.len())?;
        fits(made.slots.iter().flatten().all(Vec::is_empty), "ranges of an old file where there is none")
    }
}

impl Made {
    fn judge(&self, asked: usize) -> Result<(), &'static str> {
        frame(self.slots.len(), asked, &self.frame)
    }
}

fn frame(slots: usize, asked: usize, frame: &[u8]) -> Result<(), &'static str> {
    fits((1..=asked).contains(&slots), "an answer without a slot or with too many")?;
    let bound = usize::try_from(MAX_BATCH + MAX_PROOF).unwrap_or(usize::MAX);
    fits(frame.len() <= bound, "a frame over the size cap")
}

impl GetPagePatches {
    /// Refuses what asks for too much.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        fits((1..=MAX_PAGES).contains(&self.pages.len()), "no pages or too many")
    }

    /// Both pages are read and worked on.
    pub(super) fn cost(&self) -> u64 {
        u64::try_from(self.pages.len()).unwrap_or(u64::MAX).saturating_mul(MAX_PAGE).min(MAX_BATCH)
    }

    /// Judges an answer.
    pub(super) fn judge(&self, made: &PagePatches) -> Result<(), &'static str> {
        frame(made.sizes.len(), self.pages.len(), &made.frame)?;
        let sizes = || made.sizes.iter().flatten().map(|size| u64::from(*size));
        fits(sizes().all(|size| size <= MAX_PAGE), "a page over the size cap")?;
        fits(sum(sizes()) <= MAX_NEW, "too many pages")
    }
}
