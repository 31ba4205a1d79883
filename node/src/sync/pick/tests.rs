//! The picker alone, one promise each: time is passed in.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use smallvec::smallvec;

use super::{Picker, Piece};
use crate::wire::Have;

const MIB: u64 = 1 << 20;

fn pieces(count: u64) -> Vec<Piece> {
    (0..count).map(|number| Piece { bytes: MIB, entries: smallvec![number], range: None }).collect()
}

#[test]
fn partial_sources_are_asked_only_for_what_they_have() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(10));
    let left = picker.join(Have::Runs(vec![(0, 5)]), 1, now);
    let none = picker.join(Have::None, 1, now);
    let mut got = Vec::new();
    while let Some(piece) = picker.next(left, now) {
        got.push(piece);
        picker.done(left, piece, now + Duration::from_millis(1));
    }
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3, 4]);
    assert_eq!(picker.next(none, now), None);
    assert_eq!(picker.orphans(), [5, 6, 7, 8, 9]);
    picker.update(none, Have::Runs(vec![(5, 5)]), now);
    assert!(picker.orphans().is_empty());
    assert!(picker.next(none, now).is_some_and(|piece| piece >= 5));
}

#[test]
fn a_liar_is_asked_once() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(4));
    let liar = picker.join(Have::Whole, 1, now);
    let honest = picker.join(Have::Whole, 1, now);
    let piece = picker.next(liar, now).unwrap();
    assert!(picker.lied(liar, piece, now));
    assert_eq!(picker.next(liar, now), None);
    let mut done = 0;
    while let Some(piece) = picker.next(honest, now) {
        done += usize::from(picker.done(honest, piece, now + Duration::from_millis(1)));
    }
    assert_eq!(done, 4);
    assert_eq!(picker.left(), 0);
}

#[test]
fn the_next_round_knows_its_sources_and_nobody_owes_anything() {
    let now = Instant::now();
    let later = now + Duration::from_millis(100);
    let mut picker = Picker::new(pieces(4));
    let (liar, honest) = (picker.join(Have::Whole, 1, now), picker.join(Have::Whole, 1, now));
    let part = picker.join(Have::Runs(vec![(4, 2)]), 1, now);
    let lie = picker.next(liar, now).unwrap();
    picker.lied(liar, lie, now);
    assert!(
        picker.next(honest, now).is_some() && picker.next(honest, now).is_none(),
        "one while its rate is not known"
    );
    (0..4).for_each(|piece| assert!(picker.done(honest, piece, later)));
    picker.begin(pieces(8).split_off(4), later);
    assert_eq!((picker.left(), picker.next(liar, later)), (4, None));
    let theirs: Vec<_> = std::iter::from_fn(|| picker.next(part, later)).collect();
    assert!(theirs == [0] || theirs == [1], "what it has, one to begin with: {theirs:?}");
    picker.leave(part);
    assert_eq!(std::iter::from_fn(|| picker.next(honest, later)).count(), 4, "its rate is known");
}

#[test]
fn only_the_first_copy_counts() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(1));
    let (slow, fast) = (picker.join(Have::Whole, 1, now), picker.join(Have::Whole, 1, now));
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
    let now = Instant::now();
    let mut picker = Picker::new(pieces(1));
    let (poor, rich) = (picker.join(Have::Whole, 1, now), picker.join(Have::Whole, 1, now));
    let piece = picker.next(poor, now).unwrap();
    picker.absent(poor, piece, now);
    assert_eq!(picker.next(poor, now), None);
    assert_eq!(picker.next(rich, now), Some(piece));
}

#[test]
fn rare_pieces_go_first() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(10));
    let whole = picker.join(Have::Whole, 1, now);
    picker.join(Have::Runs(vec![(0, 6)]), 1, now);
    let first = picker.next(whole, now).unwrap();
    assert!(first >= 6, "{first} is also held by another");
    picker.leave(1);
    assert_eq!(picker.states.iter().map(|state| state.holders).sum::<u32>(), 0);
}

#[test]
fn a_busy_source_rests_and_comes_back() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(4));
    let source = picker.join(Have::Whole, 1, now);
    let known = picker.next(source, now).unwrap();
    assert_eq!(picker.next(source, now), None, "one request while nothing is known of its rate");
    picker.done(source, known, now + Duration::from_millis(1));
    let (first, second) = (picker.next(source, now).unwrap(), picker.next(source, now).unwrap());
    picker.busy(source, first, Duration::from_secs(3), now);
    picker.busy(source, second, Duration::from_secs(3), now);
    assert_eq!(picker.next(source, now + Duration::from_millis(2999)), None);
    assert!(picker.awaits_busy(now));
    let later = now + Duration::from_secs(3);
    assert!(!picker.awaits_busy(later));
    assert!(picker.next(source, later).is_some(), "what was refused is not taken as absent");
}

#[test]
fn a_source_that_crawls_is_given_up_only_if_another_delivers() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(100));
    let (slow, fast) = (picker.join(Have::Whole, 1, now), picker.join(Have::Whole, 1, now));
    picker.next(slow, now).unwrap();
    let late = now + Duration::from_secs(11);
    assert!(picker.laggards(late).is_empty(), "nobody else delivers");
    let piece = picker.next(fast, late).unwrap();
    picker.done(fast, piece, late + Duration::from_millis(10));
    assert_eq!(picker.laggards(late + Duration::from_millis(10)), [slow]);
}

#[test]
fn what_comes_slowly_is_repeated_only_at_the_end() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut picker = Picker::new(pieces(4));
    let slow = picker.join(Have::Runs(vec![(0, 2)]), 1, start);
    let fast = picker.join(Have::Runs(vec![(1, 2)]), 2, start);
    assert_eq!(picker.next(slow, start), Some(0));
    picker.done(slow, 0, at(2000));
    assert_eq!(picker.next(slow, at(2000)), Some(1));
    assert_eq!(picker.next(fast, at(2000)), Some(2));
    picker.done(fast, 2, at(2010));
    assert_eq!(picker.next(fast, at(2100)), None, "the last piece is not even under way");
    assert_eq!(picker.next(fast, at(20_000)), Some(1), "it stands still");
    picker.leave(fast);
    let last = picker.join(Have::Runs(vec![(1, 1), (3, 1)]), 2, at(2100));
    assert_eq!(picker.next(last, at(2100)), Some(3));
    picker.done(last, 3, at(2110));
    assert_eq!(picker.next(last, at(2200)), Some(1));
}

#[test]
fn what_another_lets_go_of_is_looked_for_again() {
    let now = Instant::now();
    let mut picker = Picker::new(pieces(2));
    let (first, second) =
        (picker.join(Have::Runs(vec![(0, 1)]), 1, now), picker.join(Have::Runs(vec![(0, 1)]), 2, now));
    assert_eq!(picker.next(first, now), Some(0));
    assert_eq!(picker.next(second, now), None);
    picker.leave(first);
    assert_eq!(picker.next(second, now), Some(0));
}

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Step {
    Join(u8, u8),
    Next(u8),
    Done(u8),
    Absent(u8),
    Busy(u8),
    Lie(u8),
    Leave(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, count)| Step::Join(from, count)),
        12 => any::<u8>().prop_map(Step::Next),
        10 => any::<u8>().prop_map(Step::Done),
        1 => any::<u8>().prop_map(Step::Absent),
        1 => any::<u8>().prop_map(Step::Busy),
        1 => any::<u8>().prop_map(Step::Lie),
        1 => any::<u8>().prop_map(Step::Leave),
        3 => any::<u16>().prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn whatever_happens_bounds_hold_and_an_honest_source_ends_it(steps in steps(), count in 1u64..80) {
        let mut picker = Picker::new(pieces(count));
        let mut now = Instant::now();
        let mut owed: Vec<(usize, usize)> = Vec::new();
        let at = |of: u8, length: usize| usize::from(of) % length.max(1);
        for step in steps {
            let sources = picker.sources.len();
            match step {
                Step::Join(from, runs) => {
                    let from = u64::from(from) % count;
                    let have = if runs == 0 { Have::Whole } else { Have::Runs(vec![(from, u64::from(runs))]) };
                    picker.join(have, u64::from(runs), now);
                }
                Step::Next(of) => {
                    let source = at(of, sources);
                    if let Some(piece) = picker.next(source, now) {
                        prop_assert!(!picker.states[piece].done && !picker.sources[source].gone);
                        prop_assert!(picker.pieces[piece].is_in(&picker.sources[source].have));
                        prop_assert!(!owed.contains(&(source, piece)), "asked twice of one source");
                        owed.push((source, piece));
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis.into()),
                Step::Leave(of) => {
                    picker.leave(at(of, sources));
                    owed.retain(|(source, _)| *source != at(of, sources));
                }
                Step::Done(of) | Step::Absent(of) | Step::Busy(of) | Step::Lie(of) if !owed.is_empty() => {
                    let (source, piece) = owed.remove(at(of, owed.len()));
                    match step {
                        Step::Absent(_) => picker.absent(source, piece, now),
                        Step::Busy(_) => picker.busy(source, piece, Duration::from_secs(1), now),
                        Step::Lie(_) => {
                            prop_assert!(picker.lied(source, piece, now));
                            owed.retain(|(other, _)| *other != source);
                        }
                        _ => drop(picker.done(source, piece, now)),
                    }
                }
                _ => {}
            }
            let flights: u64 = owed.iter().map(|_| MIB).sum();
            prop_assert_eq!(picker.in_flight(), flights);
            prop_assert!(flights <= super::WINDOW_ALL + MIB * picker.sources.len() as u64);
            prop_assert!(picker.under_way.values().all(|flights| flights.len() <= super::MAX_FLIGHTS_OF_PIECE));
            let open = picker.states.iter().filter(|state| !state.done).count();
            prop_assert_eq!(picker.left(), open);
        }
        (0..picker.sources.len()).for_each(|source| picker.leave(source));
        let honest = picker.join(Have::Whole, 1, now);
        for _ in 0..4 * count {
            now += Duration::from_secs(40);
            while let Some(piece) = picker.next(honest, now) {
                picker.done(honest, piece, now + Duration::from_millis(1));
            }
        }
        prop_assert_eq!(picker.left(), 0);
    }
}
