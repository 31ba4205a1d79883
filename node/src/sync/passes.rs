//! The passes that are under way on a node, for whoever wants to look.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::fetch::Progress;
use crate::wire::throttle::Pace;

/// One pass.
#[derive(Debug, Clone)]
pub struct Pass {
    /// What it brings.
    pub reference: String,
    /// Where to.
    pub dest: PathBuf,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// When it began.
    pub since: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Passes {
    next: AtomicU64,
    /// What all of them together may bring, but for those with a limit of their own.
    pace: Option<Pace>,
    under_way: Mutex<BTreeMap<u64, Pass>>,
}

/// A pass is listed for as long as this lives.
pub struct Listed<'a> {
    passes: &'a Passes,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.passes.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Passes {
    /// With a limit of bytes per second for all together, if any.
    pub fn with_rate(rate: Option<u64>) -> Self {
        Self { pace: rate.map(Pace::new), ..Self::default() }
    }

    /// The limit that they share.
    pub fn pace(&self) -> Option<Pace> {
        self.pace.clone()
    }

    /// Lists a pass.
    pub fn list(&self, pass: Pass) -> Listed<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(number, pass);
        Listed { passes: self, number }
    }

    /// Those under way, the oldest first.
    pub fn all(&self) -> Vec<Pass> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
