use std::sync::LazyLock;

use super::*;
use crate::nominate::{Held, Profile};
use crate::record::fixtures::{bundle, module};
use crate::record::{Nomination, SecretKey};

const NOW: u64 = 1_000_000;

fn key(number: u32) -> SecretKey {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(seed)
}

fn peer(number: u32) -> PeerId {
    key(number).public().peer_id().unwrap()
}

/// What node `number` says of generation 1 of module 1, each in a network of its own.
fn said_by(number: u32, change: impl Fn(&mut Nomination)) -> CheckedNomination {
    static WORD: LazyLock<Nomination> = LazyLock::new(|| {
        let mut held = Held::new(bundle(1, 1), Coverage::WHOLE, Vec::new());
        held.nominate(&key(0), &Profile::default(), NOW).unwrap().nomination().clone()
    });
    let [_, _, high, low] = number.to_be_bytes();
    let mut nomination = WORD.clone();
    nomination.addresses = vec![format!("/ip4/{}.{low}.1.1/tcp/4741", 20 + high).parse().unwrap()];
    change(&mut nomination);
    CheckedNomination::sign(&key(number), &nomination).unwrap()
}

fn said(number: u32) -> CheckedNomination {
    said_by(number, |_| ())
}

fn listed(number: u32) -> Listed {
    Listed { nomination: said(number), lag: 0, rate: 1000, probed: NOW }
}

fn order(book: &Book) -> Vec<PeerId> {
    book.mirrors(Some(Generation { epoch: 0, seq: 1 }), NOW).iter().map(|mirror| mirror.nomination().peer()).collect()
}

#[test]
fn what_was_tried_stands_above_what_is_only_said() {
    let mut book = Book::default();
    for number in 1..=4 {
        assert_eq!(book.offer(said(number), peer(99), NOW), Entry::Taken);
    }
    assert!(!book.vouch(&listed(2), peer(50), NOW + 100, NOW), "its word is known already");
    book.measure(&peer(3), Outcome::Good { rate: 10 }, NOW);
    book.measure(&peer(4), Outcome::Lacking, NOW);
    assert_eq!(order(&book), [peer(3), peer(2), peer(1), peer(4)]);
    assert_eq!(book.get(&peer(2)).unwrap().rate(), Some(1000));
    book.measure(&peer(2), Outcome::Unreachable, NOW);
    assert_eq!(book.get(&peer(2)).unwrap().standing(NOW), Standing::Failed, "our own measurement outranks a roster");
    assert_eq!(book.get(&peer(2)).unwrap().standing(NOW + 2 * FAILED_FOR), Standing::Past, "and is tried again later");
    book.unvouch(&peer(50));
    assert_eq!(book.get(&peer(2)).unwrap().standing(NOW + 2 * FAILED_FOR), Standing::Heard);
}

#[test]
fn a_claim_above_the_newest_head_counts_for_nothing() {
    let mut book = Book::default();
    book.offer(said_by(1, |one| one.seq = 7), peer(99), NOW);
    book.offer(said(2), peer(99), NOW);
    assert_eq!(order(&book), [peer(2), peer(1)]);
}

#[test]
fn one_of_each_network_comes_before_the_second_of_any() {
    let mut book = Book::default();
    for number in 1..=6 {
        let there = |one: &mut Nomination| one.addresses = vec!["/ip4/203.0.113.7/tcp/1".parse().unwrap()];
        let nomination = if number <= 5 { said_by(number, there) } else { said_by(number, |one| one.issued -= 10) };
        assert_eq!(book.offer(nomination, peer(99), NOW), Entry::Taken);
    }
    assert!(order(&book)[..2].contains(&peer(6)), "the other network is not last");
}

#[test]
fn a_flood_from_one_teller_takes_a_part_of_the_book_only() {
    let mut book = Book::default();
    for number in 0..600 {
        book.offer(said(number), peer(9999), NOW);
    }
    assert_eq!(book.all().count(), MAX_PER_TELLER);
    assert_eq!(book.offer(said(7000), peer(7000), NOW), Entry::Taken, "who speaks for itself gets in");
}

#[test]
fn ten_thousand_nominations_stay_within_bounds_and_push_nobody_out_who_was_tried() {
    let mut book = Book::default();
    for number in 0..30 {
        book.offer(said(number), peer(number), NOW);
        book.measure(&peer(number), Outcome::Good { rate: 1 }, NOW);
    }
    for number in 30..60 {
        book.vouch(&listed(number), peer(50), NOW + 100, NOW);
    }
    let mut refused = 0;
    for number in 1000..11_000 {
        // A word that looks better than any other: whole, and said later.
        let sybil = said_by(number, |one| one.issued += 10);
        let teller = peer(20_000 + number % 40);
        refused += usize::from(book.offer(sybil, teller, NOW) == Entry::Refused);
        assert!(book.all().count() <= MAX_MIRRORS);
    }
    assert!(refused > 8000, "{refused}");
    assert!((0..60).all(|number| book.get(&peer(number)).is_some()), "all who were tried are still there");
    let first: Vec<PeerId> = order(&book)[..16].to_vec();
    let honest = (0..60).map(peer).filter(|peer| first.contains(peer)).count();
    assert!(honest >= 11, "the honest lead: {honest} of 16");
}

#[test]
fn one_network_is_bounded_and_its_worst_gives_way_to_one_that_was_tried() {
    let mut book = Book::default();
    let there = |one: &mut Nomination| one.addresses = vec!["/ip4/203.0.113.7/tcp/1".parse().unwrap()];
    for number in 0..50 {
        book.offer(said_by(number, there), peer(99), NOW);
    }
    assert_eq!(book.all().count(), MAX_PER_NETWORK);
    let honest = Listed { nomination: said_by(60, there), ..listed(60) };
    assert!(book.vouch(&honest, peer(50), NOW + 100, NOW));
    assert_eq!(book.all().count(), MAX_PER_NETWORK);
    book.offer(said(70), peer(99), NOW);
    let moved = said_by(70, |one| {
        there(one);
        one.issued += 1;
    });
    assert_eq!(book.offer(moved, peer(99), NOW), Entry::Refused, "nobody moves into a full network");
}

#[test]
fn who_is_refused_in_one_network_pushes_nobody_out_of_another() {
    let mut book = Book::default();
    let at = |networks: &[u8]| {
        let addresses = networks.iter().map(|net| format!("/ip4/203.0.{net}.7/tcp/1").parse().unwrap());
        let addresses: Vec<_> = addresses.collect();
        move |one: &mut Nomination| one.addresses.clone_from(&addresses)
    };
    let full = u32::try_from(MAX_PER_NETWORK).unwrap();
    for number in 0..full {
        book.offer(said_by(number, at(&[1])), peer(99), NOW);
        let tried = Listed { nomination: said_by(100 + number, at(&[2])), ..listed(100 + number) };
        book.vouch(&tried, peer(50), NOW + 100, NOW);
    }
    let before: Vec<PeerId> = book.all().map(|mirror| mirror.nomination().peer()).collect();
    let better = said_by(200, |one| {
        at(&[1, 2])(one);
        one.issued += 10;
    });
    assert_eq!(book.offer(better, peer(98), NOW), Entry::Refused);
    assert_eq!(book.all().map(|mirror| mirror.nomination().peer()).collect::<Vec<_>>(), before);
}

#[test]
fn dates_rank_hints_and_nothing_else() {
    let years = 10 * 365 * 24 * 3600;
    for clock in [NOW + years, NOW.saturating_sub(years)] {
        let mut book = Book::default();
        assert_eq!(book.offer(said(1), peer(99), clock), Entry::Taken, "whatever our clock says");
        book.expire(clock);
        assert_eq!(book.mirrors(None, clock).len(), 1);
    }
    let mut book = Book::default();
    let ahead = said_by(1, |one| (one.issued, one.until) = (NOW + years, NOW + years + 10));
    book.offer(ahead, peer(99), NOW);
    book.offer(said(2), peer(99), NOW);
    assert_eq!(order(&book), [peer(2)], "a date from the future does not count beside a good one");
    assert_eq!(book.offer(said(1), peer(99), NOW), Entry::Taken, "its clock was set right");
    assert_eq!(order(&book).len(), 2);
    assert_eq!(book.offer(said_by(1, |one| one.issued -= 1), peer(99), NOW), Entry::Old, "a replay");
    let later = NOW + 3 * MAX_LIFETIME;
    book.offer(said_by(3, |one| (one.issued, one.until) = (later, later + 10)), peer(99), later);
    book.expire(later);
    assert_eq!(book.all().count(), 1, "what expired long ago is gone without anybody's doing");
    assert_eq!(module(1).1, said(1).nomination().module);
}
