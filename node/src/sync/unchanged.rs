//! Nothing has changed: how a publish and a mirror see it at a glance, and end there.

use tracker_less::record::CheckedBundle;

use super::dest::{Destination, nanos_now};
use super::pass::{self, Kind, Report};
use super::plan::Plan;
use super::{Node, SyncError, publish};
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;
use crate::store::files::Dir;
use crate::store::glance::{Look, Seen};
use crate::store::scan::Wanted;

/// What a published directory looks like now, together with all else that decides what it comes to; none where there is nothing
/// to compare with, or it is too young to tell.
pub(super) fn published(
    request: &publish::Request,
    former: Option<&CheckedBundle>,
) -> Result<Option<[u8; 32]>, SyncError> {
    let Some(former) = former else { return Ok(None) };
    let root = Dir::open(&request.dir)?;
    let select = |path: &TreePath, is_dir: bool| request.select.wants(path, is_dir);
    let is_all = request.select == Selector::all();
    let wanted: Option<&Wanted<'_>> = if is_all { None } else { Some(&select) };
    let publish::Request { select, late, unofficial, .. } = request;
    let words = format!("{} {select:?} {late:?} {unofficial:?}", former.root());
    let started = i64::try_from(request.now).unwrap_or(0).saturating_mul(1_000_000_000);
    Ok(Look { root: &root, wanted, started }.run().map(|glance| glance.with(&words)))
}

/// The same of a replica of `bundle`, where a glance may be enough. Elsewhere the directory holds what is not ours to look at.
pub(super) fn replica(
    node: &Node,
    request: &pass::Request,
    target: &Destination,
    bundle: &CheckedBundle,
) -> Result<Option<[u8; 32]>, SyncError> {
    let is_plain = request.more.is_empty() && request.rename.is_none() && request.bases.is_empty();
    let is_told = request.dry_run || request.max_total.is_some();
    let stands = node.placed_root(&request.module, &target.path)? == Some(*bundle.root());
    if request.kind != Kind::Mirror || !is_plain || is_told || !stands {
        return Ok(None);
    }
    if !node.marks(&request.module)?.damaged()?.is_empty() {
        return Ok(None);
    }
    let words = format!("{} {:?} {:?}", bundle.root(), request.select, request.rules);
    Ok(Look { root: &target.root, wanted: None, started: nanos_now() }.run().map(|glance| glance.with(&words)))
}

/// What is kept of a pass that found nothing to do and nothing to tell; none of any other.
pub(super) fn seen(report: &Report, key: Option<[u8; 32]>) -> Option<Seen> {
    let plan = &report.plan;
    let is_silent = plan.steps.is_empty()
        && plan.unsafe_links.is_empty()
        && plan.skipped.is_empty()
        && plan.passed_over.is_empty()
        && plan.blocked.is_empty()
        && plan.kept_dirs.is_empty()
        && report.unlisted.is_empty()
        && report.is_whole();
    let (files, others, bytes, reused, before) = (plan.files, plan.others, plan.bytes, plan.reused, plan.before);
    let counts = vec![files, others.0, others.1, bytes, reused, before.0, before.1];
    key.filter(|_| is_silent).map(|key| Seen { key: key.into(), counts })
}

/// The plan of such a pass.
pub(super) fn plan(seen: &Seen) -> Plan {
    let count = |at: usize| seen.counts.get(at).copied().unwrap_or(0);
    Plan {
        files: count(0),
        others: (count(1), count(2)),
        bytes: count(3),
        reused: count(4),
        before: (count(5), count(6)),
        ..Plan::default()
    }
}
