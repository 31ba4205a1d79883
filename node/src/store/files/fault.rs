//! Failures on order, for tests: the n-th file call of this thread answers with an error, and all after it if the disk is gone.

use std::cell::Cell;

use rustix::io::{Errno, Result};

/// What is to fail.
#[derive(Clone, Copy)]
struct Order {
    /// Calls until then.
    left: u64,
    errno: Errno,
    /// One call, or all from then on.
    once: bool,
    hit: bool,
}

thread_local! {
    static ORDER: Cell<Option<Order>> = const { Cell::new(None) };
}

/// Call number `after` (0 is the next) fails with `errno`; all calls after it too, unless `once`.
pub(crate) fn order(after: u64, errno: Errno, once: bool) {
    ORDER.set(Some(Order { left: after, errno, once, hit: false }));
}

/// Takes the order back; true if anything failed by it.
pub(crate) fn lift() -> bool {
    ORDER.take().is_some_and(|order| order.hit)
}

/// One file call.
pub(super) fn point() -> Result<()> {
    let Some(order) = ORDER.get() else { return Ok(()) };
    let due = order.left == 0 && !(order.once && order.hit);
    ORDER.set(Some(Order { left: order.left.saturating_sub(1), hit: order.hit || due, ..order }));
    if due { Err(order.errno) } else { Ok(()) }
}
