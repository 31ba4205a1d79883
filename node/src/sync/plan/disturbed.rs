//! Where a plan leaves files in another state than they were found in, and which.

use std::collections::HashSet;

use super::{Change, Local, LocalKind, LocalTree, Plan, Step};
use crate::manifest::ContentId;
use crate::manifest::path::TreePath;
use crate::store::files::Stamp;

/// How much of a time some file systems forget, ns: FAT counts in two seconds.
const GRAIN: u64 = 2_000_000_000;

/// What a step leaves at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    id: ContentId,
    size: u64,
    /// None where times are not kept.
    mtime: Option<i64>,
}

impl Left {
    /// What stands there already, if its content is known.
    fn of(local: &Local) -> Option<Self> {
        match local.kind {
            LocalKind::File { size, id: Some(id), .. } => Some(Self { id, size, mtime: Some(local.mtime) }),
            _ => None,
        }
    }

    /// What a step writes, if it writes a file.
    fn written(step: &Step) -> Option<Self> {
        match step.change {
            Change::File { id, size, .. } => Some(Self { id, size, mtime: step.mtime }),
            _ => None,
        }
    }

    /// The content of a file in this state: none if somebody else has written to it since.
    pub fn content(&self, stamp: &Stamp) -> Option<ContentId> {
        let same_time = self.mtime.is_none_or(|mtime| mtime.abs_diff(stamp.mtime) < GRAIN);
        (same_time && self.size == stamp.size).then_some(self.id)
    }
}

/// What stands, once all is done, at the paths of files that were written, linked or touched. Of what stays as it is nothing is
/// said: by the flags that may be another content than the module's.
pub struct Outcome<'a> {
    /// By path.
    steps: Vec<&'a Step>,
    /// What got further names.
    leaders: HashSet<&'a TreePath>,
    found: &'a LocalTree,
}

impl Outcome<'_> {
    /// What stands at a path.
    pub fn at(&self, path: &TreePath) -> Option<Left> {
        let Some(step) = self.step(path) else { return self.stood(path).filter(|_| self.leaders.contains(path)) };
        match &step.change {
            Change::File { .. } => Left::written(step),
            Change::Link { leader, .. } => self.step(leader).and_then(Left::written).or_else(|| self.stood(leader)),
            Change::Touch => self.stood(path).map(|left| Left { mtime: step.mtime.or(left.mtime), ..left }),
            _ => self.stood(path).filter(|_| self.leaders.contains(path)),
        }
    }

    fn step(&self, path: &TreePath) -> Option<&Step> {
        let at = self.steps.binary_search_by_key(&path, |step| &step.path).ok()?;
        self.steps.get(at).copied()
    }

    fn stood(&self, path: &TreePath) -> Option<Left> {
        self.found.get(path).and_then(Left::of)
    }
}

impl Plan {
    /// What stands once all is done. A plan of which nothing may have been done leaves nothing.
    pub fn outcome<'a>(&'a self, found: &'a LocalTree, is_done: bool) -> Outcome<'a> {
        let mut steps: Vec<&Step> = self.steps.iter().filter(|_| is_done).collect();
        steps.sort_unstable_by_key(|step| &step.path);
        let leader = |step: &&'a Step| match &step.change {
            Change::Link { leader, .. } => Some(leader),
            _ => None,
        };
        Outcome { leaders: steps.iter().filter_map(leader).collect(), steps, found }
    }

    /// The directories of files that are new or gone, or whose content, times or number of names change.
    pub fn disturbed(&self, found: &LocalTree) -> HashSet<TreePath> {
        let (mut dirs, mut inodes) = (HashSet::new(), HashSet::new());
        for step in self.steps.iter().filter(|step| !step.change.is_keep()) {
            dirs.extend(step.path.parent());
            if let Change::Link { leader, .. } = &step.change {
                dirs.extend(leader.parent());
            }
            if let Some(LocalKind::File { inode, .. }) = step.replaces.as_ref().map(|old| &old.kind) {
                inodes.insert(*inode);
            }
        }
        // A file that loses one of its names shows it at the others.
        let names = found.iter().filter(|(_, local)| match &local.kind {
            LocalKind::File { inode, .. } => inodes.contains(inode),
            _ => false,
        });
        dirs.extend(names.filter_map(|(path, _)| path.parent()));
        dirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn local(inode: u64) -> Local {
        Local { kind: LocalKind::File { size: 1, id: None, inode }, mode: 0o644, mtime: 0 }
    }

    fn step(at: &str, change: Change, replaces: Option<Local>) -> Step {
        Step {
            path: path(at),
            change,
            mode: 0o644,
            mtime: None,
            rank: 1,
            replaces: replaces.map(Box::new),
            beside: None,
        }
    }

    #[test]
    fn names_that_share_a_file_are_disturbed_together() {
        let found: LocalTree =
            [("a/x", 1), ("b/x", 1), ("c/y", 2), ("d/z", 3)].map(|(at, inode)| (path(at), local(inode))).into();
        let steps = vec![
            step("a/x", Change::Delete, Some(local(1))),
            step("c/y", Change::Keep { linked: false }, Some(local(2))),
            step("e/l", Change::Link { leader: path("d/z"), size: 1 }, None),
        ];
        let plan = Plan { steps, ..Plan::default() };
        assert_eq!(plan.disturbed(&found), ["a", "b", "d", "e"].map(path).into());
        assert!(Plan::default().disturbed(&found).is_empty());
    }

    #[test]
    fn what_is_left_is_known_of_what_was_written_alone() {
        let (new, old) = (ContentId([1; 32]), ContentId([2; 32]));
        let known = Local { kind: LocalKind::File { size: 1, id: Some(old), inode: 7 }, mode: 0o644, mtime: 50 };
        let found: LocalTree =
            ["kept", "touched", "leader", "by size"].map(|at| (path(at), known.clone())).into_iter().collect();
        let file = Change::File { id: new, size: 3, origin: super::super::Origin::Fetch, number: 0 };
        let mut steps = vec![
            step("new", file, None),
            step("kept", Change::Keep { linked: false }, Some(known.clone())),
            step("touched", Change::Touch, Some(known)),
            step("name", Change::Link { leader: path("leader"), size: 1 }, None),
        ];
        steps[0].mtime = Some(90);
        steps[2].mtime = Some(70);
        let plan = Plan { steps, ..Plan::default() };
        let outcome = plan.outcome(&found, true);
        let content =
            |at: &str, size, mtime| outcome.at(&path(at))?.content(&Stamp { size, mtime, ctime: 0, ino: 0, dev: 0 });
        assert_eq!(content("new", 3, 90), Some(new));
        assert_eq!(content("new", 4, 90), None, "another size");
        assert_eq!(content("new", 3, 90 + 5_000_000_000), None, "written to meanwhile");
        assert_eq!((content("touched", 1, 70), content("name", 1, 50)), (Some(old), Some(old)));
        assert_eq!(content("leader", 1, 50), Some(old), "its number of names changes");
        assert_eq!((outcome.at(&path("kept")), outcome.at(&path("by size"))), (None, None));
        assert_eq!(plan.outcome(&found, false).at(&path("new")), None);
    }
}
