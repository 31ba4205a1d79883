//! Carries out a [`Plan`] in the destination: contents first, late files last, deletions after that, and one sync at either
//! end. No path vanishes in between: every replacement is one rename.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;

use super::backup::Backups;
use super::dest::Found;
use super::plan::{Backup, Change, LocalKind, Origin, Plan, Step};
use crate::manifest::ContentId;
use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError, Kind, Stamp, Stat, clone_file};
use crate::store::locate::{DirCache, locate};
use crate::store::stage::Stage;

/// Bits that the pass itself needs in a directory while it works there.
const WORKING_MODE: u16 = 0o700;
/// Problems listed by path; more are only counted by the exit code.
const MAX_PROBLEMS: usize = 1000;
/// Where what did not come from the network waits under numbers, attributes and all, for its one rename.
const READY_DIR: &str = "ready";

/// What placing did.
#[derive(Debug, Default)]
pub struct Placed {
    /// Entries removed.
    pub deleted: u64,
    /// Paths that could not be brought to the wanted state, and why (exit 23).
    pub problems: Vec<(TreePath, String)>,
}

/// Everything that placing needs.
pub struct Placing<'a> {
    /// DEST.
    pub root: &'a Dir,
    /// What was seen in it.
    pub found: &'a Found,
    /// Our own directory in it.
    pub own: &'a Dir,
    /// Where verified contents wait.
    pub stage: &'a Stage,
    /// What to do.
    pub plan: &'a Plan,
    /// Where replaced and deleted files of the user's go, if anywhere.
    pub backup: Option<&'a Backup>,
    /// Where they go, if not below DEST.
    pub backups: Option<&'a Dir>,
    /// The directories of `--link-dest` and its like, and what was seen in them.
    pub bases: Vec<(&'a Dir, &'a Found)>,
    /// Keep superseded and deleted files for others to finish with (mirrors).
    pub keep_old: bool,
    /// Seconds since the epoch.
    pub now: u64,
}

impl Placing<'_> {
    /// Places everything; `is_late` names the files that switch last (indexes that point at others).
    ///
    /// # Errors
    /// A full or failing disk ends the pass; whatever else goes wrong with one path is listed in [`Placed::problems`].
    pub fn run(&self, is_late: impl Fn(&TreePath) -> bool) -> Result<Placed, FileError> {
        let mut placed = Placed::default();
        if !self.plan.has_changes() {
            return Ok(placed);
        }
        let ready = empty_dir(self.own, READY_DIR)?;
        self.let_in(&mut placed)?;
        // Before anything changes: a file that makes room for a directory may be what another is copied from.
        let waiting = self.assemble(&ready, &mut placed)?;
        self.make_directories(&mut placed)?;
        self.root.sync_fs()?;
        let (late, early): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|one| is_late(&one.step.path));
        let mut tree = self.tree();
        for Waiting { step, number, staged } in early.iter().chain(&late) {
            let (from, name) = match staged {
                Some(id) => (self.stage.dir(), id.hex()),
                None => (&ready, number.to_string()),
            };
            guard(&mut placed, &step.path, self.switch(&mut tree, from, step, &name))?;
        }
        self.link_and_touch(&ready, &mut tree, &mut placed)?;
        self.delete(&mut placed)?;
        self.set_directories(&mut placed)?;
        self.root.sync_fs()?;
        Ok(placed)
    }

    fn tree(&self) -> Tree<'_> {
        let doomed = self.plan.steps.iter().filter(|step| step.change == Change::Delete);
        Tree { dirs: DirCache::new(self.root.clone()), doomed: doomed.map(|step| (&step.path, step)).collect() }
    }

    /// Directories that are there must let us in.
    fn let_in(&self, placed: &mut Placed) -> Result<(), FileError> {
        for parent in self.parents() {
            if parent.is_root() {
                continue;
            }
            let Ok((dir, name)) = locate(self.root, &parent) else { continue };
            let is_shut = |stat: Stat| stat.kind == Kind::Dir && stat.mode & WORKING_MODE != WORKING_MODE;
            if dir.stat(&name).is_ok_and(is_shut) {
                guard(placed, &parent, dir.set_mode(&name, WORKING_MODE))?;
            }
        }
        Ok(())
    }

    fn make_directories(&self, placed: &mut Placed) -> Result<(), FileError> {
        let made = |step: &&Step| step.change == Change::MakeDir && !step.path.is_root();
        for step in self.plan.steps.iter().filter(made) {
            guard(placed, &step.path, self.make_directory(step))?;
        }
        Ok(())
    }

    fn make_directory(&self, step: &Step) -> Result<(), FileError> {
        let (dir, name) = locate(self.root, &step.path)?;
        if let Some(old) = &step.replaces {
            self.retire(&dir, &name, &old.kind)?;
            self.back_up(step, &dir, &name)?;
            dir.unlink(&name)?;
        }
        match dir.make_dir(&name) {
            // It could not be seen: nobody may list what is above it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_dir(&dir, &name) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Directories in which some step changes something.
    fn parents(&self) -> BTreeSet<TreePath> {
        self.plan.steps.iter().filter_map(|step| step.path.parent()).collect()
    }

    /// Prepares every file and symlink, attributes and all; says where each waits.
    fn assemble(&self, ready: &Dir, placed: &mut Placed) -> Result<Vec<Waiting<'_>>, FileError> {
        let mut uses = further_uses(self.plan);
        let mut waiting = Vec::new();
        for (number, step) in self.plan.steps.iter().enumerate() {
            let result = match &step.change {
                Change::File { id, origin: Origin::Fetch, .. } => {
                    self.assemble_fetched(ready, step, (*id, number), &mut uses)
                }
                Change::File { origin, .. } => {
                    self.assemble_copy(ready, step, origin, &number.to_string()).map(|()| None)
                }
                Change::Symlink(target) => {
                    self.assemble_symlink(ready, step, target, &number.to_string()).map(|()| None)
                }
                _ => continue,
            };
            match result {
                Ok(staged) => waiting.push(Waiting { step, number, staged }),
                Err(error) => guard(placed, &step.path, Err(error))?,
            }
        }
        Ok(waiting)
    }

    /// A staged content waits where it is for its last use.
    fn assemble_fetched(
        &self,
        ready: &Dir,
        step: &Step,
        (id, number): (ContentId, usize),
        uses: &mut HashMap<ContentId, usize>,
    ) -> Result<Option<ContentId>, FileError> {
        match uses.get_mut(&id).filter(|left| **left > 0) {
            Some(left) => {
                *left -= 1;
                let name = number.to_string();
                copy(&self.stage.open_file(&id)?, ready, &name)?;
                give(ready, &name, step)?;
                Ok(None)
            }
            None => {
                give(self.stage.dir(), &id.hex(), step)?;
                Ok(Some(id))
            }
        }
    }

    /// What stands on this machine already goes to `ready`, as long as it is what it was when it was looked at.
    fn assemble_copy(&self, ready: &Dir, step: &Step, origin: &Origin, name: &str) -> Result<(), FileError> {
        let ((root, found), path, link) = match origin {
            Origin::Fetch => return Ok(()),
            Origin::Move(from) => ((self.root, self.found), from, true),
            Origin::Copy(from) => ((self.root, self.found), from, false),
            Origin::Basis { number, path, link } => match self.bases.get(*number) {
                Some(basis) => (*basis, path, *link),
                None => return Ok(()),
            },
        };
        let (dir, old) = locate(root, path)?;
        check_state(&dir, &old, found.stamps.get(path))?;
        // Another file system cannot be linked to, and some know no links.
        let linked = link && ok_unless_disk(dir.link(&old, ready, name))?;
        if !linked {
            copy(&dir.open_file(&old)?, ready, name)?;
        }
        check_state(&dir, &old, found.stamps.get(path))?;
        // What is linked has its attributes, and shares them.
        if linked { Ok(()) } else { give(ready, name, step) }
    }

    fn assemble_symlink(&self, ready: &Dir, step: &Step, target: &[u8], name: &str) -> Result<(), FileError> {
        ready.symlink(target, name)?;
        set_mtime(ready, name.as_bytes(), step.mtime)
    }

    /// One rename: the path shows the old entry until it shows the new one.
    fn switch(&self, tree: &mut Tree<'_>, from: &Dir, step: &Step, name: &str) -> Result<(), FileError> {
        let (dir, last) = tree.dirs.locate(&step.path).map(|(dir, last)| (dir.clone(), last))?;
        if let Some(old) = &step.replaces {
            if old.kind == LocalKind::Dir {
                self.clear(&tree.doomed, &step.path)?;
                dir.remove_dir(&last)?;
                tree.dirs.clear();
            } else {
                self.retire(&dir, &last, &old.kind)?;
                self.back_up(step, &dir, &last)?;
            }
        }
        from.rename(name, &dir, &last)
    }

    /// A directory makes room for a file: what the plan deletes below it goes first.
    fn clear(&self, doomed: &BTreeMap<&TreePath, &Step>, path: &TreePath) -> Result<(), FileError> {
        let below =
            doomed.range::<&TreePath, _>(path..).skip_while(|(other, _)| **other == path).map(|(_, step)| *step);
        let below: Vec<&Step> = below.take_while(|step| path.contains(&step.path)).collect();
        // Children before their directories.
        below.into_iter().rev().try_for_each(|step| self.remove(step))
    }

    fn link_and_touch(&self, ready: &Dir, tree: &mut Tree<'_>, placed: &mut Placed) -> Result<(), FileError> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            let result = match &step.change {
                Change::Link { leader, .. } => self.link(ready, tree, step, (leader, &number.to_string())),
                Change::Touch => self.touch(step),
                _ => continue,
            };
            guard(placed, &step.path, result)?;
        }
        Ok(())
    }

    fn link(
        &self,
        ready: &Dir,
        tree: &mut Tree<'_>,
        step: &Step,
        (leader, name): (&TreePath, &str),
    ) -> Result<(), FileError> {
        let (from, old) = locate(self.root, leader)?;
        from.link(&old, ready, name)?;
        self.switch(tree, ready, step, name)?;
        // A rename between two names of one file does nothing and leaves the first.
        ok_if_missing(ready.unlink(name))
    }

    fn touch(&self, step: &Step) -> Result<(), FileError> {
        let (dir, name) = locate(self.root, &step.path)?;
        let is_link = matches!(step.replaces.as_ref().map(|old| &old.kind), Some(LocalKind::Symlink(_)));
        if !is_link {
            dir.set_mode(&name, step.mode)?;
        }
        set_mtime(&dir, name.as_bytes(), step.mtime)
    }

    fn delete(&self, placed: &mut Placed) -> Result<(), FileError> {
        for step in self.plan.steps.iter().filter(|step| step.change == Change::Delete) {
            let result = self.remove(step);
            placed.deleted += u64::from(result.is_ok());
            guard(placed, &step.path, result)?;
        }
        Ok(())
    }

    fn remove(&self, step: &Step) -> Result<(), FileError> {
        let Some(old) = &step.replaces else { return Ok(()) };
        let Some((dir, name)) = found(locate(self.root, &step.path))? else { return Ok(()) };
        if old.kind == LocalKind::Dir {
            return ok_if_missing(dir.remove_dir(&name));
        }
        ok_if_missing(self.retire(&dir, &name, &old.kind))?;
        ok_if_missing(self.back_up(step, &dir, &name))?;
        ok_if_missing(dir.unlink(&name))
    }

    /// Keeps an old file by a second name, so that others can finish with it and small patches can be made from it.
    fn retire(&self, dir: &Dir, name: &Name, old: &LocalKind) -> Result<(), FileError> {
        match old {
            LocalKind::File { id: Some(id), .. } if self.keep_old => {
                match self.stage.keep(id, dir, name, self.now) {
                    // A file system without hard links keeps nothing, and is replaced all the same.
                    Err(error) if error.is_no_link() => {
                        tracing::debug!(%error, "not kept");
                        Ok(())
                    }
                    kept => kept,
                }
            }
            _ => Ok(()),
        }
    }

    /// Keeps an old file where the user wants backups.
    fn back_up(&self, step: &Step, dir: &Dir, name: &Name) -> Result<(), FileError> {
        let root = self.backups.unwrap_or(self.root);
        let wanted = self.backup.filter(|backup| step.backs_up(backup));
        wanted.map_or(Ok(()), |backup| Backups { dest: self.root, root, backup }.keep(&step.path, dir, name))
    }

    /// Attributes of directories come last, deepest first: every change below had moved their times.
    fn set_directories(&self, placed: &mut Placed) -> Result<(), FileError> {
        let mut paths = self.parents();
        let own = |step: &&Step| matches!(step.change, Change::MakeDir | Change::SetDir);
        paths.extend(self.plan.steps.iter().filter(own).map(|step| step.path.clone()));
        for path in paths.iter().rev() {
            let Some((mode, mtime)) = self.plan.dirs.get(path) else { continue };
            guard(placed, path, self.set_directory(path, *mode, *mtime))?;
        }
        Ok(())
    }

    fn set_directory(&self, path: &TreePath, mode: u16, mtime: Option<i64>) -> Result<(), FileError> {
        if path.is_root() {
            self.root.set_own_mode(mode)?;
            return mtime.map_or(Ok(()), |mtime| self.root.set_own_mtime(mtime));
        }
        let (dir, name) = locate(self.root, path)?;
        dir.set_mode(&name, mode)?;
        set_mtime(&dir, name.as_bytes(), mtime)
    }
}

/// The destination while things change places in it.
struct Tree<'a> {
    dirs: DirCache,
    /// What the plan deletes.
    doomed: BTreeMap<&'a TreePath, &'a Step>,
}

/// What waits for its one rename: in the stage under its content id, or where things are ready under its number.
struct Waiting<'a> {
    step: &'a Step,
    number: usize,
    staged: Option<ContentId>,
}

/// How often a content that comes from others is needed beside the first time.
fn further_uses(plan: &Plan) -> HashMap<ContentId, usize> {
    let fetched = plan.steps.iter().filter_map(|step| match &step.change {
        Change::File { id, origin: Origin::Fetch, .. } => Some(*id),
        _ => None,
    });
    let mut ids: Vec<ContentId> = fetched.collect();
    ids.sort_unstable();
    let same = ids.chunk_by(|one, next| one == next).filter(|same| same.len() > 1);
    same.filter_map(|same| Some((*same.first()?, same.len() - 1))).collect()
}

/// Somebody may have written to a file since it was looked at: then it is not what it was wanted for.
fn check_state(dir: &Dir, name: &Name, seen: Option<&Stamp>) -> Result<(), FileError> {
    let now = dir.stat(name)?.stamp;
    if seen.is_some_and(|seen| seen.is_same_file(&now)) {
        return Ok(());
    }
    Err(FileError::new("copy", &dir.path().join(name.to_string()), std::io::Error::other("changed meanwhile")))
}

/// Gives a file the attributes of its step; most of what was fetched came with them.
fn give(dir: &Dir, name: &str, step: &Step) -> Result<(), FileError> {
    let now = dir.stat(name)?;
    if now.mode != step.mode {
        dir.set_mode(name, step.mode)?;
    }
    set_mtime(dir, name.as_bytes(), step.mtime.filter(|mtime| now.stamp.mtime != *mtime))
}

/// Lets one path fail, but not the disk.
fn guard(placed: &mut Placed, path: &TreePath, result: Result<(), FileError>) -> Result<(), FileError> {
    match result {
        Err(error) if is_disk(&error) => Err(error),
        Err(error) => {
            if placed.problems.len() < MAX_PROBLEMS {
                placed.problems.push((path.clone(), error.to_string()));
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Whether it went well; a failing disk is no answer.
fn ok_unless_disk(result: Result<(), FileError>) -> Result<bool, FileError> {
    match result {
        Err(error) if is_disk(&error) => Err(error),
        other => Ok(other.is_ok()),
    }
}

/// Failures after which every other path would fail as well.
fn is_disk(error: &FileError) -> bool {
    error.is_full() || error.is_read_only()
}

fn is_dir(dir: &Dir, name: &Name) -> bool {
    dir.stat(name).is_ok_and(|stat| stat.kind == Kind::Dir)
}

fn set_mtime(dir: &Dir, name: &[u8], mtime: Option<i64>) -> Result<(), FileError> {
    mtime.map_or(Ok(()), |mtime| dir.set_mtime(name, mtime))
}

fn ok_if_missing(result: Result<(), FileError>) -> Result<(), FileError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

/// None where the path is gone, or what led to it has made room for a file.
fn found<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Err(error) if error.is_missing() || error.is_other_kind() => Ok(None),
        other => other.map(Some),
    }
}

/// A directory of ours with nothing in it.
fn empty_dir(own: &Dir, name: &str) -> Result<Dir, FileError> {
    let dir = own.child_or_make(name)?;
    for (left, _) in dir.entries()? {
        dir.unlink(&left)?;
    }
    Ok(dir)
}

fn copy(from: &std::fs::File, ready: &Dir, name: &str) -> Result<(), FileError> {
    let to = ready.create_new(name)?;
    clone_file(from, &to).map_err(|error| FileError::new("copy to", &ready.path().join(name), error))
}

#[cfg(test)]
mod tests;
