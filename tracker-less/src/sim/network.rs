//! The simulated network: what is under way, and when it arrives.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::node::Message;
use super::scenario::Step;
use crate::book::Outcome;
use crate::record::{CheckedBundle, CheckedRoster};

/// Something that will happen.
pub(super) enum What {
    /// Gossip arrives from a neighbour.
    Gossip { to: usize, from: usize, message: Arc<Message>, hop: u32 },
    /// A node tells some neighbours which gossip it has; who lacks it gets it.
    Repair { node: usize, message: Arc<Message>, hop: u32, left: u32 },
    /// A node's clock ticks.
    Tick(usize),
    /// A probe comes back.
    Probed { node: usize, peer: PeerId, outcome: Outcome },
    /// The list of a roster is looked for.
    List { node: usize, roster: Box<CheckedRoster> },
    /// A mirror has fetched a generation.
    Fetched { node: usize, bundle: Box<CheckedBundle> },
    /// The script goes on.
    Step(Step),
}

struct Queued {
    at: u64,
    serial: u64,
    what: What,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// What is to come, the earliest first; at one time in the order it was put.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Queued>,
    serial: u64,
}

impl Queue {
    /// Milliseconds since the start.
    pub(super) fn put(&mut self, at: u64, what: What) {
        self.serial += 1;
        self.heap.push(Queued { at, serial: self.serial, what });
    }

    /// The next, if it happens by then.
    pub(super) fn next(&mut self, end: u64) -> Option<(u64, What)> {
        self.heap.peek().filter(|queued| queued.at <= end)?;
        self.heap.pop().map(|queued| (queued.at, queued.what))
    }
}
