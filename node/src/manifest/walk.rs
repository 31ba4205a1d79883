//! Walks over the pages of a tree: one that reads it, and one that finds which pages are still missing.

use std::error::Error;
use std::fmt::Debug;

use cid::Cid;
use thiserror::Error;

use super::entry::{DirLink, Entry, Node};
use super::page::{Child, Page, PageError, RootNode};
use super::path::{PathError, TreePath};
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
    /// The root directory holds our own directory.
    #[error("the tree holds .murmir at its root")]
    OwnName,
    /// The store lacks a page.
    #[error("page {cid} is missing")]
    Missing {
        /// The page.
        cid: Box<Cid>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(E),
}

/// What a page must be to stand where its link stands.
#[derive(Debug, Clone)]
struct Expect {
    at: TreePath,
    cid: Cid,
    entries: u64,
    bytes: u64,
    /// Level below an index page; none for the top of a directory.
    below: Option<u8>,
    /// The first name, below an index page.
    first: Option<super::path::Name>,
}

impl Expect {
    fn top(at: TreePath, link: &DirLink) -> Self {
        Self { at, cid: link.cid, entries: link.entries, bytes: link.bytes, below: None, first: None }
    }

    fn part(at: &TreePath, child: Child, level: u8) -> Self {
        let Child { first, cid, entries, bytes } = child;
        Self { at: at.clone(), cid, entries, bytes, below: Some(level), first: Some(first) }
    }

    fn check<E: Error + Send + Sync + 'static>(&self, bytes: &[u8]) -> Result<Page, WalkError<E>> {
        let page = Page::decode(&self.cid, bytes)?;
        if page.totals() != Some((self.entries, self.bytes)) {
            return Err(WalkError::Totals { at: self.at.clone() });
        }
        let (level, first) = match &page {
            Page::Leaf(entries) => (0, entries.first().map(|entry| &entry.name)),
            Page::Index { level, children } => (*level, children.first().map(|child| &child.first)),
        };
        let placed = self.below.is_none_or(|above| level + 1 == above);
        if !placed || (self.first.is_some() && self.first.as_ref() != first) {
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

enum Frame {
    Entries(TreePath, std::vec::IntoIter<Entry>),
    Parts(TreePath, u8, std::vec::IntoIter<Child>),
}

/// Streams the selected entries in name order, each directory before what is below it.
pub struct Walk<'a, P: Pages> {
    pages: &'a P,
    selector: &'a Selector,
    stack: Vec<Frame>,
    number: u64,
}

impl<'a, P: Pages> Walk<'a, P> {
    /// A walk over the tree of the root node `root`.
    ///
    /// # Errors
    /// The root node or the top page is missing or refused.
    pub fn new(pages: &'a P, root: &Cid, selector: &'a Selector) -> Result<Self, WalkError<P::Error>> {
        let node = root_node(pages, root)?;
        let mut walk = Self { pages, selector, stack: Vec::new(), number: 0 };
        walk.open(Expect::top(TreePath::root(), &node.tree))?;
        Ok(walk)
    }

    fn open(&mut self, expect: Expect) -> Result<(), WalkError<P::Error>> {
        let bytes = self.pages.page(&expect.cid).map_err(WalkError::Store)?;
        let bytes = bytes.ok_or_else(|| WalkError::Missing { cid: Box::new(expect.cid) })?;
        self.stack.push(match expect.check(&bytes)? {
            Page::Leaf(entries) => Frame::Entries(expect.at, entries.into_iter()),
            Page::Index { level, children } => Frame::Parts(expect.at, level, children.into_iter()),
        });
        Ok(())
    }

    fn step(&mut self) -> Result<Option<WalkItem>, WalkError<P::Error>> {
        while let Some(frame) = self.stack.last_mut() {
            match frame {
                Frame::Entries(at, entries) => {
                    let at = at.clone();
                    match entries.next() {
                        None => drop(self.stack.pop()),
                        Some(entry) => {
                            if let Some(item) = self.enter(&at, entry)? {
                                return Ok(Some(item));
                            }
                        }
                    }
                }
                Frame::Parts(at, level, children) => {
                    let (at, level) = (at.clone(), *level);
                    match children.next() {
                        None => drop(self.stack.pop()),
                        Some(child) => self.open(Expect::part(&at, child, level))?,
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes, passes or skips one entry; whatever is skipped still counts.
    fn enter(&mut self, at: &TreePath, entry: Entry) -> Result<Option<WalkItem>, WalkError<P::Error>> {
        let path = at.join(&entry.name).map_err(|source| WalkError::Path { at: at.clone(), source })?;
        let number = self.number;
        let choice = self.selector.choose(&path, entry.is_dir());
        self.number = self.number.saturating_add(if choice == Choice::Skip { entry.count() } else { 1 });
        if choice == Choice::Skip {
            return Ok(None);
        }
        if let Node::Dir(link) = &entry.node {
            self.open(Expect::top(path.clone(), link))?;
        }
        Ok((choice == Choice::Take).then_some(WalkItem { path, entry, number }))
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

/// Finds the pages on the way to what is selected that the store lacks, a batch at a time: fetch them, put them, ask again.
pub struct Frontier<'a> {
    selector: &'a Selector,
    root: Option<Cid>,
    open: Vec<Expect>,
}

impl<'a> Frontier<'a> {
    /// Begins at a root node.
    pub fn new(root: Cid, selector: &'a Selector) -> Self {
        Self { selector, root: Some(root), open: Vec::new() }
    }

    /// The next pages to fetch, `max` at most; empty when the store has all.
    ///
    /// # Errors
    /// A page in the store is refused, or the store fails.
    pub fn missing<P: Pages>(&mut self, pages: &P, max: usize) -> Result<Vec<Cid>, WalkError<P::Error>> {
        if let Some(root) = self.root {
            if pages.page(&root).map_err(WalkError::Store)?.is_none() {
                return Ok(vec![root]);
            }
            let node = root_node(pages, &root)?;
            self.open.push(Expect::top(TreePath::root(), &node.tree));
            self.root = None;
        }
        let mut waiting: Vec<Expect> = Vec::new();
        while waiting.len() < max
            && let Some(expect) = self.open.pop()
        {
            match pages.page(&expect.cid).map_err(WalkError::Store)? {
                Some(bytes) => self.expand(&expect, &bytes)?,
                None => waiting.push(expect),
            }
        }
        let mut missing: Vec<Cid> = waiting.iter().map(|expect| expect.cid).collect();
        missing.sort_unstable();
        missing.dedup();
        self.open.extend(waiting);
        Ok(missing)
    }

    fn expand<E: Error + Send + Sync + 'static>(&mut self, expect: &Expect, bytes: &[u8]) -> Result<(), WalkError<E>> {
        let at = &expect.at;
        match expect.check(bytes)? {
            Page::Index { level, children } => {
                self.open.extend(children.into_iter().map(|child| Expect::part(at, child, level)));
            }
            Page::Leaf(entries) => {
                for entry in entries {
                    let Node::Dir(link) = &entry.node else { continue };
                    let path = at.join(&entry.name).map_err(|source| WalkError::Path { at: at.clone(), source })?;
                    if self.selector.choose(&path, true) != Choice::Skip {
                        self.open.push(Expect::top(path, link));
                    }
                }
            }
        }
        Ok(())
    }
}
