//! Hard links as rsync makes them: which of a file's names the others are linked to, and in which order that is told. What waits for
//! the content of another name comes after everything else.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Change, Origin, Step};
use crate::manifest::ContentId;
use crate::manifest::path::TreePath;

/// Names of one file: what makes two entries hard links of each other.
pub(super) type LinkGroup = (ContentId, u16, i64, u32);

/// The name that the others of its group become links to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead<'a> {
    pub path: &'a TreePath,
    /// Its inode here, where that stays.
    pub inode: Option<u64>,
    /// What becomes of it is planned already.
    pub is_planned: bool,
    /// Its content is brought or copied.
    moves: bool,
}

/// All groups of a plan.
#[derive(Default)]
pub(super) struct Links<'a> {
    leads: HashMap<LinkGroup, Lead<'a>>,
    /// Links that wait for a name, those to names before it and behind it apart.
    waiting: HashMap<&'a TreePath, (Vec<Step>, Vec<Step>)>,
    /// Names whose content is brought or copied, in order.
    moving: Vec<&'a TreePath>,
}

impl<'a> Links<'a> {
    /// As in rsync, the first name that stands here as a file leads its group, else the last. `names` are in order.
    pub(super) fn choose(names: impl Iterator<Item = (LinkGroup, &'a TreePath, bool)>) -> Self {
        let mut chosen: HashMap<LinkGroup, (&TreePath, bool)> = HashMap::new();
        for (group, path, stands) in names {
            let lead = chosen.entry(group).or_insert((path, stands));
            if !lead.1 {
                *lead = (path, stands);
            }
        }
        let lead = |path| Lead { path, inode: None, is_planned: false, moves: false };
        let leads = chosen.into_iter().map(|(group, (path, _))| (group, lead(path))).collect();
        Self { leads, ..Self::default() }
    }

    /// The name that leads the group of `path`, if it is another.
    pub(super) fn lead(&self, group: &LinkGroup, path: &TreePath) -> Option<Lead<'a>> {
        self.leads.get(group).copied().filter(|lead| lead.path != path)
    }

    /// Has a link wait for what it leads to, where that must be; else gives it back.
    pub(super) fn hold(&mut self, step: Step, lead: Lead<'a>) -> Option<Step> {
        if lead.is_planned && !lead.moves {
            return Some(step);
        }
        let (before, behind) = self.waiting.entry(lead.path).or_default();
        let side = if lead.is_planned { behind } else { before };
        side.push(step);
        None
    }

    /// A leading name was planned: its inode, where that stays, and its step, if there is one. Gives the links that follow at once.
    pub(super) fn planned(&mut self, group: &LinkGroup, inode: Option<u64>, step: Option<&Step>) -> Vec<Step> {
        let Some(lead) = self.leads.get_mut(group) else { return Vec::new() };
        let moves = step.filter(|step| step.path == *lead.path).is_some_and(moves);
        (lead.inode, lead.is_planned, lead.moves) = (inode, true, moves);
        if moves {
            self.moving.push(lead.path);
            return Vec::new();
        }
        let before = self.waiting.remove(lead.path).map(|(before, _)| before);
        before.into_iter().flatten().rev().collect()
    }

    /// The links that waited until everything was brought.
    pub(super) fn rest(mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for path in self.moving {
            let (before, behind) = self.waiting.remove(path).unwrap_or_default();
            steps.extend(behind.into_iter().chain(before.into_iter().rev()));
        }
        steps
    }
}

fn moves(step: &Step) -> bool {
    matches!(step.change, Change::File { origin: Origin::Fetch | Origin::Copy(_) | Origin::Move(_), .. })
}

/// The steps in the order in which a dry run tells of them: it waits for nothing.
pub(super) fn without_waiting(steps: Vec<&Step>) -> Vec<&Step> {
    let moving: HashMap<&TreePath, u64> =
        steps.iter().filter(|step| moves(step)).map(|step| (&step.path, step.rank)).collect();
    let mut at = 0;
    let mut keyed: Vec<_> = steps
        .into_iter()
        .map(|step| {
            let lead = match &step.change {
                Change::Link { leader, .. } => moving.get(leader).copied(),
                _ => None,
            };
            let key = match lead {
                Some(lead) if lead > step.rank => (lead, Reverse(step.rank)),
                Some(_) => (step.rank, Reverse(u64::MAX)),
                None => {
                    at = step.rank.max(at);
                    (at, Reverse(u64::MAX))
                }
            };
            (key, step)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, step)| step).collect()
}
