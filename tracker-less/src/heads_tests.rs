use proptest::prelude::*;

use super::*;
use crate::record::fixtures::{bundle, charter, fresh, head, module, root_key};
use crate::record::{Accepted, Charter, Head, SecretKey};

/// A head of module 1 that does not come from [`bundle`]'s chain.
fn other(epoch: u64, seq: u64, previous: Option<Hash32>, charter: &Charter) -> CheckedBundle {
    let mut head = head(1, epoch, seq, previous);
    head.created += 7;
    CheckedBundle::sign(&root_key(), &root_key(), &module(1).0, charter, head, None).unwrap()
}

#[test]
fn the_highest_counts_whatever_comes_later() {
    let mut heads = Heads::default();
    assert_eq!(heads.offer(bundle(1, 2)), Verdict::Newest);
    assert_eq!(heads.offer(bundle(1, 1)), Verdict::Older);
    assert_eq!(heads.offer(bundle(1, 2)), Verdict::Known);
    assert_eq!(heads.offer(fresh(&bundle(1, 2), 10, 20)), Verdict::Fresher);
    assert_eq!(heads.offer(fresh(&bundle(1, 2), 9, 20)), Verdict::Known, "an older word of the same head");
    assert_eq!(heads.offer(bundle(1, 3)), Verdict::Newest);
    let seqs: Vec<u64> = heads.candidates().map(|known| known.generation().seq).collect();
    assert_eq!(seqs, [3, 2, 1]);
}

#[test]
fn two_heads_with_one_number_are_a_fork_and_what_is_below_counts() {
    let mut heads = Heads::default();
    heads.offer(bundle(1, 1));
    heads.offer(bundle(1, 2));
    let twin = other(0, 2, Some(bundle(1, 1).head_hash()), &charter(0));
    assert_eq!(heads.offer(twin.clone()), Verdict::Forked);
    assert_eq!(heads.newest(), Some(&bundle(1, 1)));
    let proof = heads.fork().unwrap();
    assert_eq!((&proof.first, &proof.second), (&bundle(1, 2), &twin));
    assert_eq!(heads.offer(bundle(1, 3)), Verdict::Doubted, "nothing above the fork counts");
    assert_eq!(heads.newest(), Some(&bundle(1, 1)));
}

#[test]
fn a_head_that_does_not_follow_the_one_below_is_a_fork() {
    let mut heads = Heads::default();
    heads.offer(bundle(1, 1));
    assert_eq!(heads.offer(other(0, 2, None, &charter(0))), Verdict::Forked);
    assert_eq!(heads.newest(), Some(&bundle(1, 1)));
}

#[test]
fn a_higher_epoch_leads_out_of_a_fork_and_drops_what_it_does_not_accept() {
    let mut heads = Heads::default();
    heads.offer(bundle(1, 1));
    heads.offer(bundle(1, 2));
    heads.offer(other(0, 2, Some(bundle(1, 1).head_hash()), &charter(0)));
    let mut next = charter(1);
    let good = bundle(1, 1);
    next.accepted = vec![Accepted { epoch: 0, module: good.module(), seq: 1, head: good.head_hash() }];
    let out = other(1, 1, Some(good.head_hash()), &next);
    assert_eq!(heads.offer(out.clone()), Verdict::Newest);
    assert_eq!(heads.fork(), None);
    assert_eq!(heads.candidates().collect::<Vec<_>>(), [&out, &good]);
    assert_eq!(heads.offer(bundle(1, 2)), Verdict::Doubted, "not accepted by the new charter");
}

#[test]
fn a_thiefs_huge_number_is_left_behind_by_the_next_epoch() {
    let mut heads = Heads::default();
    heads.offer(bundle(1, 1));
    heads.offer(other(0, u64::MAX, None, &charter(0)));
    assert_eq!(heads.newest().unwrap().generation().seq, u64::MAX);
    assert_eq!(heads.offer(other(1, 1, None, &charter(1))), Verdict::Newest);
    assert_eq!(heads.newest().unwrap().generation(), Generation { epoch: 1, seq: 1 });
}

#[test]
fn a_rotated_bundle_leads_out_of_a_thiefs_heads_and_keeps_what_it_names() {
    let (root, new) = (root_key(), SecretKey::from_seed([9; 32]));
    let mut heads = Heads::default();
    for seq in 1..=3 {
        heads.offer(bundle(1, seq));
    }
    let own = bundle(1, 2);
    heads.offer(other(0, 1 << 60, None, &charter(0)));
    let out = own.rotate(&root, &new, 1, 5).unwrap();
    assert_eq!(out.generation(), Generation { epoch: 1, seq: 3 });
    assert_eq!((out.root(), out.head().previous), (own.root(), Some(own.head_hash())));
    assert_eq!(heads.offer(out.clone()), Verdict::Newest);
    assert_eq!(
        heads.candidates().map(CheckedBundle::generation).collect::<Vec<_>>(),
        [Generation { epoch: 1, seq: 3 }, Generation { epoch: 0, seq: 2 }, Generation { epoch: 0, seq: 1 },]
    );
    assert_eq!(heads.offer(bundle(1, 3)), Verdict::Doubted, "above the accepted one");
    assert_eq!(heads.offer(other(0, 2, Some(bundle(1, 1).head_hash()), &charter(0))), Verdict::Doubted, "its twin");
    let head = Head { seq: 4, previous: Some(out.head_hash()), ..out.head().clone() };
    assert!(out.next(&root, head.clone(), None).is_err(), "the old key signs no more");
    assert_eq!(heads.offer(out.next(&new, head, None).unwrap()), Verdict::Newest);
}

#[test]
fn a_second_rotation_still_knows_the_first_epoch_and_only_the_root_key_makes_one() {
    let (root, new) = (root_key(), SecretKey::from_seed([9; 32]));
    let first = bundle(1, 2).rotate(&root, &new, 1, 5).unwrap();
    assert!(first.rotate(&new, &new, 2, 6).is_err(), "a head key is no root key");
    assert!(first.rotate(&root, &new, 1, 6).is_err(), "no higher epoch");
    let second = first.rotate(&root, &SecretKey::from_seed([8; 32]), 2, 6).unwrap();
    assert!(accepts(&second, &first) && accepts(&second, &bundle(1, 2)) && !accepts(&second, &bundle(1, 3)));
}

proptest! {
    #[test]
    fn no_order_of_delivery_rolls_back(order in Just((1..=5u64).collect::<Vec<_>>()).prop_shuffle(), again in prop::collection::vec(1..=5u64, 0..20)) {
        let mut heads = Heads::default();
        let mut highest = 0;
        for seq in order.into_iter().chain(again) {
            heads.offer(bundle(1, seq));
            highest = highest.max(seq);
            prop_assert_eq!(heads.newest().unwrap().generation().seq, highest);
        }
        prop_assert_eq!(heads.fork(), None);
    }
}
