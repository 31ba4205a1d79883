//! Patches and slices made lately. After a release all mirrors ask for the same ones, and each takes a processor: who asks
//! later gets what was made for the first.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cid::Cid;
use serde::Serialize;

use crate::wire::delta::Made;

/// Bytes kept, all modules together.
const BUDGET: usize = 16 << 20;
/// What a slot takes beside the ranges in it.
const SLOT: usize = size_of::<Option<Vec<(u64, u64)>>>();
/// What a range takes.
const RANGE: usize = size_of::<(u64, u64)>();

/// Names what was asked for: a hash of the tree and of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Of a request for patches or slices, as `what` says, of the tree under `root`.
    pub fn new<T: Serialize>(root: &Cid, what: &str, asked: &[T]) -> Option<Self> {
        let request = serde_ipld_dagcbor::to_vec(&(what, asked)).ok()?;
        Some(Self(*blake3::Hasher::new().update(&root.to_bytes()).update(&request).finalize().as_bytes()))
    }
}

/// Answers that may be asked for again, the latest asked for first.
#[derive(Debug, Default)]
pub struct Crafted {
    kept: Mutex<VecDeque<(Key, Made)>>,
}

impl Crafted {
    /// The answer to the same request, if it is still here.
    pub fn get(&self, key: &Key) -> Option<Made> {
        let mut kept = self.kept();
        let at = kept.iter().position(|(known, _)| known == key)?;
        let found = kept.remove(at)?;
        let made = found.1.clone();
        kept.push_front(found);
        Some(made)
    }

    /// Keeps an answer, in place of those that nobody asked for the longest.
    pub fn put(&self, key: Key, made: &Made) {
        let mut kept = self.kept();
        kept.retain(|(known, _)| *known != key);
        kept.push_front((key, made.clone()));
        let mut total = 0;
        let fitting = kept.iter().take_while(|(_, made)| {
            total += size(made);
            total <= BUDGET
        });
        let fitting = fitting.count();
        kept.truncate(fitting);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Key, Made)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of memory.
fn size(made: &Made) -> usize {
    let ranges: usize = made.slots.iter().flatten().map(Vec::len).sum();
    size_of::<(Key, Made)>() + made.frame.len() + made.slots.len() * SLOT + ranges * RANGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::new(&Cid::default(), "patches", &[number]).unwrap()
    }

    fn made(bytes: usize) -> Made {
        Made { slots: vec![Some(Vec::new())], frame: vec![7; bytes] }
    }

    #[test]
    fn what_nobody_asks_for_goes_first() {
        let (crafted, quarter) = (Crafted::default(), BUDGET / 4 - 1000);
        (0..4).for_each(|number| crafted.put(key(number), &made(quarter)));
        assert!((0..4).all(|number| crafted.get(&key(number)) == Some(made(quarter))));
        assert!(crafted.get(&key(0)).is_some());
        crafted.put(key(9), &made(5000));
        assert!(crafted.get(&key(1)).is_none(), "the one asked for longest ago");
        assert!([0, 2, 3, 9].iter().all(|number| crafted.get(&key(*number)).is_some()));
    }

    #[test]
    fn nothing_is_kept_beyond_the_budget() {
        let crafted = Crafted::default();
        crafted.put(key(0), &made(BUDGET + 1));
        assert!(crafted.get(&key(0)).is_none());
        let slots = Made { slots: vec![None; 4096], frame: Vec::new() };
        (0..1000).for_each(|number| crafted.put(key(number), &slots));
        assert!(crafted.kept().len() <= BUDGET / (4096 * SLOT));
    }

    #[test]
    fn another_tree_kind_or_request_is_another_answer() {
        let root = crate::manifest::page::Page::Leaf(Vec::new()).encode().unwrap().0;
        let one = Key::new(&Cid::default(), "patches", &[1u64]);
        for other in [
            Key::new(&root, "patches", &[1u64]),
            Key::new(&Cid::default(), "slices", &[1u64]),
            Key::new(&Cid::default(), "patches", &[2u64]),
        ] {
            assert_ne!(one, other);
        }
    }
}
