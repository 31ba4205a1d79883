//! What of a module a pass is about: the entries that its sources select, by the paths they get below the destination.

use std::collections::{HashMap, HashSet};

use cid::Cid;
use tracker_less::record::CheckedBundle;

use super::dest::OWN_DIR;
use super::pass::Request;
use super::plan::Remote;
use super::{ModuleRef, Node, SyncError};
use crate::manifest::entry::{Entry, Node as EntryKind};
use crate::manifest::follow::{Broken, Follow};
use crate::manifest::page::RootNode;
use crate::manifest::path::{Name, TreePath, escape};
use crate::manifest::select::{Depth, Selector};
use crate::manifest::walk::{Walk, root_node};
use crate::store::index::Index;

/// What of the module was selected.
pub struct Selected {
    /// The top of the whole tree.
    pub root: RootNode,
    /// The directory that is the transfer root, where the content of one was asked for.
    pub top: Option<Entry>,
    /// Names that were asked for and are not in the module.
    pub missing: Vec<TreePath>,
    /// Symlinks that were to be followed and stand for nothing.
    pub broken: Vec<(TreePath, Broken)>,
    /// Directories that were named, of which nothing was asked for.
    pub unlisted: Vec<String>,
    /// The entries, paths below the transfer root.
    pub entries: Vec<Remote>,
}

impl Selected {
    /// True if everything that was asked for is there.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.broken.is_empty()
    }
}

/// Walks the selected parts of a tree whose pages are in the index.
///
/// # Errors
/// The tree is refused, or has nothing at a path asked for.
pub fn selected(node: &Node, request: &Request, bundle: &CheckedBundle) -> Result<Selected, SyncError> {
    let refuse = |error| SyncError::tree(&request.module, error);
    let root = root_node(&*node.index, bundle.root()).map_err(refuse)?;
    if (root.tree.entries, root.tree.bytes) != (bundle.head().entries, bundle.head().bytes) {
        let reason = "its head says other totals".to_owned();
        return Err(SyncError::BadTree { module: request.module.to_string(), reason, unsupported: false });
    }
    let mut all = Selected {
        root,
        top: None,
        missing: Vec::new(),
        broken: Vec::new(),
        unlisted: Vec::new(),
        entries: Vec::new(),
    };
    let mut places = HashMap::new();
    for select in request.selectors() {
        let entries = entries(node, request, select, bundle.root(), &mut all.broken)?;
        let top = top(&node.index, &request.module, select, bundle.root())?;
        let wants_dirs = request.selection.recursive || request.selection.dirs || request.selection.names.is_some();
        let passed_over = if wants_dirs { None } else { unlisted(node, request, select, bundle.root())? };
        let named = select.only().is_some() || !select.base().is_root();
        let is_there = top.is_some() || passed_over.is_some() || !all.broken.is_empty();
        all.unlisted.extend(passed_over);
        if entries.is_empty() && named && !select.has_rules() && !is_there {
            let path = select
                .only()
                .map_or_else(|| select.base().to_string(), |name| format!("{}/{}", select.base(), escape(name)));
            let path = path.trim_start_matches('/').to_owned();
            // One of several: the others are brought.
            match TreePath::new(path.as_bytes()) {
                Ok(path) if !request.more.is_empty() => all.missing.push(path),
                _ => return Err(SyncError::UnknownPath { path }),
            }
        }
        all.top = all.top.or(top.filter(|_| select.lists(select.base())));
        if request.more.is_empty() {
            all.entries = entries;
        } else {
            entries.into_iter().for_each(|item| merge(&mut all.entries, &mut places, item));
        }
    }
    all.missing.extend(missing(node, request, &all.entries, bundle.root()));
    all.entries.shrink_to_fit();
    Ok(all)
}

/// The name of a source that is a directory, where neither it nor what is in it was asked for.
fn unlisted(node: &Node, request: &Request, select: &Selector, root: &Cid) -> Result<Option<String>, SyncError> {
    let Some(name) = select.only() else { return Ok(Some(".".to_owned())) };
    let place = name.split(|byte| *byte == b'/').try_fold(select.base().clone(), |at, part| at.join(&Name::new(part)?));
    let Ok(place) = place else { return Ok(None) };
    let there = top(&node.index, &request.module, &Selector::below(place, None), root)?;
    Ok(there.map(|_| escape(name)))
}

/// What one source selects.
fn entries(
    node: &Node,
    request: &Request,
    select: &Selector,
    root: &Cid,
    broken: &mut Vec<(TreePath, Broken)>,
) -> Result<Vec<Remote>, SyncError> {
    let module = &request.module;
    let refuse = |error| SyncError::tree(module, error);
    let mut entries = Vec::new();
    let mut walk = Walk::new(&*node.index, root, select).map_err(refuse)?;
    for item in &mut walk {
        let item = item.map_err(refuse)?;
        if item.entry.name.has_control() {
            let reason = format!("{} holds control characters", item.path);
            return Err(SyncError::BadTree { module: module.to_string(), reason, unsupported: false });
        }
        if let Some(path) = item.path.relative_to(select.base()) {
            let listed = item.entry.is_dir() && select.lists(&item.path);
            let place = item.path;
            entries.push(Remote { path, place, number: item.number, entry: item.entry, listed });
        }
    }
    broken.extend_from_slice(walk.broken());
    if let (Some(name), [file]) = (&request.rename, entries.as_mut_slice()) {
        file.path = TreePath::root().join(name).unwrap_or_default();
    }
    Ok(entries)
}

/// Of two entries at one path the first stands, but a directory before anything else (rsync's `flist_sort_and_clean`).
fn merge(all: &mut Vec<Remote>, places: &mut HashMap<TreePath, usize>, item: Remote) {
    let Some(known) = places.get(&item.path).and_then(|at| all.get_mut(*at)) else {
        places.insert(item.path.clone(), all.len());
        return all.push(item);
    };
    let listed = known.listed || item.listed;
    if item.entry.is_dir() && !known.entry.is_dir() {
        *known = item;
    }
    known.listed = listed && known.entry.is_dir();
}

/// Names of a list that the module does not have, and no rule leaves out.
fn missing(node: &Node, request: &Request, entries: &[Remote], root: &Cid) -> Vec<TreePath> {
    if request.selection.names.is_none() {
        return Vec::new();
    }
    let found: HashSet<&TreePath> = entries.iter().map(|item| &item.path).collect();
    let named = request.select.named().filter_map(|name| TreePath::new(name).ok());
    let is_there = |path: &TreePath| {
        let place = (path.as_bytes().to_vec(), Depth::Itself);
        let itself = Selector::places(request.select.base().clone(), [place], false);
        Walk::new(&*node.index, root, &itself).is_ok_and(|mut walk| matches!(walk.next(), Some(Ok(_))))
    };
    let absent = named.filter(|path| !path.is_root() && !found.contains(path) && request.select.wants(path, false));
    absent.filter(|path| !is_there(path)).collect()
}

/// The directory that is the transfer root, as an entry; none where it is no directory, or where one entry of it was asked for.
///
/// # Errors
/// The tree is refused, or the index fails.
pub fn top(index: &Index, module: &ModuleRef, select: &Selector, root: &Cid) -> Result<Option<Entry>, SyncError> {
    let refuse = |error| SyncError::tree(module, error);
    if select.only().is_some() {
        return Ok(None);
    }
    let Some(name) = select.base().name() else {
        let node = root_node(index, root).map_err(refuse)?;
        // The root has no name; any will do.
        let Ok(name) = Name::new(OWN_DIR) else { return Ok(None) };
        return Ok(Some(Entry { name, mode: node.mode, mtime: node.mtime, node: EntryKind::Dir(Box::new(node.tree)) }));
    };
    let above = select.base().parent().unwrap_or_default();
    let itself = Selector::places(above, [(name.as_bytes().to_vec(), Depth::Itself)], false).with_follow(Follow::Dirs);
    let mut walk = Walk::new(index, root, &itself).map_err(refuse)?;
    Ok(walk.next().and_then(Result::ok).map(|item| item.entry).filter(Entry::is_dir))
}
