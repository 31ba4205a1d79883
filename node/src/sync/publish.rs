//! Publish: scan, tree, index, sign, hand over. Runs straight through.

use std::path::{Path, PathBuf};

use cid::Cid;
use tracker_less::record::{
    CheckedBundle, Fresh, Generation, Head, ModuleId, ModuleName, PublisherId, SecretKey,
};

use super::holding::Holding;
use super::{Node, SyncError};
use crate::manifest::diff::{self, Difference};
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;
use crate::store::files::Dir;
use crate::store::scan::{self, Problem};
use crate::store::state::{Registration, Role};

/// A tree that lost more than this share (percent) of its entries or bytes is not published without a word from the user.
const SHRINK_PERCENT: u64 = 25;
/// ... but only where it lost more entries than this.
const SHRINK_ENTRIES: u64 = 100;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// The module's name.
    pub module: ModuleName,
    /// The key's name.
    pub key: String,
    /// What of the directory is published.
    pub select: Selector,
    /// Globs of files that switch last at mirrors.
    pub late: Vec<String>,
    /// How long a Fresh record lasts, seconds.
    pub fresh_for: u64,
    /// There is no earlier generation, whatever else is known.
    pub first: bool,
    /// Publish under this number.
    pub seq: Option<u64>,
    /// Publish a tree that lost much.
    pub allow_shrink: bool,
    /// Publish without entries that cannot be read any more.
    pub ignore_errors: bool,
    /// Sign nothing.
    pub dry_run: bool,
}

/// What was published.
#[derive(Debug)]
pub struct Published {
    /// Whose.
    pub publisher: PublisherId,
    /// The module's name.
    pub module: ModuleName,
    /// The generation's number.
    pub generation: Generation,
    /// Root CID.
    pub root: Cid,
    /// Regular files, hard links each counted.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// False if the tree is the one of the former generation.
    pub changed: bool,
    /// What changed since the former generation.
    pub changes: Vec<Difference>,
    /// Entries left out, or read in an older state.
    pub problems: Vec<Problem>,
}

/// Publishes a directory as the next generation of a module.
///
/// # Errors
/// The guards of the command line (lost history, shrunken tree, unreadable entries), and local failures.
pub async fn publish(node: &Node, request: Request, now: u64) -> Result<Published, SyncError> {
    let key = node.state.publisher_key(&request.key)?;
    let publisher = key.public().publisher();
    let module = ModuleId::new(&publisher, &request.module);
    let former = former(node, &request, module, &publisher).await?;
    let tree = scan_tree(node, &request, former.as_ref())?;
    let root = tree.root;
    let same = former.as_ref().is_some_and(|bundle| *bundle.root() == root);
    let changes = match &former {
        Some(bundle) if !same => diff::diff(bundle.root(), &root, &*node.index)?,
        _ => Vec::new(),
    };
    let generation = next_generation(former.as_ref(), &request, same);
    if !request.allow_shrink && let Some(bundle) = &former {
        check_shrink(bundle, &tree)?;
    }
    if !request.dry_run {
        let bundle = sign(&key, &request, former, generation, &tree, now)?;
        node.witness(&bundle).await?;
        register(node, &request, &bundle, &tree)?;
        announce(node, &request.dir, bundle).await?;
    }
    let Tree { files, bytes, problems, .. } = tree;
    Ok(Published {
        publisher,
        module: request.module,
        generation,
        root,
        files,
        bytes,
        changed: !same,
        changes,
        problems,
    })
}
