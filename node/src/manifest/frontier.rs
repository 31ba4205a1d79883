//! What a walk still lacks: the pages on the way to what is selected, and the files of rules that decide about it.

use std::collections::HashSet;
use std::error::Error;

use cid::Cid;

use super::ContentId;
use super::entry::{DirLink, Entry, Node};
use super::filter::Scope;
use super::follow::{Follow, MAX_AGAIN, Target, follow};
use super::page::Page;
use super::path::TreePath;
use super::select::{Choice, Selector};
use super::walk::{Expect, Pages, Rules, WalkError, root_node, rules_in};

/// Entries that may be met again in pages that were opened before, in all trees ...
const REPEATED: u64 = 1 << 18;
/// ... and times the entries met for the first time: honest trees hold copies of directories, but not without end.
const REPEATED_TIMES: u64 = 64;

/// What to fetch next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Pages, sorted.
    pub pages: Vec<Cid>,
    /// Files of rules, and their sizes.
    pub contents: Vec<(ContentId, u64)>,
}

impl Missing {
    /// True if the store has all.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.contents.is_empty()
    }
}

/// A directory whose rules are not known yet.
struct Unruled {
    at: TreePath,
    link: DirLink,
    outer: Scope,
}

/// A symlink that is to be followed.
struct Link {
    at: TreePath,
    scope: Scope,
    entry: Entry,
}

/// Finds what the store lacks, a batch at a time: fetch it, put it, ask again.
pub struct Frontier<'a> {
    selector: &'a Selector,
    root: Option<Cid>,
    unruled: Vec<Unruled>,
    open: Vec<Expect>,
    links: Vec<Link>,
    /// The root directory, where followed symlinks begin.
    top: Option<DirLink>,
    /// Entries met again below followed symlinks.
    again: u64,
    /// Pages opened, and what was met in them for the first time and again.
    opened: HashSet<Cid>,
    met: u64,
    repeated: u64,
}

impl<'a> Frontier<'a> {
    /// Begins at a root node.
    pub fn new(root: Cid, selector: &'a Selector) -> Self {
        Self {
            selector,
            root: Some(root),
            unruled: Vec::new(),
            open: Vec::new(),
            links: Vec::new(),
            top: None,
            again: 0,
            opened: HashSet::new(),
            met: 0,
            repeated: 0,
        }
    }

    /// What to fetch next, about `max` pages at most; empty when the store has all.
    ///
    /// # Errors
    /// A page in the store is refused, or the store fails.
    pub fn missing<P: Pages>(&mut self, pages: &P, max: usize) -> Result<Missing, WalkError<P::Error>> {
        let mut missing = Missing::default();
        if let Some(root) = self.root {
            if pages.page(&root).map_err(WalkError::Store)?.is_none() {
                return Ok(Missing { pages: vec![root], contents: Vec::new() });
            }
            let (link, outer) = (root_node(pages, &root)?.tree, self.selector.filter().top());
            self.top = Some(link.clone());
            self.unruled.push(Unruled { at: TreePath::root(), link, outer });
            self.root = None;
        }
        let (mut waiting, mut unruled, mut links) = (Vec::new(), Vec::new(), Vec::new());
        while waiting.len() + unruled.len() + links.len() < max {
            if let Some(dir) = self.unruled.pop() {
                let top = self.top.as_ref().unwrap_or(&dir.link);
                match rules_in(pages, self.selector, &dir.outer, (&dir.at, &dir.link), top)? {
                    Rules::Known(scope) => self.open.push(Expect::top(dir.at, &dir.link, scope)),
                    Rules::NeedPage(cid) => {
                        missing.pages.push(cid);
                        unruled.push(dir);
                    }
                    Rules::NeedContent(id, size) => {
                        missing.contents.push((id, size));
                        unruled.push(dir);
                    }
                }
            } else if let Some(expect) = self.open.pop() {
                match pages.page(&expect.cid).map_err(WalkError::Store)? {
                    Some(bytes) => self.expand(&expect, &bytes)?,
                    None => waiting.push(expect),
                }
            } else if let Some(link) = self.links.pop() {
                if let Some(cid) = self.follow(pages, &link)? {
                    missing.pages.push(cid);
                    links.push(link);
                }
            } else {
                break;
            }
        }
        missing.pages.extend(waiting.iter().map(|expect| expect.cid));
        missing.pages.sort_unstable();
        missing.pages.dedup();
        missing.contents.sort_unstable();
        missing.contents.dedup();
        self.open.extend(waiting);
        self.unruled.extend(unruled);
        self.links.extend(links);
        Ok(missing)
    }

    /// Goes on behind a symlink; gives the page that must be brought first, if any.
    fn follow<P: Pages>(&mut self, pages: &P, link: &Link) -> Result<Option<Cid>, WalkError<P::Error>> {
        let (Node::Symlink { target }, Some(top)) = (&link.entry.node, &self.top) else { return Ok(None) };
        match follow(pages, top, &link.at, target)? {
            Target::NeedPage(cid) => return Ok(Some(cid)),
            Target::Entry(there, _) if there.is_dir() => {
                self.again = self.again.saturating_add(there.count());
                if self.again > MAX_AGAIN {
                    return Err(WalkError::Multiplied);
                }
                self.enter(&link.at, &link.scope, Entry { name: link.entry.name.clone(), ..*there })?;
            }
            Target::Entry(..) | Target::Broken(_) => {}
        }
        Ok(None)
    }

    fn expand<E: Error + Send + Sync + 'static>(&mut self, expect: &Expect, bytes: &[u8]) -> Result<(), WalkError<E>> {
        let Expect { at, scope, .. } = expect;
        let page = expect.check(bytes)?;
        self.count(expect, &page)?;
        match page {
            Page::Index { level, children } => self.open.extend(expect.parts(level, children)),
            Page::Leaf(entries) => {
                for entry in entries {
                    match &entry.node {
                        Node::Dir(_) => self.enter(at, scope, entry)?,
                        Node::Symlink { .. } => {
                            let path =
                                at.join(&entry.name).map_err(|source| WalkError::Path { at: at.clone(), source })?;
                            if self.selector.follows(scope, &path) != Follow::Never {
                                self.links.push(Link { at: at.clone(), scope: scope.clone(), entry });
                            }
                        }
                        Node::File { .. } => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// A directory that holds something wanted will be opened.
    fn enter<E: Error + Send + Sync + 'static>(
        &mut self,
        at: &TreePath,
        scope: &Scope,
        entry: Entry,
    ) -> Result<(), WalkError<E>> {
        let Node::Dir(link) = entry.node else { return Ok(()) };
        let path = at.join(&entry.name).map_err(|source| WalkError::Path { at: at.clone(), source })?;
        if self.selector.choose(scope, &path, true) != Choice::Skip && self.selector.enters(&path) {
            self.unruled.push(Unruled { at: path, link: *link, outer: scope.clone() });
        }
        Ok(())
    }

    /// Refuses a tree that unfolds to far more than its pages hold.
    fn count<E: Error + Send + Sync + 'static>(&mut self, expect: &Expect, page: &Page) -> Result<(), WalkError<E>> {
        let entries = match page {
            Page::Leaf(entries) => entries.len(),
            Page::Index { children, .. } => children.len(),
        };
        let sum = if self.opened.insert(expect.cid) { &mut self.met } else { &mut self.repeated };
        // Opening a page is work, whatever is in it.
        *sum = sum.saturating_add(1).saturating_add(entries as u64);
        if self.repeated > self.met.saturating_mul(REPEATED_TIMES).saturating_add(REPEATED) {
            return Err(WalkError::Exploding { at: expect.at.clone() });
        }
        Ok(())
    }
}
