//! What is known of one source: how fast it is, what it owes, and whether it still moves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PieceId;
use crate::wire::Have;

/// Bytes in flight that a source gets before its rate is known: one request, for whoever else begins now asks for as much.
const WINDOW_START: u64 = 1 << 20;
/// Fewest bytes in flight: one full request and the next one.
const WINDOW_MIN: u64 = 2 << 20;
/// Most bytes in flight for one source.
const WINDOW_MAX: u64 = 16 << 20;
/// How much of a source's rate its window covers, beyond the round trip.
const WINDOW_SPAN: Duration = Duration::from_secs(2);
/// Weight of the newest piece in the pace.
const NEWEST: f64 = 0.2;
/// A source stands still when it takes this many times what was expected, and this much longer.
const STALLED: (f64, Duration) = (3.0, Duration::from_secs(1));
/// A source that finishes nothing for this long is given up, if others do.
const SILENCE: Duration = Duration::from_secs(10);
/// First and longest rest of a source that says it is busy.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) have: Have,
    /// Its lot as a downloader.
    pub(super) lot: u64,
    /// When it last did its part as a downloader, or had none to do.
    pub(super) brought_at: Instant,
    /// When the part of the tree that it holds was last seen to have grown.
    pub(super) grown: Option<Instant>,
    /// It does not do its part: what would be its own is brought by the others, from now on.
    pub(super) shirks: bool,
    /// When it came.
    pub(super) came: Instant,
    /// Bytes that it had first of all, as far as they were lacking here.
    pub(super) brought: u64,
    /// It has none of the free pieces; one that has everything, none that it is to be asked for while it is spared.
    pub(super) is_bare: bool,
    /// Where its search for the next piece begins.
    pub(super) cursor: PieceId,
    /// What it owes, in the order of the requests.
    pub(super) queue: VecDeque<PieceId>,
    /// Bytes of that.
    pub(super) in_flight: u64,
    /// Seconds a byte, smoothed; none before the first answer.
    pub(super) pace: Option<f64>,
    /// The shortest time from a request to its answer.
    latency: Option<Duration>,
    /// When it began with what it delivers next: its last answer, or the request that found it idle.
    since: Option<Instant>,
    /// Bytes of the piece it delivers next.
    head: u64,
    rests_until: Option<Instant>,
    rests: u32,
    pub(super) lies: u32,
    pub(super) gone: bool,
}

impl SourceState {
    pub(super) fn new(cursor: PieceId, lot: u64, now: Instant) -> Self {
        Self {
            have: Have::None,
            lot,
            brought_at: now,
            grown: None,
            shirks: false,
            came: now,
            brought: 0,
            is_bare: false,
            cursor,
            queue: VecDeque::new(),
            in_flight: 0,
            pace: None,
            latency: None,
            since: None,
            head: 0,
            rests_until: None,
            rests: 0,
            lies: 0,
            gone: false,
        }
    }

    /// Rate times (round trip + a few seconds), within bounds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just before")]
    pub(super) fn window(&self) -> u64 {
        let Some(pace) = self.pace else { return WINDOW_START };
        let span = (WINDOW_SPAN + self.latency.unwrap_or_default()).as_secs_f64();
        (span / pace.max(f64::MIN_POSITIVE)).clamp(WINDOW_MIN as f64, WINDOW_MAX as f64) as u64
    }

    pub(super) fn launch(&mut self, piece: PieceId, bytes: u64, now: Instant) {
        if self.queue.is_empty() {
            (self.since, self.head) = (Some(now), bytes);
        }
        self.queue.push_back(piece);
        self.in_flight += bytes;
    }

    /// Owes nothing, and begins to look for pieces at `cursor`.
    pub(super) fn begin(&mut self, cursor: PieceId) {
        (self.cursor, self.in_flight, self.head, self.since, self.is_bare) = (cursor, 0, 0, None, false);
        self.queue.clear();
    }

    /// An answer came, whatever it was; `bytes` gives the size of a piece.
    pub(super) fn land(&mut self, piece: PieceId, bytes: impl Fn(PieceId) -> u64, now: Instant) {
        self.queue.retain(|other| *other != piece);
        self.in_flight = self.in_flight.saturating_sub(bytes(piece));
        (self.since, self.head) = (Some(now), self.queue.front().map_or(0, |next| bytes(*next)));
    }

    /// A piece came that was asked for at `asked`: answers come in order, so it took the time since the one before.
    pub(super) fn measure(&mut self, bytes: u64, asked: Instant, now: Instant) {
        let began = self.since.map_or(asked, |since| since.max(asked));
        let seconds = now.saturating_duration_since(began).as_secs_f64();
        let sample = (seconds / bytes.max(1) as f64).max(1e-12);
        self.pace = Some(self.pace.map_or(sample, |pace| pace + NEWEST * (sample - pace)));
        let latency = now.saturating_duration_since(asked);
        self.latency = Some(self.latency.map_or(latency, |known| known.min(latency)));
        self.rests = 0;
    }

    pub(super) fn pace_or(&self, typical: f64) -> f64 {
        self.pace.unwrap_or(typical).max(1e-12)
    }

    /// Seconds until a further piece of `bytes` would be here.
    pub(super) fn finish(&self, bytes: u64, typical: f64, now: Instant) -> f64 {
        let pace = self.pace_or(typical);
        self.ahead(self.in_flight, pace, now) + bytes as f64 * pace
    }

    /// Seconds for `bytes` of its queue, less what has passed already.
    fn ahead(&self, bytes: u64, pace: f64, now: Instant) -> f64 {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let under_way = if bytes == 0 { 0.0 } else { passed.as_secs_f64().min(self.head as f64 * pace) };
        (bytes as f64 * pace - under_way).max(0.0)
    }

    /// Seconds until a piece of its queue is expected.
    pub(super) fn until(&self, piece: PieceId, bytes: impl Fn(PieceId) -> u64, pace: f64, now: Instant) -> f64 {
        let before: u64 = self.queue.iter().take_while(|other| **other != piece).map(|other| bytes(*other)).sum();
        self.ahead(before + bytes(piece), pace, now)
    }

    /// Seconds since it began with what it delivers next; none while it owes nothing.
    pub(super) fn owes_for(&self, now: Instant) -> Option<Duration> {
        if self.queue.is_empty() { None } else { self.since.map(|since| now.saturating_duration_since(since)) }
    }

    /// It owes something, and much later than was to be expected.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let expected = self.pace.map_or(1.0, |pace| pace * self.head as f64);
        let limit = STALLED.1.as_secs_f64() + STALLED.0 * expected;
        self.gone || self.owes_for(now).is_some_and(|owed| owed.as_secs_f64() > limit)
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        !self.gone && self.owes_for(now).is_some_and(|owed| owed >= SILENCE)
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Present, moving and willing.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        !self.gone && !self.rests(now) && !self.is_stalled(now)
    }

    /// Rests for as long as it asked, or longer if that has not helped.
    pub(super) fn rest(&mut self, wait: Duration, now: Instant) {
        // One refusal settles all that were sent with it.
        if self.rests(now) {
            return;
        }
        let own = REST.0 * 2u32.saturating_pow(self.rests.min(16));
        self.rests += 1;
        self.rests_until = Some(now + wait.max(own).min(REST.1));
    }
}
