//! What shows that the other sides are alive: every byte that comes from any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count of the bytes that came from all sources of a run.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// So many bytes came.
    pub fn beat(&self, bytes: usize) {
        self.0.fetch_add(u64::try_from(bytes).unwrap_or(1), Ordering::Relaxed);
    }

    /// Bytes so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
