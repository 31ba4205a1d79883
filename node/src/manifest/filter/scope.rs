//! The rules in force in one directory: those of its files, and what they inherit (rsync(1), "MERGE-FILE FILTER RULES").

use std::sync::Arc;

use super::parse::{CVS_IGNORED, FilterError, Manner, Parsed, lines, parse};
use super::rule::{Rule, Side, Subject, Traits};
use super::{Filter, Item, MAX_RULES, PerDir};
use crate::manifest::path::{Name, TreePath, escape};

/// Most names of per-directory files that files of a tree may add on the way to a directory.
const MAX_ADDED: usize = 64;
/// Files of rules that merge each other.
const MAX_NESTED: usize = 16;

/// The rules of per-directory files that are in force in one directory, by the file's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    lists: Vec<Arc<Vec<Item>>>,
    /// What files of directories above, or of this one, added: numbers go on behind those of the filter.
    added: Arc<Vec<PerDir>>,
}

/// Where a scope begins.
#[derive(Debug, Clone, Copy)]
pub struct Inside<'a> {
    /// The directory, from the root of the tree.
    pub dir: &'a TreePath,
    /// The transfer root: where a merge rule without a slash looks, as rsync does in its working directory.
    pub base: &'a TreePath,
    /// Above the transfer root only files that look at parents count.
    pub above: bool,
}

impl Filter {
    /// The scope above everything.
    pub fn top(&self) -> Scope {
        Scope { lists: vec![Arc::default(); self.per_dir.len()], added: Arc::default() }
    }

    /// The scope inside a directory; `read` gives the content of a file of the tree, if there is one.
    ///
    /// # Errors
    /// A file holds a rule that is refused, or names one that is not there; `read` fails.
    pub fn enter<E: From<FilterError>>(
        &self,
        outer: &Scope,
        inside: Inside<'_>,
        read: &mut impl FnMut(&TreePath) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Scope, E> {
        let mut reading = Reading { filter: self, scope: outer.clone(), inside, read };
        let mut number = 0;
        // One that a file adds counts in its own directory already.
        while let Some(files) = reading.per_dir(number) {
            reading.open(number, &files)?;
            number += 1;
        }
        Ok(reading.scope)
    }

    /// What the first matching rule says; none if no rule does. In a directory that is `dying` perishable rules do not count.
    pub fn verdict(&self, scope: &Scope, side: Side, subject: Subject<'_>, dying: bool) -> Option<bool> {
        let counts = |rule: &Rule| rule.sides.covers(side) && !(dying && rule.perishable) && rule.matches(subject);
        first(&self.items, scope, &counts)
    }
}

/// Lists refer to those of files that were added later only: there is no circle.
fn first(items: &[Item], scope: &Scope, counts: &impl Fn(&Rule) -> bool) -> Option<bool> {
    items.iter().find_map(|item| match item {
        Item::Rule(rule) => counts(rule).then_some(rule.include),
        Item::PerDir(number) => first(scope.lists.get(*number)?, scope, counts),
    })
}

struct Reading<'a, R> {
    filter: &'a Filter,
    scope: Scope,
    inside: Inside<'a>,
    read: &'a mut R,
}

/// The list of one file as it grows.
#[derive(Default)]
struct List {
    items: Vec<Item>,
    /// `!`: nothing is inherited.
    cleared: bool,
}

impl<E: From<FilterError>, R: FnMut(&TreePath) -> Result<Option<Vec<u8>>, E>> Reading<'_, R> {
    fn per_dir(&self, number: usize) -> Option<PerDir> {
        let fixed = &self.filter.per_dir;
        fixed.get(number).or_else(|| self.scope.added.get(number - fixed.len())).cloned()
    }

    /// Reads the directory's file of this number.
    fn open(&mut self, number: usize, files: &PerDir) -> Result<(), E> {
        let counts = !self.inside.above || files.parents;
        let path = Name::new(&files.name).ok().filter(|_| counts).and_then(|name| self.inside.dir.join(&name).ok());
        let content = path.map_or(Ok(None), |path| (self.read)(&path))?;
        let Some(known) = self.scope.lists.get(number).cloned() else { return Ok(()) };
        let list = match content {
            None if files.manner.no_inherit => Arc::default(),
            None => known,
            Some(content) => {
                let mut list = List::default();
                self.add(&mut list, &content, files.manner, 0)?;
                if !files.manner.no_inherit && !list.cleared {
                    list.items.extend_from_slice(&known);
                }
                Arc::new(list.items)
            }
        };
        if let Some(place) = self.scope.lists.get_mut(number) {
            *place = list;
        }
        Ok(())
    }

    fn add(&mut self, list: &mut List, content: &[u8], manner: Manner, nested: usize) -> Result<(), E> {
        let dir = self.inside.dir;
        let start = if dir.is_root() { 0 } else { dir.as_bytes().len() + 1 };
        // As in rsync, a leading slash in a file that is merged means the transfer root, not the directory.
        let start = (nested == 0).then_some(start);
        let inner = Manner { words: false, exclude_self: false, ..manner };
        for line in lines(content, manner) {
            match parse(line, inner, start)? {
                Parsed::Rule(rule) => list.items.push(Item::Rule(rule)),
                Parsed::Clear => *list = List { items: Vec::new(), cleared: true },
                Parsed::Cvs(manner) | Parsed::Merge(None, manner) => self.add(list, CVS_IGNORED, manner, nested)?,
                Parsed::Merge(Some(name), merged) => {
                    if nested >= MAX_NESTED {
                        return Err(FilterError::TooMany.into());
                    }
                    if merged.exclude_self {
                        let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or(&name);
                        list.items.push(Item::Rule(Rule::new(base, Traits::default(), None)));
                    }
                    let missing = || FilterError::NoFile { rule: escape(line) };
                    let path = self.place(&name).ok_or_else(missing)?;
                    let content = (self.read)(&path)?.ok_or_else(missing)?;
                    self.add(list, &content, Manner { free: manner.free, ..merged }, nested + 1)?;
                }
                Parsed::PerDir(files) => self.declare(list, files, manner.free)?,
            }
            if list.items.len() > MAX_RULES {
                return Err(FilterError::TooMany.into());
            }
        }
        Ok(())
    }

    /// Where a merged file stands: beside the file that names it if the name has a slash.
    fn place(&self, name: &[u8]) -> Option<TreePath> {
        let (from, rest) = match name.strip_prefix(b"/") {
            Some(rest) => (TreePath::root(), rest),
            None if name.contains(&b'/') => (self.inside.dir.clone(), name),
            None => (self.inside.base.clone(), name),
        };
        let parts = rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        parts.into_iter().try_fold(from, |at, part| match part {
            b".." => at.parent(),
            part => at.join(&Name::new(part).ok()?).ok(),
        })
    }

    /// From here on files of this name count too.
    fn declare(&mut self, list: &mut List, mut files: PerDir, free: bool) -> Result<(), E> {
        if files.manner.exclude_self {
            list.items.push(Item::Rule(Rule::new(&files.name, Traits::default(), None)));
            files.manner.exclude_self = false;
        }
        files.manner.free = free;
        let mut known = self.filter.per_dir.iter().chain(self.scope.added.iter());
        // As in rsync, the first word on a file's name stands.
        if known.any(|other| other.name == files.name) {
            return Ok(());
        }
        if self.scope.added.len() >= MAX_ADDED {
            return Err(FilterError::TooMany.into());
        }
        list.items.push(Item::PerDir(self.scope.lists.len()));
        self.scope.lists.push(Arc::default());
        Arc::make_mut(&mut self.scope.added).push(files);
        Ok(())
    }
}
