//! Symlinks that are followed inside a tree: rsync's `-L` and `-k`. Nothing outside of the tree is ever looked at.

use cid::Cid;
use serde::{Deserialize, Serialize};

use super::entry::{DirLink, Entry, Node};
use super::page::Page;
use super::path::{Name, TreePath};
use super::walk::{Pages, WalkError};

/// Most symlinks on the way to one entry, as in Linux.
const MAX_LINKS: usize = 40;
/// Most names on the way to one entry, those of all symlinks counted.
const MAX_NAMES: usize = 4096;
/// Most entries that may be met again below followed symlinks: links upon links would multiply without end.
pub(super) const MAX_AGAIN: u64 = 10_000_000;

/// Which symlinks stand for what they point at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// None.
    #[default]
    Never,
    /// Those that lead to a directory: `-k`.
    Dirs,
    /// All: `-L`.
    All,
}

/// Why a symlink stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It leads out of the tree.
    Outside,
    /// Nothing is there.
    Nowhere,
    /// It leads to a directory that it is in itself, or around in a circle.
    Circle,
}

/// What a symlink leads to.
pub(super) enum Target {
    /// An entry under its own name, and its rank in the tree.
    Entry(Box<Entry>, u64),
    Broken(Broken),
    /// This page must be brought to know it.
    NeedPage(Cid),
}

/// Follows the symlink in the directory `at`, which may itself be reached by symlinks. `top` is the tree's root directory.
pub(super) fn follow<P: Pages>(
    pages: &P,
    top: &DirLink,
    at: &TreePath,
    target: &[u8],
) -> Result<Target, WalkError<P::Error>> {
    let mut way = Way { pages, top, dirs: Vec::new(), links: 0, names: 0 };
    // Every directory that the symlink is in: to enter one of them again would never end.
    let mut around = vec![Vec::new()];
    for name in at.components() {
        match way.go(name.as_bytes())? {
            Met::Dir => around.push(way.real()),
            Met::Stop(stop) => return Ok(stop),
        }
    }
    match way.go(target)? {
        Met::Dir if around.contains(&way.real()) => Ok(Target::Broken(Broken::Circle)),
        Met::Dir => match way.dirs.pop() {
            Some((entry, rank)) => Ok(Target::Entry(Box::new(entry), rank)),
            None => Ok(Target::Broken(Broken::Circle)),
        },
        Met::Stop(stop) => Ok(stop),
    }
}

/// Where a way led.
enum Met {
    /// To the directory where the way stands now.
    Dir,
    Stop(Target),
}

/// A walk along names, as the system does it.
struct Way<'a, P: Pages> {
    pages: &'a P,
    top: &'a DirLink,
    /// The directories from the root to where the way stands, and their ranks; the root is not among them.
    dirs: Vec<(Entry, u64)>,
    links: usize,
    names: usize,
}

impl<P: Pages> Way<'_, P> {
    /// The real names of the directory where the way stands.
    fn real(&self) -> Vec<Name> {
        self.dirs.iter().map(|(dir, _)| dir.name.clone()).collect()
    }

    fn go(&mut self, path: &[u8]) -> Result<Met, WalkError<P::Error>> {
        let stop = |broken| Ok(Met::Stop(Target::Broken(broken)));
        let mut todo: Vec<Vec<u8>> = Vec::new();
        let mut next = path.to_vec();
        loop {
            if next.first() == Some(&b'/') {
                return stop(Broken::Outside);
            }
            let parts = next.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
            todo.extend(parts.rev().map(<[u8]>::to_vec));
            next.clear();
            while let Some(part) = todo.pop() {
                self.names += 1;
                if self.names > MAX_NAMES {
                    return stop(Broken::Circle);
                }
                if part == b".." {
                    if self.dirs.pop().is_none() {
                        return stop(Broken::Outside);
                    }
                    continue;
                }
                let Ok(name) = Name::new(&part) else { return stop(Broken::Nowhere) };
                match self.look(&name)? {
                    Lookup::Page(cid) => return Ok(Met::Stop(Target::NeedPage(cid))),
                    Lookup::Absent => return stop(Broken::Nowhere),
                    Lookup::Entry(entry, rank) => match &entry.node {
                        Node::Dir(_) => self.dirs.push((entry, rank)),
                        Node::Symlink { target } => {
                            next.clone_from(target);
                            break;
                        }
                        Node::File { .. } if todo.is_empty() => {
                            return Ok(Met::Stop(Target::Entry(Box::new(entry), rank)));
                        }
                        Node::File { .. } => return stop(Broken::Nowhere),
                    },
                }
            }
            if next.is_empty() {
                return Ok(Met::Dir);
            }
            self.links += 1;
            if self.links > MAX_LINKS {
                return stop(Broken::Circle);
            }
        }
    }

    /// Finds one name in the directory where the way stands.
    fn look(&self, name: &Name) -> Result<Lookup, WalkError<P::Error>> {
        let top = (self.top, 0);
        let here = self.dirs.last().and_then(|(dir, rank)| match &dir.node {
            Node::Dir(link) => Some((&**link, rank.saturating_add(1))),
            _ => None,
        });
        let (link, first) = here.unwrap_or(top);
        lookup(self.pages, link, name, first)
    }
}

/// What a search for one name met.
pub(super) enum Lookup {
    /// The entry and its rank.
    Entry(Entry, u64),
    Absent,
    /// This page is missing.
    Page(Cid),
}

/// Finds one name in a directory whose first entry has the rank `first`; only the pages on the way to it are opened.
pub(super) fn lookup<P: Pages>(
    pages: &P,
    link: &DirLink,
    name: &Name,
    first: u64,
) -> Result<Lookup, WalkError<P::Error>> {
    let (mut cid, mut rank) = (link.cid, first);
    loop {
        let Some(bytes) = pages.page(&cid).map_err(WalkError::Store)? else { return Ok(Lookup::Page(cid)) };
        match Page::decode(&cid, &bytes)? {
            Page::Leaf(entries) => {
                for entry in entries {
                    if entry.name == *name {
                        return Ok(Lookup::Entry(entry, rank));
                    }
                    rank = rank.saturating_add(entry.count());
                }
                return Ok(Lookup::Absent);
            }
            Page::Index { children, .. } => {
                let Some(at) = children.iter().rposition(|child| child.first <= *name) else {
                    return Ok(Lookup::Absent);
                };
                rank = children[..at].iter().fold(rank, |rank, child| rank.saturating_add(child.entries));
                cid = children[at].cid;
            }
        }
    }
}
