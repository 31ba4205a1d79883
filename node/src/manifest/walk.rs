//! A walk over the pages of a tree.

use std::error::Error;
use std::fmt::Debug;

use cid::Cid;
use thiserror::Error;

use super::ContentId;
use super::entry::{DirLink, Entry, Node};
use super::filter::{FilterError, Inside, MAX_MERGE, Scope};
use super::follow::{Broken, Follow, Lookup, MAX_AGAIN, Target, follow, lookup};
use super::page::{Child, Page, PageError, RootNode};
use super::path::{Name, PathError, TreePath};
use super::select::{Choice, Selector};

/// A store of raw pages by CID. What it returns is verified here.
pub trait Pages {
    /// Why reading failed.
    type Error: Error + Send + Sync + 'static;

    /// The bytes of a page, if they are there.
    ///
    /// # Errors
    /// The store fails.
    fn page(&self, cid: &Cid) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The bytes of a small file of the tree that decides what else is wanted (rules of a directory), if they are there.
    ///
    /// # Errors
    /// The store fails.
    fn content(&self, _: &ContentId) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(None)
    }
}

/// Why a walk ended early.
#[derive(Debug, Error)]
pub enum WalkError<E: Error + Send + Sync + 'static> {
    /// A page is refused.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A path is too deep.
    #[error("{at}: {source}")]
    Path {
        /// The directory.
        at: TreePath,
        /// The rule.
        source: PathError,
    },
    /// A link says other totals than its page: the publisher lies, or erred.
    #[error("{at}: sizes that do not add up")]
    Totals {
        /// The directory.
        at: TreePath,
    },
    /// A page belongs at another level, or out of its range of names.
    #[error("{at}: a page in the wrong place")]
    Misplaced {
        /// The directory.
        at: TreePath,
    },
    /// The same pages again and again: few bytes that unfold to entries without end.
    #[error("{at}: the tree repeats itself without end")]
    Exploding {
        /// The directory.
        at: TreePath,
    },
    /// The root directory holds our own directory.
    #[error("the tree holds .murmir at its root")]
    OwnName,
    /// The store lacks a page.
    #[error("page {cid} is missing")]
    Missing {
        /// The page.
        cid: Box<Cid>,
    },
    /// A file of filter rules in the tree is refused.
    #[error("{at}: {source}")]
    Filter {
        /// Its directory.
        at: TreePath,
        /// Why.
        source: FilterError,
    },
    /// A file of filter rules in the tree is too large.
    #[error("{at}: a file of filter rules with more than {MAX_MERGE} bytes")]
    LargeFilter {
        /// Its directory.
        at: TreePath,
    },
    /// The store lacks a file of filter rules.
    #[error("content {id} is missing")]
    MissingContent {
        /// The content.
        id: ContentId,
    },
    /// Followed symlinks lead to the same entries over and over.
    #[error("symlinks that multiply the tree by more than {MAX_AGAIN} entries")]
    Multiplied,
    /// The store failed.
    #[error(transparent)]
    Store(E),
}

/// What a page must be to stand where its link stands.
#[derive(Debug, Clone)]
pub(super) struct Expect {
    pub(super) at: TreePath,
    pub(super) cid: Cid,
    entries: u64,
    bytes: u64,
    /// Level below an index page; none for the top of a directory.
    below: Option<u8>,
    /// The first name, below an index page.
    first: Option<Name>,
    /// The first name of the next part, which no name here may reach.
    until: Option<Name>,
    /// The rules in force in the directory.
    pub(super) scope: Scope,
}

impl Expect {
    pub(super) fn top(at: TreePath, link: &DirLink, scope: Scope) -> Self {
        Self {
            at,
            cid: link.cid,
            entries: link.entries,
            bytes: link.bytes,
            below: None,
            first: None,
            until: None,
            scope,
        }
    }

    /// The parts of an index page of this level that stands here, in order.
    pub(super) fn parts(&self, level: u8, children: Vec<Child>) -> Vec<Self> {
        let mut until = self.until.clone();
        let mut parts: Vec<Self> = Vec::with_capacity(children.len());
        for Child { first, cid, entries, bytes } in children.into_iter().rev() {
            let next = until.replace(first.clone());
            let (at, scope) = (self.at.clone(), self.scope.clone());
            parts.push(Self { at, cid, entries, bytes, below: Some(level), first: Some(first), until: next, scope });
        }
        parts.reverse();
        parts
    }

    pub(super) fn check<E: Error + Send + Sync + 'static>(&self, bytes: &[u8]) -> Result<Page, WalkError<E>> {
        let page = Page::decode(&self.cid, bytes)?;
        if page.totals() != Some((self.entries, self.bytes)) {
            return Err(WalkError::Totals { at: self.at.clone() });
        }
        let (level, first, last) = match &page {
            Page::Leaf(entries) => (0, entries.first().map(|one| &one.name), entries.last().map(|one| &one.name)),
            Page::Index { level, children } => {
                (*level, children.first().map(|one| &one.first), children.last().map(|one| &one.first))
            }
        };
        let placed = self.below.is_none_or(|above| level + 1 == above);
        let begins = self.first.is_none() || self.first.as_ref() == first;
        // Else one name could stand in two parts.
        let ends = self.until.as_ref().is_none_or(|until| last.is_none_or(|last| last < until));
        if !(placed && begins && ends) {
            return Err(WalkError::Misplaced { at: self.at.clone() });
        }
        let own = |entry: &Entry| entry.name.as_bytes() == OWN_NAME;
        if self.at.is_root() && matches!(&page, Page::Leaf(entries) if entries.iter().any(own)) {
            return Err(WalkError::OwnName);
        }
        Ok(page)
    }
}

/// Our own directory at the root of a destination: no tree may hold it there.
const OWN_NAME: &[u8] = b".murmir";

/// One entry met by a walk.
#[derive(Debug, Clone)]
pub struct WalkItem {
    /// Its path in the module.
    pub path: TreePath,
    /// The entry.
    pub entry: Entry,
    /// Its rank among all entries of the tree, 0 for the first below the root.
    pub number: u64,
}

/// The rules in force in a directory, or what must be brought to know them.
pub(super) enum Rules {
    Known(Scope),
    NeedPage(Cid),
    NeedContent(ContentId, u64),
}

/// What keeps rules from being known.
enum Need<E: Error + Send + Sync + 'static> {
    Page(Cid),
    Content(ContentId, u64),
    Failed(WalkError<E>),
    Rule(FilterError),
}

impl<E: Error + Send + Sync + 'static> From<FilterError> for Need<E> {
    fn from(error: FilterError) -> Self {
        Self::Rule(error)
    }
}

impl<E: Error + Send + Sync + 'static> From<WalkError<E>> for Need<E> {
    fn from(error: WalkError<E>) -> Self {
        Self::Failed(error)
    }
}

/// The rules inside the directory `at`, whose files of rules are looked up in its pages; those that they merge, from `top` on.
pub(super) fn rules_in<P: Pages>(
    pages: &P,
    selector: &Selector,
    outer: &Scope,
    (at, link): (&TreePath, &DirLink),
    top: &DirLink,
) -> Result<Rules, WalkError<P::Error>> {
    let filter = selector.filter();
    if filter.per_dir().is_empty() {
        return Ok(Rules::Known(outer.clone()));
    }
    let inside = Inside { dir: at, base: selector.base(), above: selector.is_above(at) };
    let mut read = |path: &TreePath| -> Result<Option<Vec<u8>>, Need<P::Error>> {
        let found = match path.name().filter(|_| path.parent().as_ref() == Some(at)) {
            Some(name) => lookup(pages, link, &name, 0)?,
            None => find(pages, top, path)?,
        };
        match found {
            Lookup::Page(cid) => Err(Need::Page(cid)),
            Lookup::Entry(Entry { node: Node::File { size, .. }, .. }, _) if size > MAX_MERGE => {
                Err(Need::Failed(WalkError::LargeFilter { at: at.clone() }))
            }
            Lookup::Entry(Entry { node: Node::File { id, size, .. }, .. }, _) => {
                let content = pages.content(&id).map_err(WalkError::Store)?;
                content.map(Some).ok_or(Need::Content(id, size))
            }
            Lookup::Entry(..) | Lookup::Absent => Ok(None),
        }
    };
    match filter.enter(outer, inside, &mut read) {
        Ok(scope) => Ok(Rules::Known(scope)),
        Err(Need::Page(cid)) => Ok(Rules::NeedPage(cid)),
        Err(Need::Content(id, size)) => Ok(Rules::NeedContent(id, size)),
        Err(Need::Failed(error)) => Err(error),
        Err(Need::Rule(source)) => Err(WalkError::Filter { at: at.clone(), source }),
    }
}

/// Finds a path from the root on; symlinks are not followed.
fn find<P: Pages>(pages: &P, top: &DirLink, path: &TreePath) -> Result<Lookup, WalkError<P::Error>> {
    let (mut link, mut names) = (top.clone(), path.components().peekable());
    while let Some(name) = names.next() {
        match lookup(pages, &link, &name, 0)? {
            Lookup::Entry(Entry { node: Node::Dir(inner), .. }, _) if names.peek().is_some() => link = *inner,
            Lookup::Entry(..) if names.peek().is_some() => return Ok(Lookup::Absent),
            found => return Ok(found),
        }
    }
    Ok(Lookup::Absent)
}

enum Frame {
    /// Entries of one page, and the rank of the next.
    Entries(TreePath, Scope, u64, std::vec::IntoIter<Entry>),
    /// Parts of a directory, and the rank of the next part's first entry.
    Parts(u64, std::vec::IntoIter<Expect>),
}

/// Streams the selected entries in name order, each directory before what is below it.
pub struct Walk<'a, P: Pages> {
    pages: &'a P,
    selector: &'a Selector,
    stack: Vec<Frame>,
    /// The root directory, where followed symlinks begin.
    top: DirLink,
    /// Entries met again below followed symlinks.
    again: u64,
    broken: Vec<(TreePath, Broken)>,
}

impl<'a, P: Pages> Walk<'a, P> {
    /// A walk over the tree of the root node `root`.
    ///
    /// # Errors
    /// The root node or the top page is missing or refused.
    pub fn new(pages: &'a P, root: &Cid, selector: &'a Selector) -> Result<Self, WalkError<P::Error>> {
        let top = root_node(pages, root)?.tree;
        let mut walk = Self { pages, selector, stack: Vec::new(), top: top.clone(), again: 0, broken: Vec::new() };
        walk.open_dir(TreePath::root(), &top, &selector.filter().top(), 0)?;
        Ok(walk)
    }

    /// Symlinks met so far that were to be followed and stand for nothing.
    pub fn broken(&self) -> &[(TreePath, Broken)] {
        &self.broken
    }

    /// Opens a directory whose first entry has the rank `first`.
    fn open_dir(&mut self, at: TreePath, link: &DirLink, outer: &Scope, first: u64) -> Result<(), WalkError<P::Error>> {
        match rules_in(self.pages, self.selector, outer, (&at, link), &self.top)? {
            Rules::Known(scope) => self.open(Expect::top(at, link, scope), first),
            Rules::NeedPage(cid) => Err(WalkError::Missing { cid: Box::new(cid) }),
            Rules::NeedContent(id, _) => Err(WalkError::MissingContent { id }),
        }
    }

    fn open(&mut self, expect: Expect, first: u64) -> Result<(), WalkError<P::Error>> {
        let bytes = self.pages.page(&expect.cid).map_err(WalkError::Store)?;
        let bytes = bytes.ok_or_else(|| WalkError::Missing { cid: Box::new(expect.cid) })?;
        self.stack.push(match expect.check(&bytes)? {
            Page::Leaf(entries) => Frame::Entries(expect.at, expect.scope, first, entries.into_iter()),
            Page::Index { level, children } => Frame::Parts(first, expect.parts(level, children).into_iter()),
        });
        Ok(())
    }

    fn step(&mut self) -> Result<Option<WalkItem>, WalkError<P::Error>> {
        while let Some(frame) = self.stack.last_mut() {
            match frame {
                Frame::Entries(at, scope, next, entries) => {
                    let Some(entry) = entries.next() else {
                        self.stack.pop();
                        continue;
                    };
                    let number = *next;
                    *next = next.saturating_add(entry.count());
                    let (at, scope) = (at.clone(), scope.clone());
                    if let Some(item) = self.enter(&at, &scope, entry, number)? {
                        return Ok(Some(item));
                    }
                }
                Frame::Parts(next, parts) => match parts.next() {
                    None => drop(self.stack.pop()),
                    Some(part) => {
                        let first = *next;
                        *next = next.saturating_add(part.entries);
                        self.open(part, first)?;
                    }
                },
            }
        }
        Ok(None)
    }

    /// Takes, passes or skips one entry.
    fn enter(
        &mut self,
        at: &TreePath,
        scope: &Scope,
        entry: Entry,
        number: u64,
    ) -> Result<Option<WalkItem>, WalkError<P::Error>> {
        let path = at.join(&entry.name).map_err(|source| WalkError::Path { at: at.clone(), source })?;
        let Some((entry, number)) = self.followed(at, &path, scope, entry, number)? else { return Ok(None) };
        let choice = self.selector.choose(scope, &path, entry.is_dir());
        if choice == Choice::Skip {
            return Ok(None);
        }
        if let Node::Dir(link) = &entry.node
            && self.selector.enters(&path)
        {
            self.open_dir(path.clone(), link, scope, number.saturating_add(1))?;
        }
        Ok((choice == Choice::Take).then_some(WalkItem { path, entry, number }))
    }

    /// What a symlink stands for, under its own name; anything else stands for itself. None: nothing is there.
    fn followed(
        &mut self,
        at: &TreePath,
        path: &TreePath,
        scope: &Scope,
        entry: Entry,
        number: u64,
    ) -> Result<Option<(Entry, u64)>, WalkError<P::Error>> {
        let Node::Symlink { target } = &entry.node else { return Ok(Some((entry, number))) };
        let how = self.selector.follows(scope, path);
        if how == Follow::Never {
            return Ok(Some((entry, number)));
        }
        match follow(self.pages, &self.top, at, target)? {
            Target::NeedPage(cid) => Err(WalkError::Missing { cid: Box::new(cid) }),
            Target::Entry(there, rank) if how == Follow::All || there.is_dir() => {
                let name = entry.name;
                if there.is_dir() {
                    self.again = self.again.saturating_add(there.count());
                }
                if self.again > MAX_AGAIN {
                    Err(WalkError::Multiplied)
                } else {
                    Ok(Some((Entry { name, ..*there }, rank)))
                }
            }
            Target::Broken(why) if how == Follow::All => {
                if self.selector.choose(scope, path, false) == Choice::Take {
                    self.broken.push((path.clone(), why));
                }
                Ok(None)
            }
            Target::Entry(..) | Target::Broken(_) => Ok(Some((entry, number))),
        }
    }
}

impl<P: Pages> Iterator for Walk<'_, P> {
    type Item = Result<WalkItem, WalkError<P::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step();
        if item.is_err() {
            self.stack.clear();
        }
        item.transpose()
    }
}

/// Reads and checks a root node.
///
/// # Errors
/// It is missing or refused.
pub fn root_node<P: Pages>(pages: &P, root: &Cid) -> Result<RootNode, WalkError<P::Error>> {
    let bytes = pages.page(root).map_err(WalkError::Store)?;
    let bytes = bytes.ok_or_else(|| WalkError::Missing { cid: Box::new(*root) })?;
    Ok(RootNode::decode(root, &bytes)?)
}
