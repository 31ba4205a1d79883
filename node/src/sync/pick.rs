//! Which source fetches which piece next. Pure: the caller passes the time, and tells what came back.
//!
//! Every source starts in a slice of its own and walks on from there, so that several sources spread over a tree without
//! talking to each other. A piece is one request. A source's window follows its measured rate. When nothing is left to hand
//! out, an idle source repeats the piece that has been under way for longest (hedging); the first answer counts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::wire::Have;

/// Bytes in flight that a source gets before its rate is known.
const WINDOW_START: u64 = 4 << 20;
/// Fewest bytes in flight: one full request and the next one.
const WINDOW_MIN: u64 = 2 << 20;
/// Most bytes in flight for one source.
const WINDOW_MAX: u64 = 16 << 20;
/// How much of a source's rate its window covers.
const WINDOW_SPAN: Duration = Duration::from_secs(2);
/// A piece is repeated elsewhere at most this often at a time.
const MAX_COPIES: usize = 2;
/// A piece is repeated at the end only after it has been under way for this long.
const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// Lies after which a source is banned.
const MAX_LIES: u32 = 1;

/// A source's number within one run, in order of joining.
pub type SourceId = usize;

/// A piece's number within one run.
pub type PieceId = usize;

/// What the picker knows of a piece: its size and the entries of the tree that it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Payload bytes.
    pub bytes: u64,
    /// Numbers (ranks in the tree) of the entries whose content it carries.
    pub entries: Vec<u64>,
}

#[derive(Debug, Default)]
struct PieceState {
    done: bool,
    /// Who is fetching it, since when.
    flights: Vec<(SourceId, Instant)>,
    /// Sources that said that they do not have it.
    absent: Vec<SourceId>,
}

#[derive(Debug)]
struct SourceState {
    have: Have,
    cursor: PieceId,
    in_flight: u64,
    /// Bytes per second, smoothed; none before the first answer.
    rate: Option<f64>,
    lies: u32,
    gone: bool,
}

impl SourceState {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range just before")]
    fn window(&self) -> u64 {
        let Some(rate) = self.rate else { return WINDOW_START };
        let wanted = rate * WINDOW_SPAN.as_secs_f64();
        if wanted >= WINDOW_MAX as f64 { WINDOW_MAX } else { (wanted.max(0.0) as u64).max(WINDOW_MIN) }
    }
}

/// Hands out the pieces of one run.
#[derive(Debug)]
pub struct Picker {
    pieces: Vec<Piece>,
    states: Vec<PieceState>,
    sources: Vec<SourceState>,
    left: usize,
    /// Bytes of the pieces that are not done.
    open_bytes: u64,
    /// Every piece below this one is done or under way: where a search for fresh ones may begin.
    untouched: usize,
    /// Pieces with at least one flight.
    under_way: BTreeSet<PieceId>,
}

/// Says whether a source that has `have` can deliver a piece.
fn covers(have: &Have, piece: &Piece) -> bool {
    match have {
        Have::Whole => true,
        Have::None => false,
        Have::Runs(_) => piece.entries.iter().all(|number| have.contains(*number)),
    }
}

impl Picker {
    /// A picker over `pieces`, in the order of the tree.
    pub fn new(pieces: Vec<Piece>) -> Self {
        let states = pieces.iter().map(|_| PieceState::default()).collect();
        let open_bytes = pieces.iter().map(|piece| piece.bytes).sum();
        Self {
            left: pieces.len(),
            open_bytes,
            pieces,
            states,
            sources: Vec::new(),
            untouched: 0,
            under_way: BTreeSet::new(),
        }
    }

    /// A source joins; its slice begins at a point spread evenly by the golden ratio, so that late joiners land in the middle
    /// of the largest gap.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    pub fn join(&mut self, have: Have) -> SourceId {
        let id = self.sources.len();
        let share = (id as f64 * 0.618_033_988_749_895).fract();
        let cursor = (share * self.pieces.len() as f64) as usize;
        self.sources.push(SourceState { have, cursor, in_flight: 0, rate: None, lies: 0, gone: false });
        id
    }

    /// A source says anew what it has; what it lacked before may be there now.
    pub fn update(&mut self, source: SourceId, have: Have) {
        if let Some(state) = self.sources.get_mut(source) {
            state.have = have;
            for piece in &mut self.states {
                piece.absent.retain(|id| *id != source);
            }
        }
    }

    /// A source is gone: its flights are free for others.
    pub fn leave(&mut self, source: SourceId) {
        if let Some(state) = self.sources.get_mut(source) {
            state.gone = true;
            state.in_flight = 0;
        }
        for id in self.under_way.clone() {
            self.land(source, id);
        }
    }

    /// The next piece for a source, marked as under way; none if its window is full or it can do nothing useful.
    pub fn next(&mut self, source: SourceId, now: Instant) -> Option<PieceId> {
        let state = self.sources.get(source)?;
        if state.gone || (state.in_flight > 0 && state.in_flight >= state.window().min(self.fair_share())) {
            return None;
        }
        let piece = self.fresh(source).or_else(|| self.hedge(source, now))?;
        let bytes = self.pieces.get(piece)?.bytes;
        self.states.get_mut(piece)?.flights.push((source, now));
        self.under_way.insert(piece);
        let state = self.sources.get_mut(source)?;
        state.in_flight += bytes;
        Some(piece)
    }

    /// Towards the end no source takes more than its part of what is left, so that none finishes alone.
    fn fair_share(&self) -> u64 {
        let present = self.sources.iter().filter(|source| !source.gone).count() as u64;
        (self.open_bytes / present.max(1)).max(1)
    }

    /// The first piece from the source's own cursor on that nobody has touched, going round at the end.
    fn fresh(&mut self, source: SourceId) -> Option<PieceId> {
        while self.states.get(self.untouched).is_some_and(|state| state.done || !state.flights.is_empty()) {
            self.untouched += 1;
        }
        let total = self.pieces.len();
        let cursor = self.sources.get(source)?.cursor;
        let found = (cursor..total).chain(self.untouched..cursor.min(total)).find(|id| self.is_free(*id, source))?;
        self.sources.get_mut(source)?.cursor = found + 1;
        Some(found)
    }

    fn is_free(&self, id: PieceId, source: SourceId) -> bool {
        let (Some(state), Some(piece), Some(by)) = (self.states.get(id), self.pieces.get(id), self.sources.get(source))
        else {
            return false;
        };
        !state.done && state.flights.is_empty() && !state.absent.contains(&source) && covers(&by.have, piece)
    }

    /// The piece under way for longest elsewhere, if this source would likely beat it.
    fn hedge(&self, source: SourceId, now: Instant) -> Option<PieceId> {
        let by = self.sources.get(source)?;
        if by.in_flight > 0 {
            return None;
        }
        self.under_way
            .iter()
            .filter_map(|id| Some((*id, self.states.get(*id)?, self.pieces.get(*id)?)))
            .filter(|(_, state, piece)| !state.done && !state.absent.contains(&source) && covers(&by.have, piece))
            .filter(|(_, state, _)| state.flights.len() < MAX_COPIES)
            .filter(|(_, state, _)| state.flights.iter().all(|(other, _)| *other != source))
            .filter_map(|(id, state, _)| state.flights.first().map(|(_, since)| (*since, id)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= HEDGE_AFTER)
            .min()
            .map(|(_, id)| id)
    }

    /// A piece arrived and was verified. True if it was the first copy: only that one counts.
    pub fn done(&mut self, source: SourceId, piece: PieceId, now: Instant) -> bool {
        let since = self.land(source, piece);
        let bytes = self.pieces.get(piece).map_or(0, |piece| piece.bytes);
        if let (Some(state), Some(since)) = (self.sources.get_mut(source), since) {
            let seconds = now.saturating_duration_since(since).as_secs_f64().max(0.001);
            let in_flight = (state.in_flight + bytes) as f64;
            let sample = in_flight / seconds;
            state.rate = Some(state.rate.map_or(sample, |rate| rate * 0.8 + sample * 0.2));
        }
        match self.states.get_mut(piece) {
            Some(state) if !state.done => {
                state.done = true;
                self.left -= 1;
                self.open_bytes = self.open_bytes.saturating_sub(bytes);
                true
            }
            _ => false,
        }
    }

    /// A source does not have a piece after all.
    pub fn absent(&mut self, source: SourceId, piece: PieceId) {
        self.land(source, piece);
        if let Some(state) = self.states.get_mut(piece)
            && !state.absent.contains(&source)
        {
            state.absent.push(source);
        }
    }

    /// A source sent something that does not verify. True if it is banned from now on.
    pub fn lied(&mut self, source: SourceId, piece: PieceId) -> bool {
        self.absent(source, piece);
        let Some(state) = self.sources.get_mut(source) else { return false };
        state.lies += 1;
        if state.lies >= MAX_LIES {
            self.leave(source);
            return true;
        }
        false
    }

    /// Ends one flight; returns when it began.
    fn land(&mut self, source: SourceId, piece: PieceId) -> Option<Instant> {
        let state = self.states.get_mut(piece)?;
        let at = state.flights.iter().position(|(id, _)| *id == source)?;
        let (_, since) = state.flights.swap_remove(at);
        if state.flights.is_empty() {
            self.under_way.remove(&piece);
            if !state.done {
                self.untouched = self.untouched.min(piece);
            }
        }
        let bytes = self.pieces.get(piece)?.bytes;
        let by = self.sources.get_mut(source)?;
        by.in_flight = by.in_flight.saturating_sub(bytes);
        Some(since)
    }

    /// Pieces not yet done.
    pub fn left(&self) -> usize {
        self.left
    }

    /// True if some piece is not done, not under way, and no present source can deliver it.
    pub fn is_stuck(&self) -> bool {
        let mut open = self.states.iter().enumerate().filter(|(_, state)| !state.done && state.flights.is_empty());
        open.any(|(id, _)| !(0..self.sources.len()).any(|source| self.can_deliver(source, id)))
    }

    fn can_deliver(&self, source: SourceId, piece: PieceId) -> bool {
        self.sources.get(source).is_some_and(|state| !state.gone) && self.is_free(piece, source)
    }

    /// The pieces that nobody present can deliver.
    pub fn orphans(&self) -> Vec<PieceId> {
        (0..self.states.len())
            .filter(|id| self.states.get(*id).is_some_and(|state| !state.done && state.flights.is_empty()))
            .filter(|id| !(0..self.sources.len()).any(|source| self.can_deliver(source, *id)))
            .collect()
    }
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
