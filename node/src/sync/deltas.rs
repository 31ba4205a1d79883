//! What is made for others from the files that stand here: patches from both versions, sums and slices of the new one. Only
//! contents of the tree or superseded ones, and all bytes verified before they are used.

use super::holding::Holding;
use crate::delta::patch::{self, Effort};
use crate::delta::{self, MAX_OLD, WINDOW, blocks};
use crate::store::index::Index;
use crate::wire::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use crate::wire::rules::{MAX_BATCH, MAX_PROOF};

/// One window as it goes into a frame.
struct Side {
    /// Ranges of a large old file, to be told.
    ranges: Vec<(u64, u64)>,
    /// What the asker has.
    prefix: Vec<u8>,
    /// What it wants.
    wanted: Vec<u8>,
    /// Later there will be no better ranges.
    is_best: bool,
}

/// What makes new files from old ones, and whether it is as good as it gets.
pub fn patches(holding: &Holding, pairs: &[Pair]) -> (Made, bool) {
    let sides: Vec<Option<Side>> = pairs.iter().map(|pair| both(holding, pair)).collect();
    let is_best = sides.iter().flatten().all(|side| side.is_best);
    let effort = if pairs.iter().any(|pair| pair.size > WINDOW) { Effort::Brisk } else { Effort::Thorough };
    (made(sides, effort), is_best)
}

fn both(holding: &Holding, pair: &Pair) -> Option<Side> {
    let old = holding.find(&pair.old, pair.old_size)?;
    let window = delta::window(pair.size, pair.window)?;
    let wanted = holding.bytes(&holding.find(&pair.id, pair.size)?, pair.size, &window)?;
    let (helping, is_best) = holding.helping(&old, pair.old_size, &wanted, window.start);
    let prefix = if helping.is_empty() {
        holding.bytes(&old, pair.old_size, &(0..pair.old_size))?
    } else {
        let parts = helping.iter().map(|range| holding.bytes(&old, pair.old_size, range));
        parts.collect::<Option<Vec<_>>>()?.concat()
    };
    let ranges = helping.into_iter().map(|range| (range.start, range.end - range.start)).collect();
    Some(Side { ranges, prefix, wanted, is_best })
}

/// New pages of a tree made from former ones, as many as fit.
pub fn pages(index: &Index, pages: &[(Short, Short)]) -> PagePatches {
    let (mut prefix, mut wanted, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    let page = |short: &Short| index.page_like(short.bytes()).ok().flatten();
    for (old, new) in pages {
        let both = page(old).zip(page(new));
        if let Some((old, new)) = &both {
            let full = |bytes: usize, bound: u64| u64::try_from(bytes).map_or(true, |bytes| bytes > bound);
            if full(prefix.len() + old.len(), MAX_OLD) || full(wanted.len() + new.len(), MAX_BATCH) {
                break;
            }
            prefix.extend_from_slice(old);
            wanted.extend_from_slice(new);
        }
        sizes.push(both.and_then(|(_, new)| u32::try_from(new.len()).ok()));
    }
    let frame = if wanted.is_empty() { Some(Vec::new()) } else { patch::make(&prefix, &wanted, Effort::Thorough) };
    match frame {
        Some(frame) => PagePatches { sizes, frame },
        None => PagePatches { sizes: vec![None; pages.len()], frame: Vec::new() },
    }
}

/// The sums of a part of a file.
pub fn sums(holding: &Holding, part: &Part) -> Option<Vec<u8>> {
    let id = holding.find(&part.id, part.size)?;
    let (mut sums, mut start) = (Vec::new(), part.start);
    let end = part.start.checked_add(part.length)?;
    while start < end {
        // Every block length divides a window.
        let next = end.min(start + WINDOW);
        sums.extend(part.form.sums(&holding.bytes(&id, part.size, &(start..next))?));
        start = next;
    }
    Some(sums)
}

/// What is lacking of files, by those who have the rest of them.
pub fn slices(holding: &Holding, parts: &[Lacking]) -> Made {
    made(parts.iter().map(|part| rest(holding, part)).collect(), Effort::Thorough)
}

fn rest(holding: &Holding, part: &Lacking) -> Option<Side> {
    let window = delta::window(part.size, part.window)?;
    let missing = part.ranges()?;
    let bytes = holding.bytes(&holding.find(&part.id, part.size)?, part.size, &window)?;
    let known = blocks::between(&missing, window.end - window.start);
    let (prefix, wanted) = (delta::cut(&bytes, &known)?, delta::cut(&bytes, &missing)?);
    Some(Side { ranges: Vec::new(), prefix, wanted, is_best: true })
}

/// One frame of as many as fit, from the first on.
fn made(sides: Vec<Option<Side>>, effort: Effort) -> Made {
    let bound = usize::try_from(MAX_BATCH + MAX_PROOF).unwrap_or(usize::MAX);
    let mut count = sides.len();
    loop {
        let some = sides.get(..count).unwrap_or_default();
        let there: Vec<&Side> = some.iter().flatten().collect();
        let prefix: Vec<u8> = there.iter().flat_map(|side| &side.prefix).copied().collect();
        let wanted: Vec<u8> = there.iter().flat_map(|side| &side.wanted).copied().collect();
        if there.is_empty() {
            return Made::none(count);
        }
        match patch::make(&prefix, &wanted, effort) {
            Some(frame) if frame.len() <= bound => {
                let slots = some.iter().map(|side| side.as_ref().map(|side| side.ranges.clone())).collect();
                return Made { slots, frame };
            }
            _ if count > 1 => count = count.div_ceil(2),
            _ => return Made::none(count),
        }
    }
}
