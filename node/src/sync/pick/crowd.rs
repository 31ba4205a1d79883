//! Several downloaders of one tree at once: which piece is whose to bring, and whether the others do their part.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::source::SourceState;
use super::{Picker, Piece, PieceId, PieceState};
use crate::wire::Have;

/// Who has got nothing new for so long is no downloader any more.
const STILL: Duration = Duration::from_secs(6);
/// Pieces that a downloader may have asked for before it knew of others: a first window.
const AT_ONCE: usize = 6;
/// Of the rate of those that have everything, this much is enough from the others.
const ENOUGH: f64 = 0.5;

impl PieceState {
    /// To be asked of those that have everything: nobody else has it, or will.
    pub(super) fn is_own(&self) -> bool {
        self.holders == 0 && !self.anothers
    }
}

impl Piece {
    /// The same piece has the same key in all downloaders.
    fn key(&self) -> u64 {
        let start = self.range.as_ref().map_or(0, |range| range.start);
        self.entries.first().copied().unwrap_or(0).rotate_left(32) ^ start
    }
}

/// A hash of two numbers (the finalizer of MurmurHash3).
fn mix(lot: u64, key: u64) -> u64 {
    let mut hash = lot ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// A downloader's claim to a piece; the highest one counts. Whoever began near before it will have asked for it at once.
fn rank(lot: u64, piece: PieceId, key: u64, count: usize) -> (Reverse<usize>, u64) {
    let ahead = (piece + count - first(lot, count)) % count.max(1);
    (Reverse(ahead.min(AT_ONCE)), mix(lot, key))
}

/// The piece that a downloader begins with.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
pub(super) fn first(lot: u64, count: usize) -> usize {
    let share = lot as f64 / u64::MAX as f64;
    ((share * count as f64) as usize).min(count.saturating_sub(1))
}

impl Picker {
    /// Draws anew whose each piece is, where other downloaders came or went: of all the one who began there, before it knew of any
    /// other; else the one with the highest hash (rendezvous hashing), so that nothing changes between the others.
    pub(super) fn draw(&mut self, now: Instant) {
        let lots: Vec<u64> = self.sources.iter().filter(|one| one.is_downloader(now)).map(|one| one.lot).collect();
        if lots == self.lots {
            return;
        }
        let count = self.pieces.len();
        for ((at, piece), state) in
            self.pieces.iter().enumerate().zip(&mut self.states).filter(|(_, state)| !state.done)
        {
            let (key, mine) = (piece.key(), rank(self.lot, at, piece.key(), count));
            state.anothers = lots.iter().any(|lot| rank(*lot, at, key, count) > mine);
        }
        self.lots = lots;
    }

    /// True while other downloaders bring what is lacking here, about as fast as those that have everything do or faster, and hand
    /// it on as fast: then these are spared.
    pub(super) fn others_deliver(&self, now: Instant) -> bool {
        let others = || self.sources.iter().filter(|one| one.is_downloader(now) && !one.is_stalled(now));
        let whole = self.sources.iter().filter(|one| !one.gone && one.have == Have::Whole);
        let enough = whole.filter_map(SourceState::rate).sum::<f64>() * ENOUGH;
        let given: Vec<f64> = others().filter_map(SourceState::rate).collect();
        let brought: Vec<f64> = others().filter_map(|one| one.growth(now)).collect();
        // Before anybody's rate is known, each does its part first.
        let suffices = |rates: &[f64]| rates.is_empty() || rates.iter().sum::<f64>() >= enough;
        others().next().is_some() && suffices(&given) && suffices(&brought)
    }

    /// Bytes of the pieces lacking here that a source with this map would bring first.
    pub(super) fn news(&self, have: &Have) -> u64 {
        let lacking = self.states.iter().zip(&self.pieces).filter(|(state, _)| !state.done && state.holders == 0);
        lacking.filter(|(_, piece)| piece.is_in(have)).map(|(_, piece)| piece.bytes).sum()
    }
}

impl SourceState {
    /// Takes a new map of what it holds, with so many bytes that nobody had before.
    pub(super) fn grow(&mut self, have: Have, news: u64, now: Instant) {
        if news > 0 && have.is_partial() {
            self.grown = now;
            self.brought += news;
        }
        self.have = have;
    }

    /// Holds nothing yet, or a part that grows by what is lacking here.
    fn is_downloader(&self, now: Instant) -> bool {
        let grows = now.saturating_duration_since(self.grown) < STILL;
        grows && !self.gone && self.have != Have::Whole
    }

    /// Bytes a second that it gives.
    fn rate(&self) -> Option<f64> {
        self.pace.map(|pace| 1.0 / pace.max(1e-12))
    }

    /// Bytes a second that it brought, once that can be told.
    fn growth(&self, now: Instant) -> Option<f64> {
        let span = now.saturating_duration_since(self.came);
        (span >= STILL).then(|| self.brought as f64 / span.as_secs_f64())
    }
}
