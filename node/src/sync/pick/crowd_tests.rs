//! A crowd in simulation: newcomers that come at once to one origin and find each other a little later.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::smallvec;

use super::{Picker, Piece, PieceId, SourceId};
use crate::wire::Have;

const STEP: f64 = 0.02;
const MIB: f64 = (1 << 20) as f64;

/// One who wants everything.
struct Newcomer {
    picker: Picker,
    has: Vec<bool>,
    /// Its number for each supplier: the origin, then the newcomers.
    ids: Vec<Option<SourceId>>,
    /// What it waits for, by supplier: the piece, and the bytes still to come.
    owed: Vec<VecDeque<(PieceId, f64)>>,
    /// It went, with all that it has.
    gone: bool,
}

impl Newcomer {
    fn have(&self) -> Have {
        Have::of((0u64..).zip(&self.has).filter(|(_, has)| **has).map(|(number, _)| number))
    }
}

/// What the crowd does, and what came of it.
struct Crowd {
    count: usize,
    pieces: u64,
    /// Bytes a second of the origin and of each newcomer.
    rates: (f64, f64),
    /// When the newcomers know of each other, seconds.
    meet: f64,
    everybody: Vec<Newcomer>,
    sent: f64,
}

impl Crowd {
    fn new(count: usize, pieces: u64, rates: (f64, f64)) -> Self {
        Self { count, pieces, rates, meet: 2.5, everybody: Vec::new(), sent: 0.0 }
    }

    /// Plays it; gives the time to the limit of the origin's line, and how often the origin sent the tree.
    fn play(mut self, wants: impl Fn(usize, u64) -> bool) -> (f64, f64) {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        for number in 0..self.count {
            let lot = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let one = |entry| Piece { bytes: 1 << 20, entries: smallvec![entry], range: None };
            let mut picker = Picker::new((0..self.pieces).map(one).collect()).with_lot(lot);
            let origin = picker.join(Have::Whole, 0, start);
            for piece in (0..self.pieces).filter(|piece| !wants(number, *piece)) {
                // As if it were there already.
                picker.done(origin, usize::try_from(piece).unwrap(), start);
            }
            let mut ids = vec![None; self.count + 1];
            ids[0] = Some(origin);
            let owed = vec![VecDeque::new(); self.count + 1];
            self.everybody.push(Newcomer {
                picker,
                has: vec![false; usize::try_from(self.pieces).unwrap()],
                ids,
                owed,
                gone: false,
            });
        }
        let (mut now, mut step) = (0.0, 0);
        while self.everybody.iter().any(|one| one.picker.left() > 0) {
            assert!(now < 10_000.0, "the crowd never ends");
            if now >= self.meet {
                self.tell(step, at(now));
            }
            self.ask(at(now));
            for supplier in 0..=self.count {
                self.send(supplier, at(now));
            }
            (0..self.count).for_each(|number| self.go(number, at(now)));
            now += STEP;
            step += 1;
        }
        let size = self.pieces as f64 * MIB;
        (now / (size / self.rates.0), self.sent / size)
    }

    /// Whoever has everything goes as soon as it may.
    fn go(&mut self, number: usize, instant: Instant) {
        let Some(one) = self.everybody.get_mut(number).filter(|one| !one.gone) else { return };
        if one.picker.left() > 0 || one.picker.hands_on(instant) {
            return;
        }
        one.gone = true;
        for other in &mut self.everybody {
            other.owed[number + 1].clear();
            if let Some(id) = other.ids[number + 1] {
                other.picker.leave(id);
            }
        }
    }

    /// Once a second everybody, at a time of its own, hears what the others have by now.
    fn tell(&mut self, step: usize, instant: Instant) {
        let hears = |number: &usize| (step + 17 * number).is_multiple_of(50);
        let haves: Vec<Option<Have>> = self.everybody.iter().map(|one| (!one.gone).then(|| one.have())).collect();
        for (number, one) in self.everybody.iter_mut().enumerate().filter(|(number, _)| hears(number)) {
            for (other, have) in haves.iter().enumerate().filter(|(other, _)| *other != number) {
                let Some(have) = have.clone() else { continue };
                let lot = (other as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let id = *one.ids[other + 1].get_or_insert_with(|| one.picker.join(Have::None, lot, instant));
                one.picker.update(id, have, instant);
            }
        }
    }

    fn ask(&mut self, instant: Instant) {
        for one in &mut self.everybody {
            let mut idle = false;
            while !idle {
                idle = true;
                for (supplier, id) in one.ids.iter().enumerate() {
                    let Some(piece) = id.and_then(|id| one.picker.next(id, instant)) else { continue };
                    one.owed[supplier].push_back((piece, MIB));
                    idle = false;
                }
            }
        }
    }

    /// A supplier's line is shared alike by those that wait.
    fn send(&mut self, supplier: usize, instant: Instant) {
        let waiting = self.everybody.iter().filter(|one| !one.owed[supplier].is_empty()).count();
        let rate = if supplier == 0 { self.rates.0 } else { self.rates.1 };
        let share = rate * STEP / waiting.max(1) as f64;
        for one in &mut self.everybody {
            let mut room = share;
            while let Some((piece, rest)) = one.owed[supplier].front_mut().filter(|_| room > 0.0) {
                let (piece, part) = (*piece, rest.min(room));
                *rest -= part;
                room -= part;
                self.sent += if supplier == 0 { part } else { 0.0 };
                if *rest > 0.0 {
                    break;
                }
                one.owed[supplier].pop_front();
                if let Some(id) = one.ids[supplier] {
                    one.picker.done(id, piece, instant);
                    one.has[piece] = true;
                }
            }
        }
    }
}

fn megabits(rate: f64) -> f64 {
    rate * 1e6 / 8.0
}

#[test]
fn a_crowd_spares_the_origin_and_is_as_fast_as_its_line() {
    for (count, pieces) in [(2, 64), (8, 128), (32, 128)] {
        let crowd = Crowd::new(count, pieces, (megabits(40.0), megabits(400.0)));
        let (time, sent) = crowd.play(|_, _| true);
        println!("{count} at once, {pieces} MiB: {time:.3} of the limit, the origin sent {sent:.3}");
        assert!(time < 1.1 && sent < 1.1, "{count} at once, {pieces} MiB: {time:.3}, {sent:.3}");
    }
}

#[test]
fn slow_lines_between_newcomers_hold_nobody_up() {
    let crowd = Crowd::new(2, 128, (megabits(40.0), megabits(1.0)));
    let (time, sent) = crowd.play(|_, _| true);
    assert!(time < 2.1 && sent > 1.8, "as if they were alone: {time:.3}, {sent:.3}");
}

#[test]
fn what_another_does_not_want_is_not_waited_for_long() {
    let crowd = Crowd::new(2, 128, (megabits(40.0), megabits(400.0)));
    // One wants the first half only.
    let (time, _) = crowd.play(|number, piece| number == 0 || piece < 64);
    assert!(time < 1.35, "{time:.3}");
}

/// A picker over so many pieces, with an origin and one more that holds these, at the beginning.
fn with_a_part(pieces: u64, runs: &[(u64, u64)], start: Instant) -> (Picker, SourceId, SourceId) {
    let one = |entry| Piece { bytes: 1 << 20, entries: smallvec![entry], range: None };
    let mut picker = Picker::new((0..pieces).map(one).collect()).with_lot(u64::MAX / 2);
    let origin = picker.join(Have::Whole, 0, start);
    let part = picker.join(Have::Runs(runs.to_vec()), 1, start);
    (picker, origin, part)
}

#[test]
fn a_part_that_does_not_grow_spares_the_origin_nothing() {
    let start = Instant::now();
    let (mut picker, origin, part) = with_a_part(64, &[(0, 64)], start);
    assert_eq!(picker.next(origin, start), None, "for all that is known it is a downloader");
    for second in 1..=6 {
        let now = start + Duration::from_secs(second);
        let piece = picker.next(part, now).unwrap();
        picker.done(part, piece, now + Duration::from_millis(100));
        picker.update(part, Have::Runs(vec![(0, 64)]), now);
    }
    assert!(picker.next(origin, start + Duration::from_secs(6)).is_some());
}

#[test]
fn whoever_brought_the_last_piece_stays_until_a_downloader_has_it() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let (mut picker, origin, part) = with_a_part(8, &[(0, 4)], start);
    let bring = |picker: &mut Picker, from| {
        for piece in 0..8 {
            picker.done(from, piece, at(100));
        }
    };
    bring(&mut picker, origin);
    assert!(!picker.hands_on(at(100)), "who holds a part that never grew may want no more");
    picker.update(part, Have::Runs(vec![(0, 6)]), at(200));
    assert!(picker.hands_on(at(200)));
    assert!(!picker.hands_on(at(5100)), "for some time only");
    picker.update(part, Have::Runs(vec![(0, 8)]), at(300));
    assert!(!picker.hands_on(at(300)), "it has all");

    let (mut picker, _, part) = with_a_part(8, &[(0, 4)], start);
    picker.update(part, Have::Runs(vec![(0, 6)]), at(50));
    bring(&mut picker, part);
    assert!(!picker.hands_on(at(100)), "what came from another was not brought here");
}

#[test]
fn a_source_that_alone_has_something_is_waited_for() {
    let start = Instant::now();
    let (mut picker, origin, part) = with_a_part(8, &[(0, 4)], start);
    let owed = picker.next(origin, start).unwrap();
    let late = start + Duration::from_secs(11);
    let piece = picker.next(part, late).unwrap();
    picker.done(part, piece, late);
    assert!(picker.laggards(late).is_empty(), "{owed} and others can be had from nobody else");
    picker.join(Have::Whole, 0, late);
    assert_eq!(picker.laggards(late), [origin]);
}

#[test]
fn one_who_brought_little_does_not_speak_for_all() {
    let start = Instant::now();
    let (mut picker, origin, part) = with_a_part(64, &[(0, 1)], start);
    let own = picker.next(origin, start).unwrap();
    picker.done(origin, own, start + Duration::from_secs(1));
    let other = picker.join(Have::Runs(vec![(0, 1)]), 2, start + Duration::from_secs(1));
    for second in 1..=6 {
        let now = start + Duration::from_secs(second);
        // All that one has by now the other was seen to have before.
        for (from, count) in [(other, 5 * second), (part, 5 * second - 1)] {
            picker.update(from, Have::Runs(vec![(0, count)]), now);
        }
        let piece = picker.next(part, now).unwrap();
        picker.done(part, piece, now + Duration::from_millis(10));
    }
    assert!(picker.others_deliver(start + Duration::from_millis(6500)), "the other is too new to be judged alone");
}

#[test]
fn whoever_only_says_that_it_has_something_holds_nobody_up_for_long() {
    let start = Instant::now();
    let (mut picker, origin, liar) = with_a_part(64, &[(0, 58)], start);
    for second in 1..=6 {
        let now = start + Duration::from_secs(second);
        picker.update(liar, Have::Runs(vec![(0, 58 + second)]), now);
        while let Some(piece) = picker.next(liar, now) {
            picker.absent(liar, piece, now);
        }
    }
    assert!(picker.next(origin, start + Duration::from_secs(6)).is_some());
}

#[test]
fn what_a_downloader_leaves_behind_is_our_own_again() {
    let start = Instant::now();
    let (mut picker, origin, part) = with_a_part(64, &[], start);
    let other = picker.join(Have::Runs(Vec::new()), 2, start);
    picker.update(other, Have::Runs(Vec::new()), start);
    let mut ours = 0;
    while let Some(piece) = picker.next(origin, start) {
        picker.done(origin, piece, start);
        ours += 1;
    }
    assert!(ours > 0 && ours < 64, "{ours} of 64");
    assert_eq!(picker.next(origin, start), None, "the rest is that of the two others");
    picker.leave(part);
    picker.update(other, Have::Runs(Vec::new()), start);
    assert!(picker.next(origin, start).is_some());
}
