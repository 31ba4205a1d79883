//! Where a plan leaves files in another state than they were found in.

use std::collections::HashSet;

use super::{Change, LocalKind, LocalTree, Plan};
use crate::manifest::path::TreePath;

impl Plan {
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
    use crate::sync::plan::{Local, Step};

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
}
