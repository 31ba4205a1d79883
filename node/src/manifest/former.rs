//! Which page of a former tree stands where one of the new tree does: what they have in common need not travel.

use std::collections::HashMap;

use cid::Cid;

use super::entry::Node;
use super::page::{Child, Page, RootNode};
use super::walk::Pages;

/// The pages of a former tree by those of the new one, as far as the new one is known.
#[derive(Debug, Default)]
pub struct Former {
    pairs: HashMap<Cid, Cid>,
}

impl Former {
    /// Begins at the roots; none if they are the same.
    pub fn new(root: Cid, former: Option<Cid>) -> Self {
        Self { pairs: former.filter(|former| *former != root).map(|former| (root, former)).into_iter().collect() }
    }

    /// The former page in the place of `new`, if one is known.
    pub fn of(&self, new: &Cid) -> Option<&Cid> {
        self.pairs.get(new)
    }

    /// Knows of none any more.
    pub fn forget(&mut self) {
        self.pairs.clear();
    }

    /// Takes note of what stands below a page of the new tree that has arrived.
    pub fn note<P: Pages>(&mut self, pages: &P, new: &Cid, bytes: &[u8]) {
        let Some(old) = self.pairs.remove(new) else { return };
        let Ok(Some(former)) = pages.page(&old) else { return };
        let mut put = |new: Cid, old: Cid| {
            if new != old {
                self.pairs.insert(new, old);
            }
        };
        if let (Ok(new), Ok(old)) = (RootNode::decode(new, bytes), RootNode::decode(&old, &former)) {
            return put(new.tree.cid, old.tree.cid);
        }
        match (Page::decode(new, bytes), Page::decode(&old, &former)) {
            (Ok(Page::Leaf(new)), Ok(Page::Leaf(old))) => {
                for entry in new {
                    let same = old.binary_search_by(|other| other.name.cmp(&entry.name));
                    let same = same.ok().and_then(|at| old.get(at)).map(|other| &other.node);
                    if let (Node::Dir(new), Some(Node::Dir(old))) = (&entry.node, same) {
                        put(new.cid, old.cid);
                    }
                }
            }
            (Ok(Page::Index { level, children }), Ok(Page::Index { level: other, children: former }))
                if level == other =>
            {
                for child in children {
                    if let Some(old) = at(&former, &child) {
                        put(child.cid, old.cid);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The part of a former directory in which the first name of a new part stands.
fn at<'a>(former: &'a [Child], new: &Child) -> Option<&'a Child> {
    let behind = former.partition_point(|old| old.first <= new.first);
    former.get(behind.saturating_sub(1))
}
