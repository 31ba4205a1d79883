//! One pass of fetch or mirror: resolve, sources, pages, plan (`--dry-run` ends here), bytes, place, index, marks, report.

mod report;
mod request;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use tracker_less::record::CheckedBundle;

use super::backup;
use super::bring::Bringing;
use super::dest::{Destination, Found};
use super::fetch::Progress;
use super::pages::{self, PageCount};
use super::place::Placing;
use super::plan::{self, BasisKind, Guard, Local, LocalKind, Plan, Remote, Rules};
use super::resolve::{InPlace, Resolved, resolve};
use super::seeds::Seeds;
use super::selected::{Selected, selected};
use super::silence::unless_silent;
use super::source::{Finder, Source};
use super::{Node, SyncError, unchanged};
use crate::manifest::ContentId;
use crate::manifest::entry::Node as EntryKind;
use crate::manifest::filter::Wild;
use crate::manifest::path::TreePath;
use crate::store::files::Dir;
use crate::store::stage::Stage;
use crate::web::WebSeed;
use crate::wire::pulse::Pulse;
pub use report::Report;
pub use request::{Kind, Request};

/// The flags that say how much may go.
pub const UNLESS: &str = "--force-delete or --max-delete=N";

/// Runs one pass.
///
/// # Errors
/// Every way a pass can end early; nothing visible has changed then, unless the disk failed while placing.
pub async fn run(node: &Arc<Node>, request: &Request, progress: &Arc<Progress>) -> Result<Report, SyncError> {
    let target = Destination::wait_open(node, request).await?;
    let is_new = target.is_new;
    let result = into(target, node, request, progress).await;
    if result.is_err() && request.kind == Kind::Mirror {
        // What was told of it while it arrived is not held after all.
        node.release(&request.module.id).await;
    }
    if is_new && result.is_err() {
        // What was made for nothing goes again; with anything in it, it stays.
        let _ = std::fs::remove_dir(&request.dest);
    }
    result
}

async fn into(
    target: Destination,
    node: &Arc<Node>,
    request: &Request,
    progress: &Arc<Progress>,
) -> Result<Report, SyncError> {
    let (start, pulse) = (Instant::now(), Pulse::default());
    let seeds = Arc::new(Seeds::open(&request.web_seeds, pulse.clone())?);
    let placed = node.placed_root(&request.module, &target.path)?;
    let mut finder = search(node, request, &seeds, placed.is_some());
    let Resolved { bundle, mut sources, newest } = resolve_in_time(node, request, &target, &mut finder).await?;
    finder.admit(request.choice.origin, &bundle, &mut sources);
    add_given(&seeds, &mut sources);
    finder.suffices(placed.as_ref() == Some(bundle.root()));
    let glance = glance(node, request, &target, &bundle).await?;
    if let Some(plan) = glance.and_then(|key| seen_before(node, &target, key)) {
        node.mark_placed(request, &bundle, target.is_ours)?;
        return Ok(Report { plan, seconds: start.elapsed().as_secs_f64(), ..Report::of(bundle, newest, false) });
    }
    let roots = (*bundle.root(), placed.filter(|_| request.delta));
    let mut count = PageCount::default();
    for select in request.selectors() {
        // On the heap: what asks several at once is large.
        let bring = Box::pin(pages::bring(node, &request.module, roots, select, &mut sources, &mut finder));
        count += unless_silent(request.timeout, &pulse, bring).await?;
    }
    if let Some(pace) = &request.pace {
        // Pages are not held back, but their bytes count.
        pace.take(count.bytes);
    }
    let page_seconds = start.elapsed().as_secs_f64();
    let tree = selected(node, request, &bundle)?;
    let found = look(node, request, target.clone(), &tree, false).await?;
    let bases = look_at_bases(node, request, &tree).await?;
    let mut report = Report {
        plan: make_plan(request, &target, &tree, &found, &bases)?,
        missing: tree.missing.clone(),
        broken: tree.broken.clone(),
        unlisted: tree.unlisted.clone(),
        pages: count.pages,
        page_bytes: count.bytes,
        page_seconds,
        ..Report::of(bundle, newest, target.is_new)
    };
    report.estimate = request.dry_run.then(|| report.plan.estimate(request.delta));
    check_guards(request, &mut report)?;
    let here = Arc::new(Here { target, found, bases, late: [request.late.as_slice(), &tree.root.late].concat() });
    // The plan says it all: a list of the tree takes much memory.
    drop(tree);
    if !request.dry_run && report.plan.has_changes() {
        let own = here.target.own_dir()?;
        let stage = blocking(move || Ok(Arc::new(Stage::open(&own)?))).await?;
        seeds.tell_paths(places(node, request, &report.bundle));
        let bringing = Bringing { node, request, stage: &stage, dest: &here.target.root, progress, pulse: &pulse };
        report.sources = bringing.run(&report, sources, &mut finder).await?;
        report = place(request, report, stage, &here).await?;
    }
    if !request.dry_run {
        report = remember(node, request, report, &here, glance).await?;
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// The generation to bring: nothing below what is placed, unless the user says so.
async fn resolve_in_time(
    node: &Node,
    request: &Request,
    target: &Destination,
    finder: &mut Finder,
) -> Result<Resolved, SyncError> {
    let floor = node.placed_at(&request.module, &target.path)?.filter(|_| !request.allow_downgrade);
    let in_place = InPlace { floor, bundle: node.standing(&request.module, &target.path)? };
    let resolving = resolve(node, &request.module, request.wanted, &in_place, finder);
    let resolved = match request.contimeout {
        None => resolving.await?,
        Some(limit) => tokio::time::timeout(limit, resolving)
            .await
            .map_err(|_| SyncError::ConnectTimeout { seconds: limit.as_secs() })??,
    };
    let offered = resolved.bundle.generation();
    match floor {
        Some(placed) if placed > offered => Err(SyncError::Rollback { offered, placed }),
        _ => Ok(resolved),
    }
}

/// What a replica looks like, where it may be that nothing is to be done.
async fn glance(
    node: &Arc<Node>,
    request: &Request,
    target: &Destination,
    bundle: &CheckedBundle,
) -> Result<Option<[u8; 32]>, SyncError> {
    let (node, request, target, bundle) = (Arc::clone(node), request.clone(), target.clone(), bundle.clone());
    blocking(move || unchanged::replica(&node, &request, &target, &bundle)).await
}

/// The plan, with nothing to do, of a pass that saw the same.
fn seen_before(node: &Node, target: &Destination, key: [u8; 32]) -> Option<Plan> {
    let seen = node.index.seen(target.key()).ok().flatten().filter(|seen| *seen.key == key)?;
    tracing::debug!("all is as it was left");
    Some(unchanged::plan(&seen))
}

/// Begins to look for sources. Where something stands already, it may well be the newest, as a few can tell.
fn search(node: &Arc<Node>, request: &Request, seeds: &Arc<Seeds>, stands: bool) -> Finder {
    let (module, hints) = (request.module.clone(), request.hints.clone());
    Finder::with_seeds(Arc::clone(node), module, hints, Arc::clone(seeds), request.narrow && stands)
}

/// The web servers that the user named take part, whether they showed a head or not.
fn add_given(seeds: &Seeds, sources: &mut Vec<Source>) {
    let is_there = |seed: &&Arc<WebSeed>| {
        sources.iter().any(|source| source.supply.web().is_some_and(|one| Arc::ptr_eq(one, seed)))
    };
    let more: Vec<Source> =
        seeds.given().iter().filter(|seed| !is_there(seed)).map(|seed| Source::web(seed, None)).collect();
    sources.extend(more);
}

/// Looks at the destination off the event loop: where the module has something, or everywhere.
async fn look(
    node: &Arc<Node>,
    request: &Request,
    target: Destination,
    tree: &Selected,
    everywhere: bool,
) -> Result<Found, SyncError> {
    let sizes: HashSet<u64> = tree.entries.iter().filter_map(|item| file(item).map(|(_, size)| size)).collect();
    let area = Area::of(request, tree);
    let doubted = node.doubted(&request.module, &target.path)?;
    let node = Arc::clone(node);
    let enters = move |path: &TreePath, is_dir: bool| !is_dir || everywhere || area.enters(path);
    blocking(move || target.scan(&node.index, &sizes, &doubted, &enters)).await
}

/// A directory of `--link-dest` and its like, and what stands in it.
struct BasisDir {
    kind: BasisKind,
    root: Dir,
    found: Found,
}

/// Looks at the directories of `--link-dest` and its like; those that do not exist are passed over.
async fn look_at_bases(node: &Arc<Node>, request: &Request, tree: &Selected) -> Result<Vec<BasisDir>, SyncError> {
    let mut bases = Vec::new();
    for (kind, path) in &request.bases {
        let path = request.dest.join(path);
        if !path.is_dir() {
            tracing::warn!(path = %path.display(), "a basis directory does not exist");
            continue;
        }
        let basis = Destination::basis(&path)?;
        let found = look(node, request, basis.clone(), tree, *kind == BasisKind::Reuse).await?;
        bases.push(BasisDir { kind: *kind, root: basis.root, found });
    }
    Ok(bases)
}

/// The directories of the destination that matter: those where the module has something, and where things may be deleted,
/// all below.
struct Area {
    paths: HashSet<TreePath>,
    listed: HashSet<TreePath>,
}

impl Area {
    fn of(request: &Request, tree: &Selected) -> Self {
        let listed = tree
            .entries
            .iter()
            // A directory that stands in the place of a file is looked at whole: it may have to go, or be told of.
            .filter(|item| !item.entry.is_dir() || (item.listed && request.rules.delete))
            .map(|item| item.path.clone());
        let mut listed: HashSet<TreePath> = listed.collect();
        if request.rules.delete && request.lists_root() {
            listed.insert(TreePath::root());
        }
        Self { paths: tree.entries.iter().map(|item| item.path.clone()).collect(), listed }
    }

    fn enters(&self, dir: &TreePath) -> bool {
        self.paths.contains(dir)
            || std::iter::successors(dir.parent(), TreePath::parent).any(|up| self.listed.contains(&up))
    }
}

fn file(item: &Remote) -> Option<(ContentId, u64)> {
    match &item.entry.node {
        EntryKind::File { size, id, .. } => Some((*id, *size)),
        _ => None,
    }
}

fn make_plan(
    request: &Request,
    target: &Destination,
    tree: &Selected,
    found: &Found,
    bases: &[BasisDir],
) -> Result<Plan, SyncError> {
    let (select, own) = (&request.select, &request.rules);
    // What could not be had may be what stands here: as in rsync, nothing is deleted then.
    let rules = &Rules { delete: own.delete && (tree.is_whole() || own.ignore_errors), ..own.clone() };
    let read = |path: &TreePath| found.tree.contains_key(path).then(|| target.small_file(path)).flatten();
    let root_listed = request.lists_root();
    let guard = Guard { filter: select.filter(), read: &read, root_listed };
    let trees: Vec<_> = bases.iter().map(|basis| (basis.kind, &basis.found.tree)).collect();
    let mut plan = plan::make(&tree.entries, &found.tree, &trees, rules, &guard);
    if let Some(top) = tree.top.as_ref().filter(|_| root_listed) {
        plan.others.0 += 1;
        let own = if target.is_unmade() { None } else { Some(target.root.own_stat()?) };
        let old = own.map(|own| Local { kind: LocalKind::Dir, mode: own.mode & 0o1777, mtime: own.stamp.mtime });
        plan.set_root(top, old.filter(|_| !target.is_new), rules);
    }
    Ok(plan)
}

/// The guards of the command line; cuts the plan to `--max-delete`.
fn check_guards(request: &Request, report: &mut Report) -> Result<(), SyncError> {
    let plan = &mut report.plan;
    if let Some(max) = request.max_total.filter(|max| plan.bytes > *max) {
        return Err(SyncError::Limit { reason: format!("the tree has {} bytes, {max} are allowed", plan.bytes) });
    }
    let to_fetch: u64 = plan.wants().iter().map(|want| want.size).sum();
    if let Some(max) = request.max_transfer.filter(|max| to_fetch > *max) {
        return Err(SyncError::Limit { reason: format!("{to_fetch} bytes to fetch, {max} are allowed") });
    }
    let asked = request.force_delete || request.max_delete.is_some();
    if plan.is_drastic() && !asked && !request.dry_run {
        let (deletions, transfers, before) = (plan.deletions(), plan.transfers(), plan.before.0);
        let reason = format!("{deletions} deletions and {transfers} files to write, where {before} entries stand");
        return Err(SyncError::Guarded { reason, unless: UNLESS });
    }
    if let Some(max) = request.max_delete {
        report.skipped_deletions = plan.limit_deletions(max);
    }
    Ok(())
}

/// The destination, what stood there, the directories of bases, and which names switch last.
struct Here {
    target: Destination,
    found: Found,
    bases: Vec<BasisDir>,
    late: Vec<String>,
}

/// Finds out where in the module each content stands.
fn places(
    node: &Arc<Node>,
    request: &Request,
    bundle: &CheckedBundle,
) -> impl FnOnce() -> HashMap<ContentId, TreePath> + Send + Sync + 'static {
    let (node, request, bundle) = (Arc::clone(node), request.clone(), bundle.clone());
    move || {
        let entries = selected(&node, &request, &bundle).map(|tree| tree.entries).unwrap_or_default();
        entries.into_iter().filter_map(|item| Some((file(&item)?.0, item.place))).collect()
    }
}

async fn place(
    request: &Request,
    mut report: Report,
    stage: Arc<Stage>,
    here: &Arc<Here>,
) -> Result<Report, SyncError> {
    let here = Arc::clone(here);
    let (backup, keep_old) = (request.rules.backup.clone(), request.kind == Kind::Mirror);
    blocking(move || {
        let wanted = backup.as_ref().filter(|backup| report.plan.steps.iter().any(|step| step.backs_up(backup)));
        let backups = wanted.map_or(Ok(None), |backup| backup::outside(&here.target.path, backup))?;
        let placing = Placing {
            root: &here.target.root,
            found: &here.found,
            own: &here.target.own_dir()?,
            stage: &stage,
            plan: &report.plan,
            backup: backup.as_ref(),
            backups: backups.as_ref(),
            bases: here.bases.iter().map(|basis| (&basis.root, &basis.found)).collect(),
            keep_old,
            now: super::unix_now(),
        };
        report.placed = placing.run(|path| here.late.iter().any(|pattern| matches_late(pattern, path)))?;
        Ok(report)
    })
    .await
}

/// A late glob without a slash is about the name, with one about the path.
fn matches_late(pattern: &str, path: &TreePath) -> bool {
    let pattern = pattern.as_bytes();
    match path.name() {
        Some(name) if !pattern.contains(&b'/') => Wild::new(pattern).matches(name.as_bytes()),
        _ => Wild::new(pattern.strip_prefix(b"/").unwrap_or(pattern)).matches(path.as_bytes()),
    }
}

/// Index rows first, then the mark: it never says more than what is durable.
async fn remember(
    node: &Arc<Node>,
    request: &Request,
    report: Report,
    here: &Arc<Here>,
    glance: Option<[u8; 32]>,
) -> Result<Report, SyncError> {
    let (node, here, request) = (Arc::clone(node), Arc::clone(here), request.clone());
    blocking(move || {
        let (Here { target, found, .. }, plan) = (&*here, &report.plan);
        let complete = report.placed.problems.is_empty() && report.skipped_deletions == 0;
        let mut dirs = plan.disturbed(&found.tree);
        dirs.extend(found.unknown.iter().cloned());
        if !dirs.is_empty() {
            target.remember(&node.index, &plan.outcome(&found.tree, complete), found, &dirs)?;
        }
        if let Some(seen) = unchanged::seen(&report, glance).filter(|_| complete) {
            node.index.put_seen(target.key(), &seen)?;
        }
        node.index.flush()?;
        if complete {
            node.mark_placed(&request, &report.bundle, target.is_ours)?;
        }
        if complete && request.kind == Kind::Mirror {
            target.empty_stage();
        }
        if request.kind == Kind::Fetch && !node.is_replica(&target.path)? {
            target.clean_up();
            // That changed the directory once more.
            if let Some((_, Some(mtime))) = plan.dirs.get(&TreePath::root()) {
                target.root.set_own_mtime(*mtime)?;
            }
        }
        Ok(report)
    })
    .await
}

/// Runs disk work off the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SyncError::Worker { reason: error.to_string() }),
    }
}
