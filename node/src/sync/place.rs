//! Carries out a [`Plan`] in the destination: contents first, late files last, deletions after that, and one sync at either
//! end. No path vanishes in between: every replacement is one rename.

use std::collections::{BTreeSet, HashMap};

use super::plan::{Change, LocalKind, Origin, Plan, Rules, Step};
use crate::manifest::ContentId;
use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError, locate};
use crate::store::stage::Stage;

/// Bits that the pass itself needs in a directory while it works there.
const WORKING_MODE: u16 = 0o700;
/// Problems listed by path; more are only counted.
const MAX_PROBLEMS: usize = 1000;

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
    /// Where verified contents wait.
    pub stage: &'a Stage,
    /// What to do.
    pub plan: &'a Plan,
    /// Which attributes to set.
    pub rules: Rules,
    /// Keep superseded and deleted files for others to finish with (mirrors).
    pub keep_old: bool,
    /// The process's umask, for files that get no permissions from the module.
    pub umask: u16,
}

impl Placing<'_> {
    /// Places everything; `is_late` names the files that switch last (indexes that point at others).
    ///
    /// # Errors
    /// A full or failing disk ends the pass; whatever else goes wrong with one path is listed in [`Placed::problems`].
    pub fn run(&self, is_late: impl Fn(&TreePath) -> bool) -> Result<Placed, FileError> {
        let mut placed = Placed::default();
        self.make_directories(&mut placed)?;
        let ready = self.assemble(&mut placed)?;
        self.root.sync_fs()?;
        let (late, early): (Vec<_>, Vec<_>) = ready.into_iter().partition(|(step, _)| is_late(&step.path));
        for (step, name) in early.iter().chain(&late) {
            self.guard(&mut placed, &step.path, self.switch(step, name))?;
        }
        self.link_and_touch(&mut placed)?;
        self.delete(&mut placed)?;
        self.set_directories(&mut placed)?;
        self.root.sync_fs()?;
        Ok(placed)
    }

    /// Lets one path fail, but not the disk.
    fn guard(&self, placed: &mut Placed, path: &TreePath, result: Result<(), FileError>) -> Result<(), FileError> {
        match result {
            Err(error) if error.is_disk() => Err(error),
            Err(error) => {
                if placed.problems.len() < MAX_PROBLEMS {
                    placed.problems.push((path.clone(), error.to_string()));
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn make_directories(&self, placed: &mut Placed) -> Result<(), FileError> {
        for parent in self.parents() {
            if let Some(Ok((dir, name))) = locate_existing(self.root, &parent) {
                let open = dir.stat(&name).map(|stat| stat.mode & WORKING_MODE == WORKING_MODE);
                if matches!(open, Ok(false)) {
                    self.guard(placed, &parent, dir.set_mode(&name, WORKING_MODE))?;
                }
            }
        }
        for step in self.plan.steps.iter().filter(|step| step.change == Change::MakeDir) {
            self.guard(placed, &step.path, self.make_directory(step))?;
        }
        Ok(())
    }

    fn make_directory(&self, step: &Step) -> Result<(), FileError> {
        let (dir, name) = locate(self.root, &step.path)?;
        if let Some(old) = &step.replaces {
            self.retire(&dir, &name, &old.kind)?;
            dir.unlink(&name)?;
        }
        dir.make_dir(&name, step.mode | WORKING_MODE)
    }

    /// Directories that exist now and that some step changes.
    fn parents(&self) -> BTreeSet<TreePath> {
        self.plan.steps.iter().filter_map(|step| step.path.parent()).collect()
    }

    /// Prepares every file and symlink under a name in the stage, attributes and all.
    fn assemble(&self, placed: &mut Placed) -> Result<Vec<(&Step, Name)>, FileError> {
        let mut uses: HashMap<ContentId, usize> = HashMap::new();
        for step in &self.plan.steps {
            if let Change::File { id, origin: Origin::Fetch, .. } = &step.change {
                *uses.entry(*id).or_default() += 1;
            }
        }
        let mut ready = Vec::new();
        for (number, step) in self.plan.steps.iter().enumerate() {
            let name = Stage::ready_name(number);
            let result = match &step.change {
                Change::File { id, origin, .. } => self.assemble_file(step, *id, origin, &name, &mut uses),
                Change::Symlink(target) => self.assemble_symlink(step, target, &name),
                _ => continue,
            };
            let fine = result.is_ok();
            self.guard(placed, &step.path, result)?;
            if fine {
                ready.push((step, name));
            }
        }
        Ok(ready)
    }

    fn assemble_file(
        &self,
        step: &Step,
        id: ContentId,
        origin: &Origin,
        name: &Name,
        uses: &mut HashMap<ContentId, usize>,
    ) -> Result<(), FileError> {
        let ready = self.stage.ready();
        match origin {
            Origin::Move(from) => {
                let (dir, old) = locate(self.root, from)?;
                return dir.link(&old, ready, name);
            }
            Origin::Copy(from) => {
                let (dir, old) = locate(self.root, from)?;
                dir.copy(&old, ready, name)?;
            }
            Origin::Fetch => {
                let left = uses.entry(id).or_default();
                *left = left.saturating_sub(1);
                if *left > 0 { self.stage.copy(&id, name)? } else { self.stage.take(&id, name)? }
            }
        }
        self.set_attributes(ready, name, step)
    }

    fn assemble_symlink(&self, step: &Step, target: &[u8], name: &Name) -> Result<(), FileError> {
        self.stage.ready().symlink(target, name)?;
        if self.rules.times { self.stage.ready().set_mtime(name, step.mtime) } else { Ok(()) }
    }

    fn set_attributes(&self, dir: &Dir, name: &Name, step: &Step) -> Result<(), FileError> {
        let mode = match (&step.replaces, self.rules.perms) {
            (_, true) => step.mode,
            (Some(old), false) => old.mode,
            (None, false) => step.mode & !self.umask,
        };
        dir.set_mode(name, mode)?;
        if self.rules.times { dir.set_mtime(name, step.mtime) } else { Ok(()) }
    }

    /// One rename: the path shows the old entry until it shows the new one.
    fn switch(&self, step: &Step, ready: &Name) -> Result<(), FileError> {
        let (dir, name) = locate(self.root, &step.path)?;
        if let Some(old) = &step.replaces {
            if old.kind == LocalKind::Dir {
                self.clear(&step.path)?;
                dir.remove_dir(&name)?;
            } else {
                self.retire(&dir, &name, &old.kind)?;
            }
        }
        self.stage.ready().rename(ready, &dir, &name)
    }

    /// A directory makes room for a file: what the plan deletes below it goes first.
    fn clear(&self, path: &TreePath) -> Result<(), FileError> {
        let below = self.plan.steps.iter().filter(|step| step.change == Change::Delete && path.contains(&step.path));
        for step in below {
            self.remove(step)?;
        }
        Ok(())
    }

    fn link_and_touch(&self, placed: &mut Placed) -> Result<(), FileError> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            let result = match &step.change {
                Change::Link(leader) => self.link(step, leader, &Stage::ready_name(number)),
                Change::Touch => self.touch(step),
                _ => continue,
            };
            self.guard(placed, &step.path, result)?;
        }
        Ok(())
    }

    fn link(&self, step: &Step, leader: &TreePath, ready: &Name) -> Result<(), FileError> {
        let (from, old) = locate(self.root, leader)?;
        from.link(&old, self.stage.ready(), ready)?;
        self.switch(step, ready)?;
        // A rename between two names of one file does nothing and leaves the first: nothing to keep there.
        self.stage.ready().unlink(ready).or_else(FileError::ok_if_missing)
    }

    fn touch(&self, step: &Step) -> Result<(), FileError> {
        let (dir, name) = locate(self.root, &step.path)?;
        let is_link = matches!(step.replaces.as_ref().map(|old| &old.kind), Some(LocalKind::Symlink(_)));
        if self.rules.perms && !is_link {
            dir.set_mode(&name, step.mode)?;
        }
        if self.rules.times { dir.set_mtime(&name, step.mtime) } else { Ok(()) }
    }

    fn delete(&self, placed: &mut Placed) -> Result<(), FileError> {
        for step in self.plan.steps.iter().filter(|step| step.change == Change::Delete) {
            let result = self.remove(step);
            placed.deleted += u64::from(result.is_ok());
            self.guard(placed, &step.path, result)?;
        }
        Ok(())
    }

    fn remove(&self, step: &Step) -> Result<(), FileError> {
        let (dir, name) = locate(self.root, &step.path)?;
        let Some(old) = &step.replaces else { return Ok(()) };
        let result = if old.kind == LocalKind::Dir {
            dir.remove_dir(&name)
        } else {
            self.retire(&dir, &name, &old.kind)?;
            dir.unlink(&name)
        };
        result.or_else(FileError::ok_if_missing)
    }

    /// Keeps an old file by a second name, so that others can finish with it and small patches can be made from it.
    fn retire(&self, dir: &Dir, name: &Name, old: &LocalKind) -> Result<(), FileError> {
        match old {
            LocalKind::File { id: Some(id), .. } if self.keep_old => self.stage.keep_old(dir, name, id),
            _ => Ok(()),
        }
    }

    /// Attributes of directories come last, deepest first: every change below had moved their times.
    fn set_directories(&self, placed: &mut Placed) -> Result<(), FileError> {
        let mut paths = self.parents();
        let own = |step: &&Step| matches!(step.change, Change::MakeDir | Change::SetDir);
        paths.extend(self.plan.steps.iter().filter(own).map(|step| step.path.clone()));
        for path in paths.iter().rev() {
            let Some((mode, mtime)) = self.plan.dirs.get(path) else { continue };
            self.guard(placed, path, self.set_directory(path, *mode, *mtime))?;
        }
        Ok(())
    }

    fn set_directory(&self, path: &TreePath, mode: u16, mtime: i64) -> Result<(), FileError> {
        let Some(located) = locate_existing(self.root, path) else {
            self.root.set_own_mode_if(self.rules.perms, mode)?;
            return if self.rules.times { self.root.set_own_mtime(mtime) } else { Ok(()) };
        };
        let (dir, name) = located?;
        dir.set_mode(&name, if self.rules.perms { mode } else { mode & !self.umask | WORKING_MODE })?;
        if self.rules.times { dir.set_mtime(&name, mtime) } else { Ok(()) }
    }
}

/// None for the root of the tree, which has no name of its own.
fn locate_existing(root: &Dir, path: &TreePath) -> Option<Result<(Dir, Name), FileError>> {
    path.name().map(|_| locate(root, path))
}
