//! What this node was told to watch and to hold, kept apart from the machine: an event loop that takes the place of a fallen
//! one is told it again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    machine::{Event, Judgement},
    record::{CheckedBundle, ModuleId},
};

/// All of it. Bounded by what the machine accepts.
#[derive(Clone, Debug, Default)]
pub(super) struct Duties {
    watched: BTreeSet<ModuleId>,
    held: BTreeMap<ModuleId, Event>,
    newest: BTreeMap<ModuleId, CheckedBundle>,
}

impl Duties {
    /// Notes what the machine was told, unless it did not take it.
    pub(super) fn note(&mut self, event: &Event, judgement: Judgement) {
        if judgement != Judgement::Accept {
            return;
        }
        match event {
            Event::Watch { module } => drop(self.watched.insert(*module)),
            Event::Unwatch { module } => {
                self.watched.remove(module);
                self.forget(module);
            }
            Event::Hold { bundle, .. } => drop(self.held.insert(bundle.module(), event.clone())),
            Event::Release { module } => {
                self.held.remove(module);
                self.forget(module);
            }
            _ => {}
        }
    }

    /// Notes the newest bundle of a module.
    pub(super) fn note_newest(&mut self, bundle: CheckedBundle) {
        self.newest.insert(bundle.module(), bundle);
    }

    /// Modules watched or held.
    pub(super) fn modules(&self) -> impl Iterator<Item = ModuleId> {
        let held = self.held.keys().filter(|module| !self.watched.contains(module));
        self.watched.iter().chain(held).copied()
    }

    /// What to tell a new machine, in order.
    pub(super) fn events(&self) -> Vec<Event> {
        let watched = self.watched.iter().map(|module| Event::Watch { module: *module });
        let heads = self.newest.values().map(|bundle| Event::Bundle { bytes: bundle.bytes().to_vec() });
        // The newest heads come before what is held: a mirror that lags goes on telling others of what it has not got yet.
        let held = self.held.values().cloned();
        watched.chain(heads).chain(held).collect()
    }

    fn forget(&mut self, module: &ModuleId) {
        if !self.watched.contains(module) && !self.held.contains_key(module) {
            self.newest.remove(module);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Coverage, fixtures::bundle};

    #[test]
    fn what_was_taken_back_is_not_told_again() {
        let mut duties = Duties::default();
        let (first, second) = (bundle(1, 1), bundle(2, 1));
        let hold = |bundle: &CheckedBundle| Event::Hold {
            bundle: bundle.clone(),
            coverage: Coverage::WHOLE,
            http: Vec::new(),
        };
        for bundle in [&first, &second] {
            duties.note(&Event::Watch { module: bundle.module() }, Judgement::Accept);
            duties.note(&hold(bundle), Judgement::Accept);
            duties.note_newest(bundle.clone());
        }
        duties.note(&hold(&bundle(3, 1)), Judgement::Ignore);
        assert_eq!((duties.modules().count(), duties.events().len()), (2, 6));
        duties.note(&Event::Release { module: first.module() }, Judgement::Accept);
        duties.note(&Event::Unwatch { module: second.module() }, Judgement::Accept);
        let told = duties.events();
        assert!(matches!(&told[0], Event::Watch { module } if *module == first.module()), "{told:?}");
        assert!(matches!(&told[3], Event::Hold { bundle, .. } if *bundle == second), "{told:?}");
        duties.note(&Event::Unwatch { module: first.module() }, Judgement::Accept);
        duties.note(&Event::Release { module: second.module() }, Judgement::Accept);
        assert!(duties.events().is_empty());
    }
}
