//! The picker alone, with sources that exist only as rates: time is passed in.

use std::time::{Duration, Instant};

use super::{Picker, Piece, PieceId, SourceId};
use crate::wire::Have;

const MIB: u64 = 1 << 20;

fn pieces(count: u64) -> Vec<Piece> {
    (0..count).map(|number| Piece { bytes: MIB, entries: vec![number] }).collect()
}

/// One simulated source: bytes per second, when it dies, and when it comes.
#[derive(Clone)]
struct Line {
    have: Have,
    rate: f64,
    dies: Option<f64>,
}

fn line(mib_per_second: f64) -> Line {
    Line { have: Have::Whole, rate: mib_per_second * MIB as f64, dies: None }
}

/// What a simulated run came to.
struct Outcome {
    seconds: f64,
    /// Pieces delivered first, per source.
    share: Vec<usize>,
    /// Pieces asked for, repeats included.
    requests: usize,
}

/// Plays a run in steps of 10 ms: every line delivers its pieces in order at its rate.
fn play(lines: &[Line], count: u64) -> Outcome {
    let start = Instant::now();
    let mut picker = Picker::new(pieces(count));
    let ids: Vec<SourceId> = lines.iter().map(|line| picker.join(line.have.clone())).collect();
    let mut queues: Vec<Vec<(PieceId, f64)>> = vec![Vec::new(); lines.len()];
    let mut outcome = Outcome { seconds: 0.0, share: vec![0; lines.len()], requests: 0 };
    let step = 0.01;
    while picker.left() > 0 {
        assert!(outcome.seconds < 3600.0, "the run never ends");
        let now = start + Duration::from_secs_f64(outcome.seconds);
        for (at, id) in ids.iter().enumerate() {
            while let Some(piece) = picker.next(*id, now) {
                queues[at].push((piece, MIB as f64));
                outcome.requests += 1;
            }
        }
        outcome.seconds += step;
        let now = start + Duration::from_secs_f64(outcome.seconds);
        for (at, line) in lines.iter().enumerate() {
            if line.dies.is_some_and(|dies| outcome.seconds >= dies) {
                picker.leave(ids[at]);
                queues[at].clear();
                continue;
            }
            deliver(&mut picker, ids[at], &mut queues[at], line.rate * step, now, &mut outcome.share[at]);
        }
    }
    outcome
}

fn deliver(
    picker: &mut Picker,
    id: SourceId,
    queue: &mut Vec<(PieceId, f64)>,
    mut bytes: f64,
    now: Instant,
    share: &mut usize,
) {
    while bytes > 0.0 && !queue.is_empty() {
        let part = queue[0].1.min(bytes);
        queue[0].1 -= part;
        bytes -= part;
        if queue[0].1 <= 0.0 {
            let (piece, _) = queue.remove(0);
            *share += usize::from(picker.done(id, piece, now));
        }
    }
}

#[test]
fn equal_sources_share_the_work() {
    let outcome = play(&[line(5.0), line(5.0)], 200);
    for share in &outcome.share {
        assert!(*share >= 80, "shares {:?}", outcome.share);
    }
    assert!(outcome.seconds < 20.0 * 1.1, "{} s for 20 s of line", outcome.seconds);
}

#[test]
fn unequal_sources_are_all_used_to_the_end() {
    let outcome = play(&[line(40.0), line(20.0), line(10.0), line(5.0)], 1500);
    assert!(outcome.seconds < 20.0 * 1.1, "{} s for 20 s of lines", outcome.seconds);
    assert!(outcome.requests < 1500 + 75, "{} requests for 1500 pieces", outcome.requests);
}

#[test]
fn death_frees_what_was_under_way() {
    let outcome = play(&[line(10.0), Line { dies: Some(2.0), ..line(10.0) }], 200);
    assert!(outcome.seconds < 18.0 * 1.15, "{} s", outcome.seconds);
    assert_eq!(outcome.share.iter().sum::<usize>(), 200);
}

#[test]
fn a_silent_source_does_not_hold_the_end() {
    let outcome = play(&[line(10.0), line(0.000_001)], 100);
    assert!(outcome.seconds < 14.0, "{} s", outcome.seconds);
}

#[test]
fn partial_sources_are_asked_only_for_what_they_have() {
    let mut picker = Picker::new(pieces(10));
    let left = picker.join(Have::Runs(vec![(0, 5)]));
    let none = picker.join(Have::None);
    let now = Instant::now();
    let mut got = Vec::new();
    while let Some(piece) = picker.next(left, now) {
        got.push(piece);
        picker.done(left, piece, now + Duration::from_millis(1));
    }
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3, 4]);
    assert_eq!(picker.next(none, now), None);
    assert!(picker.is_stuck());
    assert_eq!(picker.orphans(), [5, 6, 7, 8, 9]);
    picker.update(none, Have::Runs(vec![(5, 5)]));
    assert!(!picker.is_stuck());
    assert!(picker.next(none, now).is_some_and(|piece| piece >= 5));
}

#[test]
fn a_liar_is_asked_once() {
    let mut picker = Picker::new(pieces(4));
    let liar = picker.join(Have::Whole);
    let honest = picker.join(Have::Whole);
    let now = Instant::now();
    let piece = picker.next(liar, now).unwrap();
    assert!(picker.lied(liar, piece));
    assert_eq!(picker.next(liar, now), None);
    let mut done = 0;
    while let Some(piece) = picker.next(honest, now) {
        done += usize::from(picker.done(honest, piece, now + Duration::from_millis(1)));
    }
    assert_eq!(done, 4);
    assert_eq!(picker.left(), 0);
}

#[test]
fn only_the_first_copy_counts() {
    let mut picker = Picker::new(pieces(1));
    let (slow, fast) = (picker.join(Have::Whole), picker.join(Have::Whole));
    let now = Instant::now();
    let piece = picker.next(slow, now).unwrap();
    assert_eq!(picker.next(fast, now), None, "no repeat before its time");
    let later = now + Duration::from_secs(1);
    assert_eq!(picker.next(fast, later), Some(piece));
    assert!(picker.done(fast, piece, later));
    assert!(!picker.done(slow, piece, later));
    assert_eq!(picker.left(), 0);
}

#[test]
fn what_a_source_lacks_is_asked_elsewhere() {
    let mut picker = Picker::new(pieces(1));
    let (poor, rich) = (picker.join(Have::Whole), picker.join(Have::Whole));
    let now = Instant::now();
    let piece = picker.next(poor, now).unwrap();
    picker.absent(poor, piece);
    assert_eq!(picker.next(poor, now), None);
    assert_eq!(picker.next(rich, now), Some(piece));
}
