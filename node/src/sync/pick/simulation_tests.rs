//! A simulated download: sources with rates and round trips, faults at set times, everything drawn from a seed. Says how long
//! it took in relation to what the lines allow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::smallvec;

use super::{Picker, Piece, PieceId, SourceId};
use crate::wire::Have;

const MIB: f64 = (1 << 20) as f64;
/// One step of the simulated clock, seconds.
const STEP: f64 = 0.005;
/// Silence after which the stream's own deadline ends it, seconds.
const DEADLINE: f64 = 10.0;

/// What happens to a source.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Sound,
    /// Its connection is reset at this time.
    Dies(f64),
    /// It sends nothing more from this time on.
    FallsSilent(f64),
    /// It comes at this time.
    Joins(f64),
    /// What it sends does not verify.
    Lies,
    /// It says "busy" to everything until this time.
    Busy(f64),
}

#[derive(Clone)]
struct Line {
    /// Bytes a second.
    rate: f64,
    /// Seconds there and back.
    round_trip: f64,
    fate: Fate,
}

fn line(megabits: f64) -> Line {
    Line { rate: megabits * 1e6 / 8.0, round_trip: 0.04, fate: Fate::Sound }
}

fn fated(megabits: f64, fate: Fate) -> Line {
    Line { fate, ..line(megabits) }
}

/// A line in the simulation: requests arrive after half a round trip, bytes after the other half.
struct Wire {
    line: Line,
    id: Option<SourceId>,
    queue: VecDeque<(PieceId, f64, f64)>,
    arriving: VecDeque<(PieceId, f64)>,
    heard: f64,
    gone: bool,
}

struct Outcome {
    seconds: f64,
    requests: usize,
}

fn play(lines: &[Line], sizes: &[u64]) -> Outcome {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let pieces =
        (0..).zip(sizes).map(|(number, bytes)| Piece { bytes: *bytes, entries: smallvec![number], range: None });
    let mut picker = Picker::new(pieces.collect());
    let wire = |line: &Line| Wire {
        line: line.clone(),
        id: None,
        queue: VecDeque::new(),
        arriving: VecDeque::new(),
        heard: 0.0,
        gone: false,
    };
    let mut wires: Vec<Wire> = lines.iter().map(wire).collect();
    let (mut now, mut requests) = (0.0, 0);
    while picker.left() > 0 {
        assert!(now < 10_000.0, "the run never ends");
        for wire in &mut wires {
            wire.step(&mut picker, now, at(now));
        }
        for late in picker.laggards(at(now)) {
            picker.leave(late);
            wires.iter_mut().filter(|wire| wire.id == Some(late)).for_each(|wire| wire.gone = true);
        }
        loop {
            let mut idle = true;
            for wire in wires.iter_mut().filter(|wire| !wire.gone) {
                let Some(id) = wire.id else { continue };
                let Some(piece) = picker.next(id, at(now)) else { continue };
                if wire.queue.is_empty() && wire.arriving.is_empty() {
                    wire.heard = now;
                }
                wire.queue.push_back((piece, sizes[piece] as f64, now + wire.line.round_trip / 2.0));
                requests += 1;
                idle = false;
            }
            if idle {
                break;
            }
        }
        now += STEP;
    }
    Outcome { seconds: now, requests }
}

impl Wire {
    fn step(&mut self, picker: &mut Picker, now: f64, instant: Instant) {
        let came = !matches!(self.line.fate, Fate::Joins(when) if now < when);
        if self.id.is_none() && came {
            self.id = Some(picker.join(Have::Whole, 1, instant));
        }
        let Some(id) = self.id.filter(|_| !self.gone) else { return };
        let owes = !(self.queue.is_empty() && self.arriving.is_empty());
        let reset = matches!(self.line.fate, Fate::Dies(when) if now >= when);
        if reset || owes && now - self.heard > DEADLINE {
            self.gone = true;
            picker.leave(id);
            return;
        }
        if matches!(self.line.fate, Fate::FallsSilent(when) if now >= when) {
            return;
        }
        self.send(now);
        while self.arriving.front().is_some_and(|(_, when)| *when <= now) {
            let Some((piece, _)) = self.arriving.pop_front() else { break };
            self.heard = now;
            match self.line.fate {
                Fate::Lies => {
                    self.gone = picker.lied(id, piece, instant);
                    return;
                }
                Fate::Busy(until) if now < until => picker.busy(id, piece, Duration::from_secs(1), instant),
                _ => drop(picker.done(id, piece, instant)),
            }
        }
    }

    /// Bytes leave in the order of the requests, at the line's rate.
    fn send(&mut self, now: f64) {
        let mut room = self.line.rate * STEP;
        while let Some((piece, rest, when)) = self.queue.front_mut() {
            if *when > now || room <= 0.0 {
                return;
            }
            let refused = matches!(self.line.fate, Fate::Busy(until) if now < until);
            let part = if refused { *rest } else { rest.min(room) };
            *rest -= part;
            room -= if refused { 0.0 } else { part };
            self.heard = now;
            if *rest <= 0.0 {
                self.arriving.push_back((*piece, now + self.line.round_trip / 2.0));
                self.queue.pop_front();
            }
        }
    }
}

/// Seconds that these lines need at best: the bytes that each can send while it is sound.
fn limit(lines: &[Line], bytes: f64) -> f64 {
    let sent = |seconds: f64| -> f64 {
        let by = |line: &Line| {
            let time = match line.fate {
                Fate::Sound => seconds,
                Fate::Dies(when) | Fate::FallsSilent(when) => seconds.min(when),
                Fate::Joins(when) | Fate::Busy(when) => (seconds - when).max(0.0),
                Fate::Lies => 0.0,
            };
            time * line.rate
        };
        lines.iter().map(by).sum()
    };
    let (mut low, mut high) = (0.0, 10_000.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if sent(middle) < bytes { low = middle } else { high = middle }
    }
    high
}

/// Half of a gibibyte, in requests of 1 MiB.
fn half_a_gib() -> Vec<u64> {
    vec![1 << 20; 512]
}

/// Plays it, and checks the time in relation to the limit.
fn within(factor: f64, lines: &[Line]) {
    let sizes = half_a_gib();
    let outcome = play(lines, &sizes);
    let limit = limit(lines, 512.0 * MIB);
    let ratio = outcome.seconds / limit;
    println!("{:.1} s, limit {limit:.1} s: {ratio:.3}; {} requests", outcome.seconds, outcome.requests);
    assert!(ratio <= factor, "{ratio:.3} of the limit, {factor} is allowed");
}

#[test]
fn four_equal_mirrors() {
    within(1.03, &[line(40.0), line(40.0), line(40.0), line(40.0)]);
}

#[test]
fn unequal_mirrors() {
    within(1.04, &[line(40.0), line(20.0), line(10.0), line(5.0)]);
    within(1.04, &[line(5.0), line(10.0), line(20.0), line(40.0)]);
}

#[test]
fn a_far_and_a_near_mirror() {
    within(1.04, &[Line { round_trip: 0.3, ..line(40.0) }, Line { round_trip: 0.002, ..line(40.0) }]);
}

#[test]
fn one_mirror_killed() {
    within(1.03, &[line(40.0), line(40.0), line(40.0), fated(40.0, Fate::Dies(8.0))]);
}

#[test]
fn one_mirror_cut_in_silence() {
    within(1.03, &[line(40.0), line(40.0), line(40.0), fated(40.0, Fate::FallsSilent(8.0))]);
    // So late that its deadline would come after the end.
    within(1.03, &[line(40.0), line(40.0), line(40.0), fated(40.0, Fate::FallsSilent(24.0))]);
}

#[test]
fn one_liar() {
    within(1.05, &[fated(40.0, Fate::Lies), line(40.0), line(40.0), line(40.0)]);
}

#[test]
fn a_late_comer_takes_its_part() {
    within(1.03, &[line(40.0), fated(80.0, Fate::Joins(10.0))]);
}

#[test]
fn a_busy_mirror_is_asked_again_later() {
    within(1.05, &[line(40.0), fated(40.0, Fate::Busy(5.0))]);
}

#[test]
fn one_source_alone() {
    within(1.03, &[line(40.0)]);
    within(1.03, &[line(1.0)]);
}

/// A small generator of our own, so that a seed says everything.
struct Seed(u64);

impl Seed {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[test]
fn any_mix_of_sources_and_faults_ends_in_time() {
    let mut worst = (0.0, 0);
    for seed in 1..=60 {
        let mut random = Seed(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let mut lines = vec![line(40.0)];
        for _ in 0..1 + random.next(5) {
            let when = random.next(200) as f64 / 10.0;
            let fate = match random.next(7) {
                0 => Fate::Dies(when),
                1 => Fate::FallsSilent(when),
                2 => Fate::Joins(when),
                3 => Fate::Lies,
                4 => Fate::Busy(when.min(3.0)),
                _ => Fate::Sound,
            };
            let round_trip = random.next(200) as f64 / 1000.0;
            lines.push(Line { rate: (1 + random.next(80)) as f64 * 125_000.0, round_trip, fate });
        }
        let sizes: Vec<u64> = (0..400).map(|_| 1 + random.next(1 << 20)).collect();
        let bytes = sizes.iter().sum::<u64>() as f64;
        let outcome = play(&lines, &sizes);
        let ratio = outcome.seconds / limit(&lines, bytes);
        if ratio > worst.0 {
            worst = (ratio, seed);
        }
        assert!(outcome.requests < 2 * sizes.len(), "seed {seed}: {} requests", outcome.requests);
    }
    println!("worst: {:.3} of the limit, seed {}", worst.0, worst.1);
    assert!(worst.0 < 1.15, "seed {} takes {:.3} of the limit", worst.1, worst.0);
}
