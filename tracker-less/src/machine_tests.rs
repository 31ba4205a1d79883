use super::*;
use crate::record::fixtures::{bundle, fresh, module};
use crate::record::{Nomination, SecretKey};

const NOW: u64 = 1_000_000;

fn machine(seed: u8) -> Machine {
    Machine::new(SecretKey::from_seed([seed; 32]), Limits::default())
}

/// What node `seed` would say of generation 1 of module 1.
fn said(seed: u8, change: impl Fn(&mut Nomination)) -> Event {
    let (nominator, held) = (SecretKey::from_seed([seed; 32]), bundle(1, 1));
    let mut held = Held::new(held, Coverage::WHOLE, Vec::new());
    let address = format!("/ip4/198.51.{seed}.1/tcp/4741").parse().unwrap();
    let mut nomination = held
        .nominate(&nominator, &Profile { addresses: vec![address], ..Profile::default() }, NOW)
        .unwrap()
        .nomination()
        .clone();
    change(&mut nomination);
    let signed = CheckedNomination::sign(&nominator, &nomination).unwrap();
    Event::Nomination { bytes: signed.bytes().to_vec(), from: signed.peer() }
}

fn heard(bundle: &CheckedBundle) -> Event {
    Event::Bundle { bytes: bundle.bytes().to_vec() }
}

fn nominations(actions: &[Action]) -> Vec<Nomination> {
    let spoken = actions.iter().filter_map(|action| match action {
        Action::Gossip { payload, .. } if payload[0] == NOMINATION => Some(&payload[1..]),
        _ => None,
    });
    spoken.map(|bytes| CheckedNomination::verify(bytes).unwrap().nomination().clone()).collect()
}

#[test]
fn a_newer_head_is_news_once_and_only_for_those_who_watch() {
    let mut machine = machine(1);
    assert_eq!(machine.handle(heard(&bundle(1, 1)), NOW).0, Judgement::Ignore);
    machine.handle(Event::Watch { module: module(1).1 }, NOW);
    let (judgement, actions) = machine.handle(heard(&bundle(1, 2)), NOW);
    assert_eq!(judgement, Judgement::Accept);
    assert!(matches!(&actions[..], [Action::Head { newer: true, .. }]));
    assert_eq!(machine.handle(heard(&bundle(1, 2)), NOW).0, Judgement::Ignore);
    assert_eq!(machine.handle(heard(&bundle(1, 1)), NOW).0, Judgement::Ignore);
    let (judgement, actions) = machine.handle(heard(&fresh(&bundle(1, 2), NOW, NOW + 9)), NOW);
    assert_eq!(judgement, Judgement::Accept);
    assert!(matches!(&actions[..], [Action::Head { newer: false, .. }]));
    assert_eq!(machine.handle(Event::Bundle { bytes: b"garbage".to_vec() }, NOW).0, Judgement::Reject);
}

#[test]
fn holding_is_said_at_once_refreshed_at_half_life_and_taken_back() {
    let mut machine = machine(1);
    let held = bundle(1, 1);
    let (_, actions) =
        machine.handle(Event::Hold { bundle: held.clone(), coverage: Coverage::WHOLE, http: Vec::new() }, NOW);
    assert!(actions.iter().any(|action| matches!(action, Action::Provide(_))));
    assert!(actions.iter().any(|action| matches!(action, Action::PutBundle(_))));
    let first = nominations(&actions);
    assert_eq!(first.len(), 1);
    let half = (first[0].until - first[0].issued) / 2;
    assert!(nominations(&machine.handle(Event::Tick, NOW + half - 1).1).is_empty());
    let second = nominations(&machine.handle(Event::Tick, NOW + half).1);
    assert!(second.len() == 1 && second[0].issued > first[0].issued);
    let (_, actions) = machine.handle(Event::Release { module: held.module() }, NOW + half);
    assert!(actions.iter().any(|action| matches!(action, Action::StopProviding(_))));
    let last = nominations(&actions);
    assert!(last[0].coverage == Coverage::NONE && last[0].issued > second[0].issued);
}

#[test]
fn mirrors_are_believed_by_their_latest_word_only() {
    let mut machine = machine(1);
    let id = module(1).1;
    machine.handle(Event::Watch { module: id }, NOW);
    let (judgement, actions) = machine.handle(said(2, |_| ()), NOW);
    assert_eq!(judgement, Judgement::Accept);
    assert!(matches!(&actions[..], [Action::Learned { addresses, .. }] if addresses.len() == 1));
    assert_eq!(machine.handle(said(2, |_| ()), NOW).0, Judgement::Ignore, "a replay");
    assert_eq!(machine.mirrors(&id, NOW).len(), 1);
    machine.handle(said(2, |one| (one.issued, one.coverage) = (NOW + 1, Coverage::NONE)), NOW);
    assert!(machine.mirrors(&id, NOW).is_empty(), "taken back");
    assert_eq!(machine.handle(said(2, |_| ()), NOW).0, Judgement::Ignore, "an old word after it was taken back");
    assert_eq!(machine.handle(said(1, |_| ()), NOW).0, Judgement::Ignore, "our own word");
}

#[test]
fn expired_mirrors_are_used_only_when_there_are_no_others() {
    let mut machine = machine(1);
    let id = module(1).1;
    machine.handle(Event::Watch { module: id }, NOW);
    machine.handle(said(2, |one| one.until = one.issued + 10), NOW);
    assert_eq!(machine.mirrors(&id, NOW + 100).len(), 1);
    machine.handle(said(3, |_| ()), NOW);
    let peers: Vec<_> = machine.mirrors(&id, NOW + 100).iter().map(CheckedNomination::peer).collect();
    assert_eq!(peers, [SecretKey::from_seed([3; 32]).public().peer_id().unwrap()]);
}

#[test]
fn one_network_cannot_fill_the_book() {
    let mut machine = machine(1);
    let id = module(1).1;
    machine.handle(Event::Watch { module: id }, NOW);
    for seed in 10..60 {
        machine.handle(said(seed, |one| one.addresses = vec!["/ip4/203.0.113.7/tcp/1".parse().unwrap()]), NOW);
    }
    assert_eq!(machine.mirrors(&id, NOW).len(), 8);
    assert_eq!(machine.handle(said(70, |_| ()), NOW).0, Judgement::Accept, "others still get in");
}

#[test]
fn modules_are_bounded() {
    let mut machine = Machine::new(SecretKey::from_seed([1; 32]), Limits { modules: 2 });
    for number in 0..3 {
        machine.handle(Event::Watch { module: module(number).1 }, NOW);
    }
    assert_eq!(machine.modules.len(), 2);
}
