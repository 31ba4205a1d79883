//! Files of one window, as many to a request as it holds.

use std::sync::Arc;

use rayon::prelude::*;

use super::old::Old;
use super::{Basis, Giver, Ground, Miss};
use crate::delta::blocks::{self, Form, Search};
use crate::delta::patch;
use crate::store::stage::Stage;
use crate::sync::SyncError;
use crate::sync::pass::blocking;
use crate::sync::plan::Want;
use crate::wire::delta::{Lacking, Made, Pair, Part, Short};

/// Smallest file whose sums are worth their bytes.
const MIN_SUMS: u64 = 1 << 10;
/// Files over this of which nothing was found are left to all sources.
const MAX_ALONE: u64 = 64 << 10;
/// Bits that make a wrong match, which spoils all files of a request, as rare as one in 2^this requests.
const CHANCE: u32 = 6;

/// A file to make, and its old version.
pub(super) struct Piece {
    want: Want,
    old: Old,
}

/// A file of which all but the missing ranges was found.
struct Found {
    piece: Piece,
    known: Vec<u8>,
    missing: Vec<std::ops::Range<u64>>,
}

/// Reads the old versions; those that are not what they were are left out.
pub(super) async fn read(ground: &Ground, group: Vec<Basis>) -> Result<Vec<Piece>, SyncError> {
    let dest = ground.dest.clone();
    let open = move |basis: Basis| {
        let old = Old::open(&dest, &basis.path, basis.old_size)?;
        Some(Piece { want: basis.want, old })
    };
    blocking(move || Ok(group.into_par_iter().filter_map(open).collect())).await
}

/// One group by the ways that its source knows.
pub(super) async fn bring(ground: &Ground, giver: &Giver, group: Vec<Basis>) -> Result<(), Miss> {
    if giver.is_bad() {
        return Err(Miss::No);
    }
    let mut pieces = read(ground, group).await.map_err(Miss::Disk)?;
    if !giver.lacks() {
        pieces = patched(ground, giver, pieces).await?;
    }
    matched(ground, giver, pieces).await
}

/// By patches from both versions; returns those whose old version the source lacks.
pub(super) async fn patched(ground: &Ground, giver: &Giver, mut pieces: Vec<Piece>) -> Result<Vec<Piece>, Miss> {
    let mut lacking = Vec::new();
    while !pieces.is_empty() {
        let made = giver.client().await.patches(ground.module, pieces.iter().map(pair).collect()).await?;
        giver.count(made.frame.len());
        let rest = pieces.split_off(made.slots.len().min(pieces.len()));
        let stage = Arc::clone(&ground.stage);
        let left = blocking(move || apply(&stage, pieces, &made)).await.map_err(Miss::Disk)?;
        lacking.extend(left.ok_or(Miss::Lie)?);
        pieces = rest;
    }
    Ok(lacking)
}

fn pair(piece: &Piece) -> Pair {
    let Piece { want, old } = piece;
    Pair { old: Short::from(&old.id), old_size: old.size, id: Short::from(&want.id), size: want.size, window: 0 }
}

/// Stages what a patch makes; returns what it does not, or none if it is not one for these files.
fn apply(stage: &Stage, pieces: Vec<Piece>, made: &Made) -> Result<Option<Vec<Piece>>, SyncError> {
    let (mut prefix, mut wants, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
    for (piece, slot) in pieces.into_iter().zip(&made.slots) {
        let Some(ranges) = slot else {
            lacking.push(piece);
            continue;
        };
        let Some(help) = piece.old.help(ranges) else { return Ok(None) };
        prefix.extend(help);
        wants.push(piece.want);
    }
    let Some(files) = split(&prefix, &made.frame, wants.iter().map(|want| want.size)) else { return Ok(None) };
    let staged = wants.par_iter().zip(files).map(|(want, bytes)| stage.put_whole(&want.id, &bytes, want.attributes));
    let all_good = staged.try_reduce(|| true, |one, other| Ok(one && other))?;
    Ok(all_good.then_some(lacking))
}

/// Unpacks a frame of things of known sizes.
fn split(prefix: &[u8], frame: &[u8], sizes: impl Iterator<Item = u64> + Clone) -> Option<Vec<Vec<u8>>> {
    let total = usize::try_from(sizes.clone().sum::<u64>()).ok()?;
    if total == 0 {
        return Some(sizes.map(|_| Vec::new()).collect());
    }
    let bytes = patch::apply(prefix, frame, total)?;
    let mut rest = bytes.as_slice();
    let take = |size: u64| {
        let (part, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        rest = after;
        Some(part.to_vec())
    };
    sizes.map(take).collect()
}

/// By the sums of the new versions.
pub(super) async fn matched(ground: &Ground, giver: &Giver, mut pieces: Vec<Piece>) -> Result<(), Miss> {
    pieces.retain(|piece| piece.want.size >= MIN_SUMS);
    let chance = CHANCE + pieces.len().checked_ilog2().unwrap_or(0) + 1;
    let mut found = Vec::new();
    while !pieces.is_empty() {
        let sums =
            giver.client().await.sums(ground.module, pieces.iter().map(|piece| part(piece, chance)).collect()).await?;
        giver.count(sums.iter().flatten().map(Vec::len).sum());
        let rest = pieces.split_off(sums.len().min(pieces.len()));
        let look = move |(piece, sums): (Piece, Option<Vec<u8>>)| Found::look(form(&piece, chance), piece, &sums?);
        let work = move || Ok(pieces.into_par_iter().zip(sums).filter_map(look).collect::<Vec<Found>>());
        found.extend(blocking(work).await.map_err(Miss::Disk)?);
        pieces = rest;
    }
    while !found.is_empty() {
        let parts = found.iter().map(Found::lacking).collect();
        let made = giver.client().await.slices(ground.module, parts).await?;
        giver.count(made.frame.len());
        let rest = found.split_off(made.slots.len().min(found.len()));
        let stage = Arc::clone(&ground.stage);
        if !blocking(move || fill(&stage, found, &made)).await.map_err(Miss::Disk)? {
            giver.had_bad_luck()?;
        }
        found = rest;
    }
    Ok(())
}

fn part(piece: &Piece, chance: u32) -> Part {
    let size = piece.want.size;
    Part { id: Short::from(&piece.want.id), size, start: 0, length: size, form: form(piece, chance) }
}

fn form(piece: &Piece, chance: u32) -> Form {
    let size = piece.want.size;
    Form::new(blocks::block_length(size), size, piece.old.size, chance)
}

/// Stages what slices complete; false if anything was not what it should be.
fn fill(stage: &Stage, found: Vec<Found>, made: &Made) -> Result<bool, SyncError> {
    let there: Vec<Found> =
        found.into_iter().zip(&made.slots).filter_map(|(one, slot)| slot.as_ref().map(|_| one)).collect();
    let prefix = there.iter().map(|one| one.known.as_slice()).collect::<Vec<_>>().concat();
    let lacking = |one: &Found| one.missing.iter().map(|range| range.end - range.start).sum();
    let Some(literals) = split(&prefix, &made.frame, there.iter().map(lacking)) else { return Ok(false) };
    let stage_one = |(one, literal): (&Found, Vec<u8>)| match blocks::assemble(
        &one.known,
        &literal,
        &one.missing,
        one.piece.want.size,
    ) {
        Some(bytes) => stage.put_whole(&one.piece.want.id, &bytes, one.piece.want.attributes),
        None => Ok(false),
    };
    let staged = there.par_iter().zip(literals).map(stage_one);
    Ok(staged.try_reduce(|| true, |one, other| Ok(one && other))?)
}

impl Found {
    /// Looks for a file's blocks in its old version.
    fn look(form: Form, piece: Piece, sums: &[u8]) -> Option<Self> {
        let size = piece.want.size;
        let mut search = Search::new(form, sums);
        piece.old.search(&mut search, form.block, size % u64::from(form.block))?;
        let found = search.end();
        let missing = blocks::missing(&found, size, form.block);
        let alone = found.iter().all(Option::is_none);
        let mut known = Vec::new();
        for run in blocks::runs(&found, 0, size, form.block) {
            known.extend(piece.old.read(run.old, run.length)?);
        }
        (!alone || size <= MAX_ALONE).then_some(Self { piece, known, missing })
    }

    fn lacking(&self) -> Lacking {
        let Want { id, size, .. } = &self.piece.want;
        Lacking { id: Short::from(id), size: *size, window: 0, gaps: Lacking::gaps(&self.missing) }
    }
}
