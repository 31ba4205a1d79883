//! Which modules are watched for somebody who may go away: each for as long as a [`Watch`] of it is kept, and a while longer, for
//! commands about one module follow one another.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::record::ModuleId;

/// What was learned of a module is kept for this long after the last watch of it ended.
const LINGER: Duration = Duration::from_secs(300);
/// Modules that linger; the longest ended gives way.
const MAX_LINGERING: usize = 64;

/// All of them, shared between the handles and the event loop.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    watched: HashMap<ModuleId, usize>,
    ended: VecDeque<(Instant, ModuleId)>,
}

/// A module is watched for as long as this is kept.
#[derive(Debug)]
pub struct Watch {
    module: ModuleId,
    watches: Watches,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut counts = self.watches.lock();
        let Some(count) = counts.watched.get_mut(&self.module) else { return };
        *count -= 1;
        if *count == 0 {
            counts.watched.remove(&self.module);
            counts.ended.push_back((Instant::now(), self.module));
        }
    }
}

impl Watches {
    /// One more watch of the module.
    pub(super) fn begin(&self, module: ModuleId) -> Watch {
        let mut counts = self.lock();
        *counts.watched.entry(module).or_default() += 1;
        counts.ended.retain(|(_, ended)| *ended != module);
        Watch { module, watches: self.clone() }
    }

    /// Modules that nobody watches any more, once each.
    pub(super) fn over(&self, now: Instant) -> Vec<ModuleId> {
        let mut counts = self.lock();
        let surplus = counts.ended.len().saturating_sub(MAX_LINGERING);
        let old = counts.ended.iter().take_while(|(since, _)| now.saturating_duration_since(*since) >= LINGER).count();
        counts.ended.drain(..surplus.max(old)).map(|(_, module)| module).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(number: usize) -> ModuleId {
        ModuleId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    #[test]
    fn the_last_watch_ends_it_a_while_later() {
        let watches = Watches::default();
        let (first, second) = (watches.begin(module(1)), watches.begin(module(1)));
        let later = || Instant::now() + LINGER;
        drop(first);
        assert!(watches.over(later()).is_empty());
        drop(second);
        assert!(watches.over(Instant::now()).is_empty());
        let again = watches.begin(module(1));
        assert!(watches.over(later()).is_empty(), "somebody came back");
        drop(again);
        assert_eq!(watches.over(later()), [module(1)]);
        assert!(watches.over(later()).is_empty(), "told once");
    }

    #[test]
    fn those_that_linger_are_few() {
        let watches = Watches::default();
        (0..1000).for_each(|number| drop(watches.begin(module(number))));
        let over = watches.over(Instant::now());
        assert_eq!(over, (0..1000 - MAX_LINGERING).map(module).collect::<Vec<_>>(), "the longest ended first");
    }
}
