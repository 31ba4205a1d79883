//! Several downloaders of one tree at once: which piece is whose to bring, and whether the others do their part.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::source::SourceState;
use super::{Picker, Piece, PieceId, PieceState, SourceId};
use crate::wire::Have;

/// Whose pieces do not turn up for so long does not do its part; who has got nothing new for so long is no downloader any more.
const STILL: Duration = Duration::from_secs(6);
/// At least this many times as long as a piece takes here: all share the lines of those that have everything.
const PATIENCE: u32 = 3;
/// Pieces that a downloader may have asked for before it knew of others.
const AT_ONCE: usize = 6;
/// Of the rate of those that have everything, this much is enough from the others.
const ENOUGH: f64 = 0.5;
/// Whoever has everything stays for so long at most, for others to have it.
const HAND_ON: Duration = Duration::from_secs(5);

impl PieceState {
    /// To be asked of those that have everything: nobody else has it, or will.
    pub(super) fn is_own(&self) -> bool {
        self.is_lacking() && self.owner.is_none()
    }

    /// Neither here nor at another downloader.
    fn is_lacking(&self) -> bool {
        !self.done && self.holders == 0
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
    /// Draws anew whose each piece is, where other downloaders came or went or do not do their part: of all the one who began there,
    /// before it knew of any other; else the one with the highest hash (rendezvous hashing), so that nothing changes between the
    /// others.
    pub(super) fn draw(&mut self, now: Instant) {
        self.judge(now);
        let others = self.sources.iter().enumerate().filter(|(_, one)| one.is_downloader());
        let lots: Vec<(SourceId, u64)> = others.map(|(id, one)| (id, one.lot)).collect();
        if lots == self.lots {
            return;
        }
        let count = self.pieces.len();
        for ((at, piece), state) in
            self.pieces.iter().enumerate().zip(&mut self.states).filter(|(_, state)| !state.done)
        {
            let claim = |lot| rank(lot, at, piece.key(), count);
            let best = lots.iter().map(|(id, lot)| (claim(*lot), *id)).max();
            state.owner = best.filter(|(theirs, _)| *theirs > claim(self.lot)).map(|(_, id)| id);
        }
        self.lots = lots;
        self.look_again();
    }

    /// Strikes out those whose own pieces do not turn up, and of those that owe none the ones that do not grow.
    fn judge(&mut self, now: Instant) {
        let lacking = self.states.iter().filter(|state| state.is_lacking());
        let owing: BTreeSet<SourceId> = lacking.filter_map(|state| state.owner).collect();
        let patience = self.patience(now);
        for (id, state) in self.sources.iter_mut().enumerate() {
            let since = if owing.contains(&id) {
                state.brought_at
            } else {
                state.brought_at = now;
                state.grown.unwrap_or(state.came)
            };
            state.shirks |= now.saturating_duration_since(since) >= patience;
        }
    }

    /// How long another's piece may take.
    fn patience(&self, now: Instant) -> Duration {
        let whole = self.sources.iter().filter(|one| !one.gone && one.have == Have::Whole);
        let here = whole.map(|one| one.spell(self.largest, now)).min().unwrap_or_default();
        STILL.max(here.saturating_mul(PATIENCE))
    }

    /// True while other downloaders bring what is lacking here, about as fast as those that have everything do or faster, and hand
    /// it on as fast: then these are spared.
    pub(super) fn others_deliver(&self, now: Instant) -> bool {
        let others = || self.sources.iter().filter(|one| one.is_downloader() && !one.is_stalled(now));
        let whole = self.sources.iter().filter(|one| !one.gone && one.have == Have::Whole);
        let enough = whole.filter_map(SourceState::rate).sum::<f64>() * ENOUGH;
        let given: Vec<f64> = others().filter_map(SourceState::rate).collect();
        // Before anybody's rate is known, each does its part first.
        let gives = given.is_empty() || given.iter().sum::<f64>() >= enough;
        let patience = self.patience(now);
        let brought: f64 = others().map(|one| one.growth(patience, now)).sum();
        let brings = brought >= enough || !others().any(|one| now.saturating_duration_since(one.came) >= patience);
        // Whoever only says that it has something holds nobody up for long.
        let feeds = self.fed.is_some_and(|fed| now.saturating_duration_since(fed) < patience);
        feeds && gives && brings && others().next().is_some()
    }

    /// True while all is here, and something that was brought here for all would go with us: another downloader lacks it, and none
    /// that has it stays for more. Else whoever has the last piece leaves with it, and the next one brings it anew.
    pub fn hands_on(&self, now: Instant) -> bool {
        let is_over = self.fed.is_none_or(|fed| now.saturating_duration_since(fed) >= HAND_ON);
        if self.left > 0 || is_over {
            return false;
        }
        // Who was never seen to grow may want no more than it has.
        let others = self.sources.iter().filter(|one| one.is_downloader() && one.grown.is_some());
        let others: Vec<&Have> = others.map(|one| &one.have).collect();
        let stays = |have: &&Have| self.pieces.iter().any(|piece| !piece.is_in(have));
        let staying: Vec<&Have> = others.iter().copied().filter(stays).collect();
        let mut mine = self.pieces.iter().zip(&self.states).filter(|(_, state)| state.mine).map(|(piece, _)| piece);
        mine.any(|piece| {
            let is_in = |have: &&Have| piece.is_in(have);
            !others.iter().all(is_in) && !staying.iter().any(is_in)
        })
    }

    /// Takes note of what a source with this map would bring first, of what is lacking here; whose pieces these are does its part.
    pub(super) fn note_news(&mut self, source: SourceId, have: &Have, now: Instant) {
        if !have.is_partial() {
            return;
        }
        let mut news = 0;
        for (state, piece) in self.states.iter().zip(&self.pieces) {
            if !state.is_lacking() || !piece.is_in(have) {
                continue;
            }
            news += piece.bytes;
            if let Some(owner) = state.owner.and_then(|owner| self.sources.get_mut(owner)) {
                owner.brought_at = now;
            }
        }
        if let Some(state) = self.sources.get_mut(source) {
            state.brought += news;
            if state.have.is_partial() && state.have != *have {
                state.grown = Some(now);
            }
        }
    }
}

impl SourceState {
    /// Holds nothing yet or a part, and does its part.
    fn is_downloader(&self) -> bool {
        !self.shirks && !self.gone && self.have != Have::Whole
    }

    /// Bytes a second that it gives.
    fn rate(&self) -> Option<f64> {
        self.pace.map(|pace| 1.0 / pace.max(1e-12))
    }

    /// How long it takes for so many bytes, or has taken already.
    fn spell(&self, bytes: u64, now: Instant) -> Duration {
        let usual = self.pace.map_or(0.0, |pace| pace * bytes as f64);
        Duration::try_from_secs_f64(usual).unwrap_or_default().max(self.owes_for(now).unwrap_or_default())
    }

    /// Bytes a second that it brought; for the first while as if that had passed.
    fn growth(&self, patience: Duration, now: Instant) -> f64 {
        let span = now.saturating_duration_since(self.came).max(patience);
        self.brought as f64 / span.as_secs_f64()
    }
}
