//! What of the destination the module does not have, and what of that the filter spares.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::{Backup, Change, LocalKind, LocalTree, Step};
use crate::manifest::filter::{Filter, FilterError, Inside, Scope, Side, Subject};
use crate::manifest::path::{Name, TreePath};

/// What deletion must spare: the filter, and the files of rules that stand in the destination.
pub struct Guard<'a> {
    /// The rules.
    pub filter: &'a Filter,
    /// Gives the content of a file of rules, if it stands there.
    pub read: &'a dyn Fn(&TreePath) -> Option<Vec<u8>>,
    /// The root of the destination stands for a directory whose content was asked for.
    pub root_listed: bool,
}

/// How deletion meets a directory.
#[derive(Clone)]
enum Fate {
    /// It is compared with the module's; its rules.
    Compared(Scope),
    /// It goes away with all that nothing protects.
    Dying(Scope),
    /// Nothing in it is looked at.
    Left,
}

/// Everything that decides about deletion.
pub(super) struct Doom<'a> {
    pub local: &'a LocalTree,
    /// Paths of the module.
    pub wanted: &'a HashSet<&'a TreePath>,
    /// Those of them that are directories.
    pub dirs: HashSet<&'a TreePath>,
    /// Directories in whose place something else is put.
    pub giving_way: HashSet<&'a TreePath>,
    /// Those of them whose content was asked for.
    pub listed: HashSet<&'a TreePath>,
    /// The root is compared with the module's.
    pub compared: bool,
    pub guard: &'a Guard<'a>,
    /// Where deleted files stay.
    pub backup: Option<&'a Backup>,
}

impl Doom<'_> {
    /// Deletions, children before their directories, and the directories that stay for what stays in them.
    pub(super) fn steps(&self) -> (Vec<Step>, Vec<TreePath>) {
        let mut fates: HashMap<&TreePath, Fate> = HashMap::new();
        let root = TreePath::root();
        let top = match self.guard.enter(&self.guard.filter.top(), &root) {
            Some(scope) if self.compared => Fate::Compared(scope),
            _ => Fate::Left,
        };
        let (mut going, mut staying) = (Vec::new(), HashSet::new());
        for (path, old) in self.local {
            let parent = path.parent().unwrap_or_default();
            let above = if parent.is_root() { Some(&top) } else { fates.get(&parent) };
            let is_dir = old.kind == LocalKind::Dir;
            let (outer, dying) = match above {
                Some(Fate::Compared(scope)) => (scope.clone(), false),
                Some(Fate::Dying(scope)) => (scope.clone(), true),
                // Where nothing is deleted, directories further down may still have been asked for by name.
                _ if is_dir && (self.listed.contains(path) || self.giving_way.contains(path)) => {
                    (self.guard.filter.top(), false)
                }
                _ => {
                    staying.extend(path.parent());
                    continue;
                }
            };
            let inside = if is_dir { self.guard.enter(&outer, path) } else { None };
            let fate = if self.dirs.contains(path) {
                inside.filter(|_| self.listed.contains(path)).map_or(Fate::Left, Fate::Compared)
            } else if self.wanted.contains(path) {
                inside.filter(|_| self.giving_way.contains(path)).map_or(Fate::Left, Fate::Dying)
            } else if self.guard.protects(&outer, path, is_dir, dying) {
                staying.extend(path.parent());
                Fate::Left
            } else {
                going.push((path, old));
                let stays = |backup: &Backup| path.name().is_some_and(|name| backup.keeps_beside(name.as_bytes()));
                if !is_dir && self.backup.is_some_and(stays) {
                    staying.extend(path.parent());
                }
                inside.map_or(Fate::Left, Fate::Dying)
            };
            if is_dir {
                fates.insert(path, fate);
            }
        }
        let (mut steps, mut kept) = (Vec::new(), Vec::new());
        for (path, old) in going.into_iter().rev() {
            if staying.contains(path) {
                staying.extend(path.parent());
                kept.push(path.clone());
                continue;
            }
            let (mode, replaces) = (old.mode, Some(old.clone()));
            let (path, change) = (path.clone(), Change::Delete);
            steps.push(Step {
                path,
                change,
                mode,
                mtime: None,
                rank: 0,
                replaces: replaces.map(Box::new),
                beside: None,
            });
        }
        steps.sort_by_cached_key(|step| self.turn(&step.path));
        (steps, kept)
    }

    /// What sorts deletions as rsync makes them, which matters where `--max-delete` cuts them short: directory by directory of
    /// the module; in each the last name first, and what is in a directory before itself.
    fn turn(&self, path: &TreePath) -> (Vec<Part>, Reverse<Vec<Part>>) {
        let ups = std::iter::successors(path.parent(), TreePath::parent);
        let home = ups.into_iter().find(|dir| dir.is_root() || self.dirs.contains(dir)).unwrap_or_default();
        let is_dir = self.local.get(path).is_some_and(|old| old.kind == LocalKind::Dir);
        let (start, last) = (home.depth(), path.depth().saturating_sub(1));
        let below = path.components().enumerate().skip(start);
        let below = below.map(|(at, name)| part(&name, at < last || is_dir)).collect();
        (home.components().map(|name| part(&name, true)).collect(), Reverse(below))
    }
}

/// A name in rsync's order: in a directory what is no directory comes first, directories as if their names ended with a slash.
type Part = (bool, Vec<u8>);

fn part(name: &Name, is_dir: bool) -> Part {
    let slash: &[u8] = if is_dir { b"/" } else { b"" };
    (is_dir, [name.as_bytes(), slash].concat())
}

impl Guard<'_> {
    /// The rules inside a directory of the destination; none where they are refused: then nothing is deleted there.
    fn enter(&self, outer: &Scope, dir: &TreePath) -> Option<Scope> {
        let inside = Inside { dir, base: &TreePath::root(), above: false };
        self.filter.enter(outer, inside, &mut |path| Ok::<_, FilterError>((self.read)(path))).ok()
    }

    fn protects(&self, scope: &Scope, path: &TreePath, is_dir: bool, dying: bool) -> bool {
        let subject = Subject { path: path.as_bytes(), below: 0, is_dir };
        self.filter.verdict(scope, Side::Local, subject, dying) == Some(false)
    }
}
