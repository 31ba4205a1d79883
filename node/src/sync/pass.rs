//! One pass of fetch or mirror: resolve, sources, pages, plan (`--dry-run` ends here), bytes, place, index, marks, report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use libp2p::Multiaddr;
use tokio::sync::mpsc;
use tracker_less::record::{CheckedBundle, Generation, ModuleId};

use super::fetch::Download;
use super::plan::{self, Plan, Rules};
use super::resolve::{Resolved, Wanted, resolve};
use super::source::Finder;
use super::{Node, SourceRow, SyncError};
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;

/// Whether the destination is a replica or merely a place to put files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Put files there; nothing is remembered beyond what `verify` needs.
    Fetch,
    /// A replica: registered, served, its superseded files kept for a while.
    Mirror,
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Fetch or mirror.
    pub kind: Kind,
    /// The reference as text, for the registration.
    pub reference: String,
    /// The module.
    pub module: ModuleId,
    /// Which generation.
    pub wanted: Wanted,
    /// Addresses from the reference and the command line.
    pub hints: Vec<Multiaddr>,
    /// What of the module: path and filters.
    pub select: Selector,
    /// The path below the module that becomes the transfer root.
    pub base: TreePath,
    /// The destination, absolute.
    pub dest: PathBuf,
    /// Attributes, links, deletion.
    pub rules: Rules,
    /// Print what would be done and change nothing.
    pub dry_run: bool,
    /// Make missing parents of the destination.
    pub mkpath: bool,
    /// The destination may hold files that murmir did not write.
    pub adopt: bool,
    /// A drastic plan is meant.
    pub force_delete: bool,
    /// Most deletions of one pass.
    pub max_delete: Option<u64>,
    /// Go below what is placed.
    pub allow_downgrade: bool,
    /// Most bytes of the selected tree.
    pub max_total: Option<u64>,
}

/// What a pass did.
#[derive(Debug)]
pub struct Report {
    /// The head that was brought.
    pub bundle: CheckedBundle,
    /// The highest generation seen; above the bundle's if nobody had that one whole.
    pub newest: Generation,
    /// What was (or would be) changed.
    pub plan: Plan,
    /// Entries deleted.
    pub deleted: u64,
    /// Paths that failed, and why.
    pub problems: Vec<(TreePath, String)>,
    /// Per source.
    pub sources: Vec<SourceRow>,
    /// Pages fetched.
    pub pages: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Runs one pass.
///
/// # Errors
/// Every way a pass can end early; nothing visible has changed then, unless the disk failed while placing.
pub async fn run(node: Arc<Node>, request: Request, progress: &Progress) -> Result<Report, SyncError> {
    let start = Instant::now();
    let mut finder = Finder::start(Arc::clone(&node), request.module, request.hints.clone());
    let Resolved { bundle, sources, newest } = resolve(&node, request.module, request.wanted, &mut finder).await?;
    let target = Destination::open(&node.state, &request, &bundle)?;
    let brought = pages::bring(&node, &bundle, &request.select, sources, &mut finder).await?;
    let remote = tree::selected(&node.index, &bundle, &request)?;
    let local = target.scan(&node.index, &remote, &request)?;
    let plan = plan::make(&remote, &local.tree, request.rules, |path, dir| !request.keeps(path, dir));
    let mut report = Report::new(bundle, newest, plan, brought.pages);
    if !request.dry_run {
        guard(&request, &report.plan)?;
        let stage = target.stage()?;
        let download = Download::new(request.module, Arc::clone(&stage), report.plan.wants(), progress.clone())?;
        report.sources = download.run(brought.sources, &mut finder).await?.rows;
        target.place(&node, &stage, &request, &mut report)?;
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}
