//! Rotation, rollback and forks, modelled on the cases of TUF's client conformance suite (theupdateframework/tuf-conformance).
//! What is a role's metadata there is here: root = charter under the root key, snapshot and targets = head, timestamp = Fresh.
//! docs/SAFETY.md names the cases.

use super::*;
use crate::machine::{Event, Judgement, Limits, Machine};
use crate::record::fixtures::{bundle, charter, fresh, head, module, root_key};
use crate::record::{Accepted, Charter, Fresh, RecordError, SecretKey};

const NOW: u64 = 1_500_000;

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

/// A charter of this epoch whose heads are signed by key `number`.
fn of(epoch: u64, number: u8, accepted: Option<&CheckedBundle>) -> Charter {
    let accepted = accepted.map(|good| Accepted {
        epoch: good.generation().epoch,
        module: good.module(),
        seq: good.generation().seq,
        head: good.head_hash(),
    });
    Charter { heads: vec![key(number).public()], accepted: accepted.into_iter().collect(), ..charter(epoch) }
}

/// A head of module 1 under this charter, signed by key `number`.
fn signed(charter: &Charter, number: u8, seq: u64, previous: Option<&CheckedBundle>) -> CheckedBundle {
    try_signed(charter, number, seq, previous).unwrap()
}

fn try_signed(
    charter: &Charter,
    number: u8,
    seq: u64,
    previous: Option<&CheckedBundle>,
) -> Result<CheckedBundle, RecordError> {
    let head = head(1, charter.epoch, seq, previous.map(CheckedBundle::head_hash));
    CheckedBundle::sign(&root_key(), &key(number), &module(1).0, charter, head, None)
}

fn newest(heads: &Heads) -> Generation {
    heads.newest().unwrap().generation()
}

#[test]
fn expired_timestamp_is_stale_and_still_used() {
    let old = fresh(&bundle(1, 2), NOW - 100, NOW - 1);
    let mut heads = Heads::default();
    assert_eq!(heads.offer(old.clone()), Verdict::Newest);
    assert!(!old.is_fresh(NOW) && heads.newest() == Some(&old));
}

#[test]
fn timestamp_rollback_is_ignored() {
    let mut heads = Heads::default();
    let late = fresh(&bundle(1, 2), NOW, NOW + 100);
    heads.offer(late.clone());
    assert_eq!(heads.offer(fresh(&bundle(1, 2), NOW - 50, NOW + 900)), Verdict::Known, "issued earlier, lasts longer");
    assert_eq!(heads.newest(), Some(&late));
}

#[test]
fn snapshot_rollback_is_ignored() {
    let mut heads = Heads::default();
    heads.offer(bundle(1, 5));
    // Also with the latest word that the old one is fresh.
    assert_eq!(heads.offer(fresh(&bundle(1, 4), NOW, NOW + 100)), Verdict::Older);
    assert_eq!(newest(&heads).seq, 5);
}

#[test]
fn equal_version_and_other_content_is_a_fork() {
    let mut heads = Heads::default();
    heads.offer(bundle(1, 1));
    heads.offer(bundle(1, 2));
    let other = signed(&charter(0), 7, 2, None);
    assert_eq!(heads.offer(other), Verdict::Forked);
    assert_eq!(newest(&heads).seq, 1, "what is below stays");
}

#[test]
fn unknown_signer_is_refused() {
    assert_eq!(try_signed(&of(0, 8, None), 9, 1, None).unwrap_err(), RecordError::Signer { what: "head" });
    let good = bundle(1, 1);
    let record = Fresh { module: good.module(), epoch: 0, seq: 1, head: good.head_hash(), issued: NOW, until: NOW + 1 };
    assert!(good.with_fresh(&key(9), &record).is_err(), "nor may it call it fresh");
    let mut machine = Machine::new(key(1), Limits::default());
    machine.handle(Event::Watch { module: module(1).1 }, NOW);
    let mut bytes = good.bytes().to_vec();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    assert_eq!(machine.handle(Event::Bundle { bytes }, NOW).0, Judgement::Reject, "a changed signature is blamed");
}

#[test]
fn rotation_takes_the_old_keys_word_away() {
    let mut heads = Heads::default();
    let (old, new) = (of(0, 8, None), |good: &CheckedBundle| of(1, 9, Some(good)));
    let first = signed(&old, 8, 1, None);
    let second = signed(&old, 8, 2, Some(&first));
    heads.offer(first.clone());
    let rotated = signed(&new(&first), 9, 2, Some(&first));
    assert_eq!(heads.offer(rotated.clone()), Verdict::Newest);
    assert_eq!(heads.offer(second), Verdict::Doubted, "signed by the old key, after what is accepted");
    assert!(try_signed(&new(&first), 8, 3, Some(&rotated)).is_err(), "the old key may not sign under the new charter");
    assert_eq!(heads.offer(signed(&new(&first), 9, 3, Some(&rotated))), Verdict::Newest);
}

#[test]
fn several_rotations_are_followed_in_any_order_and_may_be_skipped() {
    let chain: Vec<CheckedBundle> = (0..6).map(|epoch| signed(&of(epoch, 8, None), 8, 1, None)).collect();
    for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 5, 0, 3, 1, 4]] {
        let mut heads = Heads::default();
        for at in order {
            heads.offer(chain[at].clone());
        }
        assert_eq!(newest(&heads).epoch, 5);
    }
}

#[test]
fn root_rollback_is_ignored() {
    let mut heads = Heads::default();
    heads.offer(signed(&of(3, 8, None), 8, 1, None));
    assert_eq!(heads.offer(signed(&of(2, 9, None), 9, u64::MAX, None)), Verdict::Doubted);
    assert_eq!(newest(&heads), Generation { epoch: 3, seq: 1 });
}

#[test]
fn fast_forward_is_recovered_from_by_rotation() {
    let good = bundle(1, 3);
    let mut heads = Heads::default();
    heads.offer(good.clone());
    // A thief of the head key signs the last number there is: nothing can follow it in this epoch.
    heads.offer(signed(&charter(0), 7, u64::MAX, None));
    assert_eq!(newest(&heads).seq, u64::MAX);
    let out = signed(&of(1, 9, Some(&good)), 9, 4, Some(&good));
    assert_eq!(heads.offer(out.clone()), Verdict::Newest);
    let seqs: Vec<Generation> = heads.candidates().map(CheckedBundle::generation).collect();
    assert_eq!(seqs, [out.generation(), good.generation()], "the thief's is gone, the good one is still to be had");
}

#[test]
fn rotation_in_mid_sync_leaves_the_accepted_generation_to_be_finished() {
    let mut heads = Heads::default();
    let pinned = bundle(1, 2);
    heads.offer(pinned.clone());
    heads.offer(signed(&of(1, 9, Some(&pinned)), 9, 3, Some(&pinned)));
    assert!(heads.candidates().any(|known| *known == pinned), "others that hold it are still asked for it");
    assert_eq!(heads.offer(fresh(&pinned, NOW, NOW + 1)), Verdict::Older, "and it is still known by the same name");
}

#[test]
fn two_charters_of_one_epoch_are_a_fork() {
    let first = signed(&of(0, 8, None), 8, 1, None);
    let (one, other) = (signed(&of(1, 8, Some(&first)), 8, 2, None), signed(&of(1, 9, Some(&first)), 9, 3, None));
    for (earlier, later) in [(&one, &other), (&other, &one)] {
        let mut heads = Heads::default();
        heads.offer(first.clone());
        heads.offer(earlier.clone());
        assert_eq!(heads.offer(later.clone()), Verdict::Forked);
        let proof = heads.fork().unwrap();
        assert_eq!((&proof.first, &proof.second), (earlier, later));
        assert!(heads.newest().is_some(), "something below is still believed");
        assert_eq!(heads.offer(signed(&of(2, 8, None), 8, 1, None)), Verdict::Newest, "a higher epoch leads out");
        assert_eq!(heads.fork(), None);
    }
}

#[test]
fn wrong_module_and_wrong_epoch_are_refused() {
    let other = head(2, 0, 1, None);
    assert!(CheckedBundle::sign(&root_key(), &root_key(), &module(1).0, &charter(0), other, None).is_err());
    let late = head(1, 1, 1, None);
    assert!(CheckedBundle::sign(&root_key(), &root_key(), &module(1).0, &charter(0), late, None).is_err());
}

#[test]
fn a_future_date_makes_nothing_fresh_and_orders_nothing() {
    let mut heads = Heads::default();
    let ahead = fresh(&bundle(1, 1), NOW * 1000, NOW * 2000);
    heads.offer(ahead.clone());
    assert!(ahead.is_from_future(NOW) && !ahead.is_fresh(NOW));
    assert_eq!(heads.offer(bundle(1, 2)), Verdict::Newest);
}
