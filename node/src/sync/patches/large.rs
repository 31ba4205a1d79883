//! A file of many windows: made in place, each group of 256 KiB verified by the file's hashes before it is written. Memory is
//! bounded by some windows, whatever the file's size; what is right stays when something is wrong.

use std::ops::Range;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::old::Old;
use super::{AT_ONCE, Basis, Giver, Ground, Miss};
use crate::delta::blocks::{self, Form, MAX_BLOCK, MIN_BLOCK, Run, Search};
use crate::delta::{self, MAX_NEW, MAX_OLD, WINDOW, patch};
use crate::store::outboard::{self, Outboard, VALUE, WIDE_GROUP};
use crate::store::proof;
use crate::store::stage::Partial;
use crate::sync::SyncError;
use crate::sync::pass::blocking;
use crate::sync::plan::Want;
use crate::wire::delta::{Lacking, MAX_SUMMED, Made, Pair, Part, Short};
use crate::wire::rules;

/// Block length of the first look, which finds what is the same at length.
const COARSE: u32 = 4 << 10;
/// Block length of the second, in what was not found.
const FINE: u32 = 512;
/// Sums searched for at once, about 50 bytes of memory each.
const MAX_SEARCHED: u64 = 1 << 20;
/// Bits that make a wrong match as rare as one in 2^this searches: it costs a group.
const CHANCE: u32 = 2;
/// The second look begins with so many bytes ...
const SAMPLE: u64 = 1 << 20;
/// ... and goes on where this share (percent) of them was found.
const PAYS: u64 = 10;

/// What is made, and from what.
struct Target {
    want: Want,
    old: Old,
    hashes: Outboard,
    partial: Partial,
}

/// One window on its way: its bytes, and what of them is still missing.
struct Canvas {
    window: u64,
    bytes: Vec<u8>,
    missing: Vec<Range<u64>>,
}

/// Makes as much of a file as its old version and one source allow.
pub(super) async fn bring(ground: &Ground, giver: &Giver, basis: Basis) -> Result<(), Miss> {
    let Basis { want, path, old_size } = basis;
    let dest = ground.dest.clone();
    let old = blocking(move || Ok(Old::open(&dest, &path, old_size))).await.map_err(Miss::Disk)?.ok_or(Miss::No)?;
    let hashes = giver.client().await.hashes(ground.module, want.id, want.size).await?.ok_or(Miss::No)?;
    giver.count(usize::try_from(outboard::groups(want.size)).unwrap_or(0) * VALUE);
    let stage = Arc::clone(&ground.stage);
    let open = move || {
        let partial = stage.partial(&want.id, want.size)?;
        let target = Target { want, old, hashes, partial };
        target.keep_equal()?;
        Ok(Arc::new(target))
    };
    let target = blocking(open).await.map_err(Miss::Disk)?;
    let mut result = Ok(());
    if !giver.lacks() {
        result = patched(ground, giver, &target).await;
    }
    if result.is_ok() && !target.partial.missing().is_empty() {
        result = matched(ground, giver, &target).await;
    }
    if target.partial.missing().is_empty() {
        let stage = Arc::clone(&ground.stage);
        blocking(move || Ok(stage.finish(&target.partial).map(drop)?)).await.map_err(Miss::Disk)?;
    }
    result
}

/// By patches from both versions; what the source does not make stays missing.
async fn patched(ground: &Ground, giver: &Giver, target: &Arc<Target>) -> Result<(), Miss> {
    let most = (MAX_NEW / WINDOW).min(MAX_OLD / delta::help(target.old.size).max(1)).max(1);
    let most = usize::try_from(most).unwrap_or(1);
    let windows = target.open_windows();
    // The first shows whether the source has the old version at all.
    let (first, rest) = windows.split_at(windows.len().min(1));
    if !first.is_empty() && !patch_some(ground, giver, target, first.to_vec()).await? {
        return Ok(());
    }
    let asks: Vec<Vec<u64>> = rest.chunks(most).map(<[u64]>::to_vec).collect();
    let work = asks.into_iter().map(|some| patch_some(ground, giver, target, some));
    stream::iter(work).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
}

/// Asks for some windows, and again for what does not fit; false if the first of them cannot be made.
async fn patch_some(ground: &Ground, giver: &Giver, target: &Arc<Target>, mut rest: Vec<u64>) -> Result<bool, Miss> {
    let mut any = false;
    while !rest.is_empty() {
        let made = giver
            .client()
            .await
            .patches(ground.module, rest.iter().map(|window| target.pair(*window)).collect())
            .await?;
        giver.count(made.frame.len());
        let after = rest.split_off(made.slots.len().min(rest.len()));
        any |= made.slots.iter().any(Option::is_some);
        let (target, some) = (Arc::clone(target), rest);
        if !blocking(move || target.apply(&some, &made)).await.map_err(Miss::Disk)? {
            return Err(Miss::Lie);
        }
        rest = after;
    }
    Ok(any)
}

/// By the sums of the new version: long blocks, then short ones in what was not found, then the rest of each window.
async fn matched(ground: &Ground, giver: &Giver, target: &Arc<Target>) -> Result<(), Miss> {
    let missing = target.partial.missing();
    let coarse = block(COARSE, &missing);
    let mut runs = find(ground, giver, target, &missing, coarse).await?;
    let left = without(&missing, &runs);
    let fine = block(FINE, &left);
    if fine < coarse && pays(ground, giver, target, &left, fine).await? {
        runs.extend(find(ground, giver, target, &left, fine).await?);
        runs.sort_unstable_by_key(|run| run.new);
    }
    let runs = Arc::new(runs);
    let count = usize::try_from(MAX_NEW / WINDOW).unwrap_or(1);
    let groups: Vec<Vec<u64>> = target.open_windows().chunks(count).map(<[u64]>::to_vec).collect();
    let work = groups.into_iter().map(|some| {
        let (here, runs) = (Arc::clone(target), Arc::clone(&runs));
        async move {
            let paint = move || Ok(some.iter().filter_map(|window| here.paint(*window, &runs)).collect());
            fill_all(ground, giver, target, blocking(paint).await.map_err(Miss::Disk)?).await
        }
    });
    stream::iter(work).buffer_unordered(AT_ONCE).try_for_each(|()| async { Ok(()) }).await
}

/// Asks for what is missing of some windows, and again for what does not fit.
async fn fill_all(ground: &Ground, giver: &Giver, target: &Arc<Target>, mut open: Vec<Canvas>) -> Result<(), Miss> {
    while !open.is_empty() {
        let lacking = |canvas: &Canvas| target.lacking(canvas);
        let made = giver.client().await.slices(ground.module, open.iter().map(lacking).collect()).await?;
        giver.count(made.frame.len());
        let rest = open.split_off(made.slots.len().min(open.len()));
        let target_here = Arc::clone(target);
        if !blocking(move || target_here.fill(open, &made)).await.map_err(Miss::Disk)? {
            giver.had_bad_luck()?;
        }
        open = rest;
    }
    Ok(())
}

/// Whether short blocks are found in a sample of what long ones were not.
async fn pays(
    ground: &Ground,
    giver: &Giver,
    target: &Arc<Target>,
    left: &[Range<u64>],
    block: u32,
) -> Result<bool, Miss> {
    let total = length(left);
    if total <= 4 * SAMPLE {
        return Ok(total > 0);
    }
    // Spread over the file: every so many-th range, or its beginning.
    let step = left.len().div_ceil(16).max(1);
    let each = SAMPLE / 16;
    let sample: Vec<_> =
        left.iter().step_by(step).map(|range| range.start..range.end.min(range.start + each)).collect();
    let runs = find(ground, giver, target, &sample, block).await?;
    let found: u64 = runs.iter().map(|run| run.length).sum();
    Ok(found.saturating_mul(100) >= length(&sample).saturating_mul(PAYS))
}

/// Where blocks of some ranges stand in the old version.
async fn find(
    ground: &Ground,
    giver: &Giver,
    target: &Arc<Target>,
    ranges: &[Range<u64>],
    block: u32,
) -> Result<Vec<Run>, Miss> {
    let form = Form::new(block, length(ranges), target.old.size, CHANCE);
    let asks = requests(&target.want, ranges, form);
    let ask = |parts: Vec<Part>| async move {
        let sums = giver.client().await.sums(ground.module, parts.clone()).await?;
        giver.count(sums.iter().flatten().map(Vec::len).sum());
        let all: Option<Vec<Vec<u8>>> = sums.into_iter().collect();
        let all = all.filter(|all| all.len() == parts.len()).ok_or(Miss::No)?;
        Ok::<_, Miss>((parts, all.concat()))
    };
    let answers: Vec<(Vec<Part>, Vec<u8>)> =
        stream::iter(asks.into_iter().map(ask)).buffered(AT_ONCE).try_collect().await?;
    let target = Arc::clone(target);
    let look = move || {
        let sums = answers.iter().flat_map(|(_, sums)| sums).copied().collect::<Vec<u8>>();
        let mut search = Search::new(form, &sums);
        let Some(()) = target.old.search(&mut search, block, 0) else { return Ok(None) };
        let found = search.end();
        let (mut rest, mut runs) = (found.as_slice(), Vec::new());
        for part in answers.iter().flat_map(|(parts, _)| parts) {
            let count = usize::try_from(part.length.div_ceil(u64::from(block))).unwrap_or(0);
            let (some, after) = rest.split_at(count.min(rest.len()));
            runs.extend(blocks::runs(some, part.start, part.length, block));
            rest = after;
        }
        Ok(Some(runs))
    };
    blocking(look).await.map_err(Miss::Disk)?.ok_or(Miss::No)
}

/// A block length with which not too many sums are searched for at once.
fn block(least: u32, ranges: &[Range<u64>]) -> u32 {
    let wanted = u32::try_from(length(ranges).div_ceil(MAX_SEARCHED)).unwrap_or(u32::MAX);
    wanted.clamp(least.max(MIN_BLOCK), MAX_BLOCK).checked_next_power_of_two().unwrap_or(MAX_BLOCK)
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Ranges as parts, as many to a request as one holds.
fn requests(want: &Want, ranges: &[Range<u64>], form: Form) -> Vec<Vec<Part>> {
    let blocks = rules::MAX_BATCH / u64::from(form.width.max(1));
    let most = MAX_SUMMED.min(blocks * u64::from(form.block)) / WINDOW * WINDOW;
    let most = most.max(u64::from(form.block));
    let mut requests: Vec<Vec<Part>> = Vec::new();
    let mut room = 0;
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            if room == 0 || requests.last().is_none_or(|last| last.len() >= rules::MAX_ITEMS) {
                requests.push(Vec::new());
                room = most;
            }
            let length = room.min(range.end - start);
            if let Some(last) = requests.last_mut() {
                last.push(Part { id: Short::from(&want.id), size: want.size, start, length, form });
            }
            // Every part takes whole blocks from the room, also a short last one.
            room = room.saturating_sub(length.next_multiple_of(u64::from(form.block)));
            start += length;
        }
    }
    requests
}

/// What of ranges is in no run. Both ascend.
fn without(ranges: &[Range<u64>], runs: &[Run]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut runs = runs.iter().peekable();
    for range in ranges {
        let mut at = range.start;
        while let Some(run) = runs.next_if(|run| run.new < range.end) {
            if at < run.new {
                left.push(at..run.new);
            }
            at = at.max(run.new + run.length);
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

impl Target {
    /// Windows of which something is missing.
    fn open_windows(&self) -> Vec<u64> {
        let missing = self.partial.missing();
        let mut windows: Vec<u64> =
            missing.iter().flat_map(|range| range.start / WINDOW..range.end.div_ceil(WINDOW)).collect();
        windows.dedup();
        windows
    }

    fn pair(&self, window: u64) -> Pair {
        let (old, id) = (Short::from(&self.old.id), Short::from(&self.want.id));
        Pair { old, old_size: self.old.size, id, size: self.want.size, window }
    }

    fn lacking(&self, canvas: &Canvas) -> Lacking {
        let gaps = Lacking::gaps(&canvas.missing);
        Lacking { id: Short::from(&self.want.id), size: self.want.size, window: canvas.window, gaps }
    }

    /// Takes over the groups that are the same at the same place of the old version: appended to, or edited in place.
    fn keep_equal(&self) -> Result<(), SyncError> {
        let Some(old) = &self.old.hashes else { return Ok(()) };
        for range in self.partial.missing() {
            for group in range.start / WIDE_GROUP..range.end.div_ceil(WIDE_GROUP) {
                let start = group * WIDE_GROUP;
                let length = WIDE_GROUP.min(self.want.size - start);
                if self.hashes.group(group) == old.group(group)
                    && let Some(bytes) = self.old.read(start, length)
                {
                    self.write(start, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the groups of some bytes that are what they should be; false if any is not.
    fn write(&self, start: u64, bytes: &[u8]) -> Result<bool, SyncError> {
        let (id, size) = (&self.want.id, self.want.size);
        let mut all_good = true;
        let group = usize::try_from(WIDE_GROUP).unwrap_or(usize::MAX);
        for (bytes, number) in bytes.chunks(group).zip(0u64..) {
            let start = start + number * WIDE_GROUP;
            let range = start..start + u64::try_from(bytes.len()).unwrap_or(0);
            let encoded = proof::encode_bytes((start, bytes), id, &self.hashes, range.clone());
            match encoded.as_ref().map(|encoded| proof::decode_range(id, size, range, encoded)) {
                Ok(Ok(verified)) => self.partial.write(&verified)?,
                _ => all_good = false,
            }
        }
        Ok(all_good)
    }

    /// Writes the windows that a patch makes; false if it is not one for them.
    fn apply(&self, windows: &[u64], made: &Made) -> Result<bool, SyncError> {
        let (mut prefix, mut made_windows) = (Vec::new(), Vec::new());
        for (window, slot) in windows.iter().zip(&made.slots) {
            let Some(ranges) = slot else { continue };
            let (Some(help), Some(window)) = (self.old.help(ranges), delta::window(self.want.size, *window)) else {
                return Ok(false);
            };
            prefix.extend(help);
            made_windows.push(window);
        }
        if made_windows.is_empty() {
            return Ok(true);
        }
        let total = usize::try_from(length(&made_windows)).unwrap_or(usize::MAX);
        let Some(bytes) = patch::apply(&prefix, &made.frame, total) else { return Ok(false) };
        let mut rest = bytes.as_slice();
        for window in made_windows {
            let count = usize::try_from(window.end - window.start).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at(count);
            if !self.write(window.start, part)? {
                return Ok(false);
            }
            rest = after;
        }
        Ok(true)
    }

    /// A window with all of it that is known; none if that is nothing, or everything and wrong.
    fn paint(&self, number: u64, runs: &[Run]) -> Option<Canvas> {
        let window = delta::window(self.want.size, number)?;
        let size = window.end - window.start;
        let place = |at: u64| usize::try_from(at.checked_sub(window.start)?).ok();
        let mut bytes = self.partial.read(&window).ok()?;
        let inside = |range: &Range<u64>| range.start.max(window.start)..range.end.min(window.end);
        let open =
            self.partial.missing().iter().map(inside).filter(|range| range.start < range.end).collect::<Vec<_>>();
        let from = runs.partition_point(|run| run.new + run.length <= window.start);
        let here: Vec<Run> = runs
            .get(from..)?
            .iter()
            .take_while(|run| run.new < window.end)
            .map(|run| {
                let skip = window.start.saturating_sub(run.new);
                let length = (run.length - skip).min(window.end - run.new - skip);
                Run { new: run.new + skip, old: run.old + skip, length }
            })
            .collect();
        for run in &here {
            let part = self.old.read(run.old, run.length)?;
            bytes.get_mut(place(run.new)?..place(run.new + run.length)?)?.copy_from_slice(&part);
        }
        let missing: Vec<Range<u64>> = without(&open, &here)
            .into_iter()
            .map(|range| range.start - window.start..range.end - window.start)
            .collect();
        (length(&missing) < size).then_some(Canvas { window: number, bytes, missing })
    }

    /// Writes what slices complete; false if any of it is not what it should be.
    fn fill(&self, canvases: Vec<Canvas>, made: &Made) -> Result<bool, SyncError> {
        let there: Vec<Canvas> =
            canvases.into_iter().zip(&made.slots).filter_map(|(one, slot)| slot.as_ref().map(|_| one)).collect();
        let known = |canvas: &Canvas| {
            delta::cut(&canvas.bytes, &blocks::between(&canvas.missing, canvas.bytes.len() as u64)).unwrap_or_default()
        };
        let prefix = there.iter().map(known).collect::<Vec<_>>().concat();
        let total: u64 = there.iter().map(|canvas| length(&canvas.missing)).sum();
        let literal = match usize::try_from(total) {
            Ok(0) => Some(Vec::new()),
            Ok(total) => patch::apply(&prefix, &made.frame, total),
            Err(_) => None,
        };
        let Some(literal) = literal else { return Ok(false) };
        let (mut rest, mut all_good) = (literal.as_slice(), true);
        for mut canvas in there {
            for range in &canvas.missing {
                let place = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
                let (part, after) = rest.split_at(place.len().min(rest.len()));
                if let Some(gap) = canvas.bytes.get_mut(place).filter(|gap| gap.len() == part.len()) {
                    gap.copy_from_slice(part);
                }
                rest = after;
            }
            all_good &= self.write(canvas.window * WINDOW, &canvas.bytes)?;
        }
        Ok(all_good)
    }
}
