//! Trackers and rosters, through the machine.

use super::*;
use crate::record::fixtures::{charter, head, module, root_key};
use crate::record::{CheckedRoster, Listed, Nomination, Roster, RosterList};
use crate::tracker::{PROBE_EVERY, Probe, RETRY};

const NOW: u64 = 1_000_000;
const TRACKER: u8 = 100;

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

fn peer(number: u8) -> PeerId {
    key(number).public().peer_id().unwrap()
}

/// Generation `seq` of module 1 under a charter of `epoch` that names tracker `tracker`.
fn tracked(epoch: u64, seq: u64, tracker: u8) -> CheckedBundle {
    let mut charter = charter(epoch);
    charter.trackers = vec![peer(tracker)];
    CheckedBundle::sign(&root_key(), &root_key(), &module(1).0, &charter, head(1, epoch, seq, None), None).unwrap()
}

fn said_by(number: u8, change: impl Fn(&mut Nomination)) -> CheckedNomination {
    let mut held = Held::new(tracked(0, 1, TRACKER), Coverage::WHOLE, Vec::new());
    let address = format!("/ip4/198.51.{number}.1/tcp/4741").parse().unwrap();
    let mut nomination = held
        .nominate(&key(number), &Profile { addresses: vec![address], ..Profile::default() }, NOW)
        .unwrap()
        .nomination()
        .clone();
    change(&mut nomination);
    CheckedNomination::sign(&key(number), &nomination).unwrap()
}

fn roster(issued: u64, tracker: u8, mirrors: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let listed = |number: &u8| Listed { nomination: said_by(*number, |_| ()), lag: 0, rate: 7, probed: issued };
    let list = RosterList::new(mirrors.iter().map(listed).collect());
    let top = list.rows().iter().map(|row| row.nomination.peer()).collect();
    let record = Roster {
        module: module(1).1,
        list: list.cid(),
        count: mirrors.len() as u64,
        top,
        issued,
        until: issued + 3600,
    };
    (CheckedRoster::sign(&key(tracker), &record).unwrap().bytes().to_vec(), list.bytes().to_vec())
}

/// A machine that has heard of the module's first generation.
fn watching(number: u8) -> Machine {
    let mut machine = Machine::new(key(number), Limits::default());
    machine.handle(Event::Watch { module: module(1).1 }, NOW);
    machine.handle(Event::Bundle { bytes: tracked(0, 1, TRACKER).bytes().to_vec() }, NOW);
    machine
}

/// The tracker, holding the module, and told of mirrors.
fn tracker(mirrors: &[u8]) -> Machine {
    let mut machine = watching(TRACKER);
    machine.handle(Event::Hold { bundle: tracked(0, 1, TRACKER), coverage: Coverage::WHOLE, http: Vec::new() }, NOW);
    for number in mirrors {
        hear(&mut machine, said_by(*number, |_| ()), NOW);
    }
    machine
}

fn hear(machine: &mut Machine, nomination: CheckedNomination, now: u64) {
    let from = nomination.peer();
    machine.handle(Event::Nomination { bytes: nomination.bytes().to_vec(), from }, now);
}

fn probes(actions: &[Action]) -> Vec<Probe> {
    let probes = actions.iter().filter_map(|action| match action {
        Action::Probe(probe) => Some(probe.clone()),
        _ => None,
    });
    probes.collect()
}

/// Who is on the roster that these actions publish.
fn published(actions: &[Action]) -> Option<Vec<PeerId>> {
    let kept = actions.iter().find_map(|action| match action {
        Action::KeepRosters { rosters, .. } => rosters.first(),
        _ => None,
    });
    kept.map(|(_, list)| list.rows().iter().map(|row| row.nomination.peer()).collect())
}

fn tell(machine: &mut Machine, number: u8, outcome: Outcome, now: u64) -> Vec<Action> {
    machine.handle(Event::Probed { module: module(1).1, peer: peer(number), outcome }, now).1
}

#[test]
fn only_what_passed_a_probe_is_on_the_roster() {
    let mut machine = tracker(&[1, 2]);
    let (_, actions) = machine.handle(Event::Tick, NOW);
    let asked = probes(&actions);
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].seed, asked[1].seed);
    assert_eq!(published(&actions), None, "a self-report alone puts nobody on a roster");
    let actions = tell(&mut machine, 1, Outcome::Good { rate: 5 }, NOW + 1);
    assert_eq!(published(&actions), Some(vec![peer(1)]));
    assert!(actions.iter().any(|action| matches!(action, Action::Gossip { payload, .. } if payload[0] == ROSTER)));
    assert_eq!(published(&tell(&mut machine, 2, Outcome::Lacking, NOW + 2)), None);
    assert!(tell(&mut machine, 3, Outcome::Good { rate: 5 }, NOW + 3).is_empty(), "nobody asked for that");
    let book = machine.book(&module(1).1, NOW);
    assert_eq!((book[0].nomination().peer(), book[0].rate()), (peer(1), Some(5)));
}

#[test]
fn a_claim_that_fails_is_delisted_with_its_probe_and_relisted_with_the_next_that_passes() {
    let mut machine = tracker(&[1]);
    machine.handle(Event::Tick, NOW);
    tell(&mut machine, 1, Outcome::Good { rate: 5 }, NOW);
    assert!(probes(&machine.handle(Event::Tick, NOW + PROBE_EVERY - 1).1).is_empty(), "not before its time");
    // It claims the next generation: probed at once.
    machine.handle(Event::Bundle { bytes: tracked(0, 3, TRACKER).bytes().to_vec() }, NOW + 50);
    hear(&mut machine, said_by(1, |one| (one.seq, one.issued) = (3, NOW + 50)), NOW + 50);
    let asked = probes(&machine.handle(Event::Tick, NOW + 60).1);
    assert_eq!(asked[0].generation.seq, 3);
    assert_eq!(published(&tell(&mut machine, 1, Outcome::Lacking, NOW + 61)), Some(Vec::new()), "gone at once");
    assert!(probes(&machine.handle(Event::Tick, NOW + 60 + RETRY).1).is_empty(), "not so soon after a failure");
    let asked = probes(&machine.handle(Event::Tick, NOW + 60 + 2 * RETRY).1);
    assert_eq!(asked.len(), 1);
    let actions = tell(&mut machine, 1, Outcome::Good { rate: 9 }, NOW + 72);
    assert_eq!(published(&actions), Some(vec![peer(1)]), "listed again");
}

#[test]
fn a_flood_of_new_names_does_not_keep_the_tracker_from_those_it_vouches_for() {
    let mut machine = tracker(&[1, 2]);
    machine.handle(Event::Tick, NOW);
    tell(&mut machine, 1, Outcome::Good { rate: 5 }, NOW);
    tell(&mut machine, 2, Outcome::Good { rate: 5 }, NOW);
    for number in 101..200 {
        let bytes = said_by(number, |_| ()).bytes().to_vec();
        machine.handle(Event::Nomination { bytes, from: peer(90) }, NOW);
    }
    let speaks_for_itself = said_by(3, |_| ());
    hear(&mut machine, speaks_for_itself, NOW);
    let asked: Vec<PeerId> =
        probes(&machine.handle(Event::Tick, NOW + PROBE_EVERY).1).iter().map(|probe| probe.peer).collect();
    assert_eq!(asked.len(), 8, "no more at once");
    assert!([1, 2, 3].iter().all(|number| asked.contains(&peer(*number))));
}

#[test]
fn one_that_is_not_reached_has_a_second_chance_and_one_whose_word_expired_none() {
    let mut machine = tracker(&[1, 2]);
    machine.handle(Event::Tick, NOW);
    tell(&mut machine, 1, Outcome::Good { rate: 5 }, NOW);
    tell(&mut machine, 2, Outcome::Good { rate: 5 }, NOW);
    machine.handle(Event::Tick, NOW + 40);
    let mut later = NOW + PROBE_EVERY;
    machine.handle(Event::Tick, later);
    tell(&mut machine, 2, Outcome::Good { rate: 5 }, later);
    assert_eq!(published(&tell(&mut machine, 1, Outcome::Unreachable, later)), None);
    later += 2 * RETRY;
    assert_eq!(probes(&machine.handle(Event::Tick, later).1).len(), 1, "asked again soon");
    assert_eq!(published(&tell(&mut machine, 1, Outcome::Unreachable, later)), Some(vec![peer(2)]));
    let expired = NOW + 2 * 24 * 3600;
    let actions = machine.handle(Event::Tick, expired).1;
    assert_eq!(published(&actions), Some(Vec::new()), "without anybody's doing");
}

#[test]
fn a_roster_is_kept_used_and_told_on() {
    let mut machine = watching(1);
    let id = module(1).1;
    hear(&mut machine, said_by(4, |_| ()), NOW);
    let (bytes, list) = roster(NOW, TRACKER, &[2, 3]);
    // Its record comes first, by gossip.
    let heard = Event::Roster { bytes: bytes.clone(), list: None };
    assert_eq!(machine.handle(heard.clone(), NOW).0, Judgement::Accept);
    assert_eq!(machine.handle(heard, NOW).0, Judgement::Ignore, "known");
    let wanted = machine.handle(Event::Tick, NOW).1;
    assert!(
        wanted.iter().any(|action| matches!(action, Action::WantList { roster } if roster.tracker() == peer(TRACKER)))
    );
    assert!(machine.handle(Event::Tick, NOW + 1).1.is_empty(), "asked for once a minute");
    let (judgement, actions) =
        machine.handle(Event::Roster { bytes: bytes.clone(), list: Some(list.clone()) }, NOW + 1);
    assert_eq!(judgement, Judgement::Accept);
    assert_eq!(published(&actions), Some(vec![peer(2), peer(3)]));
    assert_eq!(machine.rosters(&id).len(), 1);
    let order: Vec<PeerId> = machine.mirrors(&id, NOW).iter().map(CheckedNomination::peer).collect();
    assert!(
        order[..2].contains(&peer(2)) && order[..2].contains(&peer(3)),
        "before the one that only speaks for itself"
    );
    // The next takes one off; the old one is not believed again, and serves until the new list is here.
    let (next, shorter) = roster(NOW + 100, TRACKER, &[3]);
    machine.handle(Event::Roster { bytes: next.clone(), list: None }, NOW + 100);
    assert_eq!(machine.rosters(&id)[0].1.rows().len(), 2);
    machine.handle(Event::Roster { bytes: next, list: Some(shorter) }, NOW + 100);
    assert_eq!(machine.rosters(&id)[0].1.rows().len(), 1);
    assert_eq!(machine.handle(Event::Roster { bytes, list: Some(list) }, NOW + 101).0, Judgement::Ignore, "a replay");
    let late = NOW + 30 * 24 * 3600;
    machine.handle(Event::Tick, late);
    assert_eq!(machine.rosters(&id).len(), 1, "kept long after its end: the tracker may be dead");
}

#[test]
fn rosters_of_strangers_and_of_former_trackers_do_not_count() {
    let mut machine = watching(1);
    let (bytes, list) = roster(NOW, 55, &[2, 3]);
    assert_eq!(machine.handle(Event::Roster { bytes, list: Some(list) }, NOW).0, Judgement::Ignore);
    assert!(machine.mirrors(&module(1).1, NOW).is_empty(), "nobody enters the book by a stranger's word");
    let (bytes, list) = roster(NOW, TRACKER, &[2]);
    machine.handle(Event::Roster { bytes: bytes.clone(), list: Some(list) }, NOW);
    let (_, wrong) = roster(NOW, TRACKER, &[3]);
    let swapped = Event::Roster { bytes: roster(NOW + 1, TRACKER, &[2]).0, list: Some(wrong) };
    assert_eq!(machine.handle(swapped, NOW).0, Judgement::Reject, "another list than the signed one");
    let mut broken = bytes;
    broken[20] ^= 1;
    assert_eq!(machine.handle(Event::Roster { bytes: broken, list: None }, NOW).0, Judgement::Reject);
    machine.handle(Event::Bundle { bytes: tracked(1, 1, 56).bytes().to_vec() }, NOW);
    assert!(machine.rosters(&module(1).1).is_empty(), "the next charter names another tracker");
}

#[test]
fn a_list_is_bounded_and_well_formed() {
    let listed = |number: u8| Listed {
        nomination: said_by(number, |one| one.contact = "x".repeat(200)),
        lag: 0,
        rate: 0,
        probed: NOW,
    };
    let list = RosterList::new((0..=255).map(listed).collect());
    assert!(list.bytes().len() <= 64 << 10 && list.rows().len() > 90, "{}", list.rows().len());
    let record = |list: &RosterList| Roster {
        module: module(1).1,
        list: list.cid(),
        count: 0,
        top: Vec::new(),
        issued: NOW,
        until: NOW,
    };
    assert_eq!(RosterList::read(&record(&list), list.bytes()).unwrap(), list);
    let twice = RosterList::new(vec![listed(1), listed(1)]);
    assert!(RosterList::read(&record(&twice), twice.bytes()).is_err(), "one mirror twice");
    let strange = Roster { module: module(2).1, ..record(&list) };
    assert!(RosterList::read(&strange, list.bytes()).is_err(), "mirrors of another module");
    assert!(RosterList::read(&record(&list), &vec![0; (64 << 10) + 1]).is_err());
    assert!(RosterList::read(&record(&list), &list.bytes()[1..]).is_err());
}
