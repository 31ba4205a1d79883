//! Which source fetches which piece next. Pure: the caller passes the time, and tells what came back.
//!
//! Every source starts in a slice of its own and walks on from there, rarest pieces first, so that several sources spread over
//! a tree without talking to each other. A piece is one request. A source's window follows its measured rate and round trip.
//! Where others bring the same tree at the same time, each piece is one downloader's own, by a lot that all of them draw alike: of
//! whoever has everything, each asks for its own pieces, and has the rest from the others, as long as these deliver.
//! Whoever does not bring its own in time, as long as a piece takes here, is left out; whoever brought the last piece hands it on.
//! When nothing is left to hand out, a source repeats what it is expected to deliver earlier than the one that owes it (so slow
//! ones are relieved and silent ones replaced); the first answer counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::wire::Have;

mod crowd;
mod source;
use source::SourceState;

/// Bytes in flight from all sources together; each may always have one piece.
const WINDOW_ALL: u64 = 64 << 20;
/// Requests in flight at one source: tiny pieces do not fill a window.
const MAX_FLIGHTS: usize = 32;
/// Free pieces that are compared for rarity before one is taken.
const COMPARED: usize = 1024;
/// A piece is repeated elsewhere at most this often at a time; copies at sources that stand still do not count.
const MAX_COPIES: usize = 2;
/// Copies of one piece in all.
const MAX_FLIGHTS_OF_PIECE: usize = 4;
/// While nothing is known of anybody's rate, a piece is repeated only after it has been under way for this long.
const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// A repeat must be expected this much earlier than the original, as a factor and in seconds.
const GAIN: (f64, f64) = (1.2, 0.05);
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
    /// Numbers (ranks in the tree) of the entries whose content it carries: of large files one, of which there may be millions.
    pub entries: SmallVec<[u64; 1]>,
    /// Of one entry only these bytes.
    pub range: Option<Range<u64>>,
}

impl Piece {
    /// Says whether a source that has `have` can deliver it.
    fn is_in(&self, have: &Have) -> bool {
        match have {
            Have::Whole => true,
            Have::None => false,
            // Of many small files some are better than none: the rest is asked of others.
            Have::Runs(_) | Have::Partly(..) => self.entries.iter().any(|number| match &self.range {
                Some(range) => have.contains_range(*number, range),
                None => have.contains(*number),
            }),
        }
    }
}

#[derive(Debug, Default)]
struct PieceState {
    done: bool,
    /// Present sources that hold only a part of the tree, this piece included.
    holders: u32,
    /// The downloader that is expected to bring it, where that is another one.
    owner: Option<SourceId>,
    /// It came from one that has everything.
    mine: bool,
}

/// Hands out the pieces of one run.
#[derive(Debug)]
pub struct Picker {
    /// This downloader's lot.
    lot: u64,
    /// Those of the others, by which each piece is somebody's own.
    lots: Vec<(SourceId, u64)>,
    /// When something last came, or somebody did who might bring it.
    fed: Option<Instant>,
    /// Bytes of the largest piece.
    largest: u64,

    pieces: Vec<Piece>,
    states: Vec<PieceState>,
    sources: Vec<SourceState>,
    left: usize,
    /// Bytes of the pieces that are not done.
    open_bytes: u64,
    /// Pieces neither done nor under way.
    free: BTreeSet<PieceId>,
    /// Who is fetching what, since when; never empty.
    under_way: BTreeMap<PieceId, Vec<(SourceId, Instant)>>,
    /// What sources said that they do not have, though they should.
    absent: BTreeSet<(PieceId, SourceId)>,
}

impl Picker {
    /// A picker over `pieces`, in the order of the tree.
    pub fn new(pieces: Vec<Piece>) -> Self {
        Self {
            lot: 0,
            lots: Vec::new(),
            fed: None,
            largest: pieces.iter().map(|piece| piece.bytes).max().unwrap_or(0),
            states: pieces.iter().map(|_| PieceState::default()).collect(),
            left: pieces.len(),
            open_bytes: pieces.iter().map(|piece| piece.bytes).sum(),
            free: (0..pieces.len()).collect(),
            pieces,
            sources: Vec::new(),
            under_way: BTreeMap::new(),
            absent: BTreeSet::new(),
        }
    }

    /// With this downloader's own lot: each has another.
    #[must_use]
    pub fn with_lot(self, lot: u64) -> Self {
        Self { lot, ..self }
    }

    /// A source joins, with its own lot as a downloader.
    pub fn join(&mut self, have: Have, lot: u64, now: Instant) -> SourceId {
        let id = self.sources.len();
        self.fed.get_or_insert(now);
        self.sources.push(SourceState::new(self.beginning(id), lot, now));
        self.update(id, have, now);
        id
    }

    /// Where a source's slice begins: at a point spread evenly by the golden ratio, so that late joiners land in the middle of the
    /// largest gap. The first one begins elsewhere in every downloader.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    fn beginning(&self, source: SourceId) -> PieceId {
        let share = (source as f64 * 0.618_033_988_749_895).fract();
        let beyond = (share * self.pieces.len() as f64) as usize;
        (crowd::first(self.lot, self.pieces.len()) + beyond) % self.pieces.len().max(1)
    }

    /// Goes on with other pieces, when all before them are done: the sources stay, with what is known of them, and owe nothing.
    pub fn begin(&mut self, pieces: Vec<Piece>, now: Instant) {
        let before = std::mem::replace(self, Self::new(pieces).with_lot(self.lot));
        self.fed = before.fed;
        for mut source in before.sources {
            source.begin(self.beginning(self.sources.len()));
            self.sources.push(source);
            self.count_holder(self.sources.len() - 1, true);
        }
        self.draw(now);
    }

    /// A source says anew what it has; what it lacked before may be there now.
    pub fn update(&mut self, source: SourceId, have: Have, now: Instant) {
        self.note_news(source, &have, now);
        self.count_holder(source, false);
        if let Some(state) = self.sources.get_mut(source) {
            (state.have, state.is_bare) = (have, false);
        }
        self.absent.retain(|(_, id)| *id != source);
        self.count_holder(source, true);
        self.draw(now);
    }

    /// Keeps [`PieceState::holders`] right when a source that has a part comes, goes or changes.
    fn count_holder(&mut self, source: SourceId, comes: bool) {
        let Some(state) = self.sources.get(source).filter(|state| !state.gone) else { return };
        if !state.have.is_partial() {
            return;
        }
        for (of, _) in self.states.iter_mut().zip(&self.pieces).filter(|(_, piece)| piece.is_in(&state.have)) {
            of.holders = if comes { of.holders + 1 } else { of.holders.saturating_sub(1) };
        }
        self.look_again();
    }

    /// A source is gone: its flights are free for others.
    pub fn leave(&mut self, source: SourceId) {
        self.count_holder(source, false);
        let Some(state) = self.sources.get_mut(source) else { return };
        state.gone = true;
        for piece in std::mem::take(&mut state.queue) {
            self.drop_flight(source, piece);
        }
        if let Some(state) = self.sources.get_mut(source) {
            state.in_flight = 0;
        }
    }

    /// The next piece for a source, marked as under way; none if its window is full or it can do nothing useful.
    pub fn next(&mut self, source: SourceId, now: Instant) -> Option<PieceId> {
        let state = self.sources.get(source)?;
        if state.gone || state.rests(now) || state.queue.len() >= MAX_FLIGHTS {
            return None;
        }
        if state.in_flight > 0 && (state.in_flight >= state.window() || self.in_flight() >= WINDOW_ALL) {
            return None;
        }
        let piece = self.fresh(source, now).or_else(|| self.steal(source, now))?;
        let bytes = self.pieces.get(piece)?.bytes;
        self.under_way.entry(piece).or_default().push((source, now));
        self.free.remove(&piece);
        let state = self.sources.get_mut(source)?;
        state.launch(piece, bytes, now);
        Some(piece)
    }

    fn in_flight(&self) -> u64 {
        self.sources.iter().map(|source| source.in_flight).sum()
    }

    /// The next free piece for a source; none is not looked for again until that may have changed.
    fn fresh(&mut self, source: SourceId, now: Instant) -> Option<PieceId> {
        let state = self.sources.get(source)?;
        let is_whole = state.have == Have::Whole;
        let is_spared = is_whole && self.others_deliver(now);
        let has_all = is_whole && !is_spared;
        if state.is_bare && !has_all {
            return None;
        }
        let found = self.rarest(source, is_spared);
        let state = self.sources.get_mut(source)?;
        match found {
            Some(piece) => state.cursor = piece + 1,
            None => state.is_bare = !has_all,
        }
        found
    }

    /// Any source may have something to do again: looking through all pieces takes long where there are millions.
    fn look_again(&mut self) {
        self.sources.iter_mut().for_each(|source| source.is_bare = false);
    }

    /// The rarest of the next free pieces from the source's own cursor on, going round at the end; of one that is spared, our own.
    fn rarest(&self, source: SourceId, is_spared: bool) -> Option<PieceId> {
        let state = self.sources.get(source)?;
        let mixed = self.sources.iter().any(|other| !other.gone && other.have.is_partial());
        let round = self.free.range(state.cursor..).chain(self.free.range(..state.cursor)).copied();
        let mut able = round.filter(|piece| self.can_deliver(source, *piece));
        if is_spared {
            able.find(|piece| self.states.get(*piece).is_some_and(PieceState::is_own))
        } else if mixed {
            let rarity = |piece: &PieceId| self.states.get(*piece).map_or(0, |state| state.holders);
            able.take(COMPARED).min_by_key(rarity)
        } else {
            able.next()
        }
    }

    fn can_deliver(&self, source: SourceId, id: PieceId) -> bool {
        let (Some(by), Some(state), Some(piece)) = (self.sources.get(source), self.states.get(id), self.pieces.get(id))
        else {
            return false;
        };
        !by.gone && !state.done && !self.absent.contains(&(id, source)) && piece.is_in(&by.have)
    }

    /// The mean pace of those present, seconds a byte.
    fn typical_pace(&self) -> Option<f64> {
        let known: Vec<f64> =
            self.sources.iter().filter(|source| !source.gone).filter_map(|source| source.pace).collect();
        if known.is_empty() { None } else { Some(known.iter().sum::<f64>() / known.len() as f64) }
    }

    /// The piece under way elsewhere that would come latest, if this source beats that. Only what stands still is repeated before
    /// the end: nobody waits for the rest.
    fn steal(&self, source: SourceId, now: Instant) -> Option<PieceId> {
        let by = self.sources.get(source)?;
        let mut best: Option<(f64, PieceId)> = None;
        for (id, flights) in &self.under_way {
            let piece = self.pieces.get(*id)?;
            let moving =
                |(other, _): &&(SourceId, Instant)| self.sources.get(*other).is_some_and(|s| !s.is_stalled(now));
            let copies = flights.iter().filter(moving).count();
            let mine = flights.iter().any(|(other, _)| *other == source);
            if mine || copies >= MAX_COPIES || flights.len() >= MAX_FLIGHTS_OF_PIECE {
                continue;
            }
            let theirs = self.expected(*id, now);
            if theirs.is_finite() && !self.free.is_empty() {
                continue;
            }
            let beats = by.finish(piece.bytes, self.typical_pace().unwrap_or(0.0), now) * GAIN.0 + GAIN.1 < theirs;
            if beats && best.is_none_or(|(latest, _)| theirs > latest) && self.can_deliver(source, *id) {
                best = Some((theirs, *id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Seconds until the first copy of a piece under way is expected.
    fn expected(&self, piece: PieceId, now: Instant) -> f64 {
        let flights = self.under_way.get(&piece).map_or(&[][..], Vec::as_slice);
        let seconds = flights.iter().filter_map(|(id, since)| {
            let holder = self.sources.get(*id)?;
            let age = now.saturating_duration_since(*since);
            if holder.is_stalled(now) {
                return None;
            }
            match holder.pace.or_else(|| self.typical_pace()) {
                Some(pace) => {
                    Some(holder.until(piece, |id| self.pieces.get(id).map_or(0, |piece| piece.bytes), pace, now))
                }
                // As long again as it has taken so far.
                None if age >= HEDGE_AFTER => Some(age.as_secs_f64()),
                None => Some(0.0),
            }
        });
        seconds.fold(f64::INFINITY, f64::min)
    }

    /// A piece arrived and was verified. True if it was the first copy: only that one counts.
    pub fn done(&mut self, source: SourceId, piece: PieceId, now: Instant) -> bool {
        let bytes = self.pieces.get(piece).map_or(0, |piece| piece.bytes);
        let flight = self.under_way.get(&piece).and_then(|flights| flights.iter().find(|(id, _)| *id == source));
        if let (Some(state), Some((_, since))) = (self.sources.get_mut(source), flight) {
            state.measure(bytes, *since, now);
        }
        let mine = self.sources.get(source).is_some_and(|source| source.have == Have::Whole);
        self.land(source, piece, now);
        match self.states.get_mut(piece) {
            Some(state) if !state.done => {
                (state.done, state.mine) = (true, mine);
                self.fed = Some(now);
                self.free.remove(&piece);
                self.left -= 1;
                self.open_bytes = self.open_bytes.saturating_sub(bytes);
                true
            }
            _ => false,
        }
    }

    /// A source does not have a piece after all.
    pub fn absent(&mut self, source: SourceId, piece: PieceId, now: Instant) {
        self.land(source, piece, now);
        self.absent.insert((piece, source));
    }

    /// Of a piece only these entries are still wanted: the others came.
    pub fn narrow(&mut self, piece: PieceId, entries: impl IntoIterator<Item = u64>) {
        let (Some(of), Some(state)) = (self.pieces.get_mut(piece), self.states.get_mut(piece)) else { return };
        of.entries = entries.into_iter().collect();
        let holds = |source: &&SourceState| !source.gone && source.have.is_partial() && of.is_in(&source.have);
        state.holders = u32::try_from(self.sources.iter().filter(holds).count()).unwrap_or(u32::MAX);
        self.look_again();
    }

    /// A source has too much to do: it is left alone for a while, longer each time.
    pub fn busy(&mut self, source: SourceId, piece: PieceId, wait: Duration, now: Instant) {
        self.land(source, piece, now);
        if let Some(state) = self.sources.get_mut(source) {
            state.rest(wait, now);
        }
    }

    /// A source sent something that does not verify. True if it is banned from now on.
    pub fn lied(&mut self, source: SourceId, piece: PieceId, now: Instant) -> bool {
        self.absent(source, piece, now);
        let Some(state) = self.sources.get_mut(source) else { return false };
        state.lies += 1;
        if state.lies >= MAX_LIES {
            self.leave(source);
            return true;
        }
        false
    }

    /// Sources that owe something and have finished nothing for too long, while another delivers all that they could: to be given
    /// up.
    pub fn laggards(&self, now: Instant) -> Vec<SourceId> {
        let delivers = self.sources.iter().any(|source| source.is_ready(now) && source.pace.is_some());
        let is_late = |id: &SourceId| self.sources.get(*id).is_some_and(|source| source.is_silent(now));
        let late = (0..self.sources.len()).filter(is_late);
        if delivers { late.filter(|id| !self.is_needed(*id, now)).collect() } else { Vec::new() }
    }

    /// True if something lacking here can be had from nobody else who moves.
    fn is_needed(&self, source: SourceId, now: Instant) -> bool {
        let is_ready = |id: &SourceId| self.sources.get(*id).is_some_and(|other| other.is_ready(now));
        let others: Vec<SourceId> = (0..self.sources.len()).filter(|id| *id != source).filter(is_ready).collect();
        let elsewhere = |piece| others.iter().any(|other| self.can_deliver(*other, piece));
        (0..self.pieces.len()).any(|piece| self.can_deliver(source, piece) && !elsewhere(piece))
    }

    /// Present sources that hold a part: by now they may have more. `idle`: those only that have nothing to do.
    pub fn parts(&self, idle: bool) -> Vec<SourceId> {
        let is_one =
            |source: &SourceState| !source.gone && source.have != Have::Whole && (!idle || source.queue.is_empty());
        (0..self.sources.len()).filter(|id| self.sources.get(*id).is_some_and(is_one)).collect()
    }

    /// True while a source asked for patience.
    pub fn awaits_busy(&self, now: Instant) -> bool {
        self.sources.iter().any(|source| !source.gone && source.rests(now))
    }

    /// An answer came: its flight ends, and the source goes on with the next of its queue.
    fn land(&mut self, source: SourceId, piece: PieceId, now: Instant) {
        let bytes = |piece: PieceId| self.pieces.get(piece).map_or(0, |piece| piece.bytes);
        if let Some(state) = self.sources.get_mut(source).filter(|state| state.queue.contains(&piece)) {
            state.land(piece, bytes, now);
            self.drop_flight(source, piece);
        }
    }

    fn drop_flight(&mut self, source: SourceId, piece: PieceId) {
        let Some(flights) = self.under_way.get_mut(&piece) else { return };
        flights.retain(|(id, _)| *id != source);
        if !flights.is_empty() {
            return;
        }
        self.under_way.remove(&piece);
        if self.states.get(piece).is_some_and(|state| !state.done) {
            self.free.insert(piece);
            self.look_again();
        }
    }

    /// Sources at work.
    pub fn active(&self) -> usize {
        self.sources.iter().filter(|source| !source.gone).count()
    }

    /// Pieces not yet done.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The pieces that nobody present can deliver.
    pub fn orphans(&self) -> Vec<PieceId> {
        let able = |piece: &PieceId| (0..self.sources.len()).any(|source| self.can_deliver(source, *piece));
        self.free.iter().copied().filter(|piece| !able(piece)).collect()
    }
}

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;
