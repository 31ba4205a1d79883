//! `fetch` and `mirror`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::record::CheckedBundle;

use super::format::{Summary, commas, human};
use super::itemize::itemize;
use super::{Event, Output, inspect};
use crate::error::{Exit, Failure};
use crate::manifest::path::{Name, TreePath};
use crate::manifest::select::Selector;
use crate::reference::Reference;
use crate::service::Service;
use crate::sync::fetch::Progress;
use crate::sync::pass::{self, Kind, Report, Request};
use crate::sync::plan::{Change, Plan, Rules};
use crate::sync::{SourceRow, unix_now};

/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);

/// The request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// A replica rather than a fetch.
    pub mirror: bool,
    /// What, as text.
    pub reference: String,
    /// Where to, absolute; with a trailing slash if the user wrote one.
    pub dest: PathBuf,
    /// The user wrote a slash after DEST.
    pub dest_slash: bool,
    /// Print the plan, change nothing.
    pub dry_run: bool,
    /// `-i`.
    pub itemize: bool,
    /// `-v`.
    pub verbose: bool,
    /// `--stats`.
    pub stats: bool,
    /// `-h`.
    pub human: bool,
    /// `-l`.
    pub links: bool,
    /// `-p`.
    pub perms: bool,
    /// `-t`.
    pub times: bool,
    /// `-H`.
    pub hard_links: bool,
    /// `--delete`, in any form.
    pub delete: bool,
    /// `--safe-links`.
    pub safe_links: bool,
    /// `--max-delete`.
    pub max_delete: Option<u64>,
    /// `--force-delete`.
    pub force_delete: bool,
    /// Ordered patterns: (include, pattern).
    pub rules: Vec<(bool, String)>,
    /// `--late`.
    pub late: Vec<String>,
    /// `--mkpath`.
    pub mkpath: bool,
    /// `--adopt`.
    pub adopt: bool,
    /// `--allow-downgrade`.
    pub allow_downgrade: bool,
    /// `--max-age`, seconds.
    pub max_age: Option<u64>,
    /// `--max-transfer`, bytes.
    pub max_transfer: Option<u64>,
    /// `--max-size-total`, bytes.
    pub max_total: Option<u64>,
    /// `--error-on-no-transfer`.
    pub error_on_no_transfer: bool,
    /// `--watch`.
    pub watch: bool,
}

/// A selector from a place in the tree and patterns.
///
/// # Errors
/// A pattern is refused.
pub fn selector(base: TreePath, only: Option<Name>, rules: &[(bool, String)]) -> Result<Selector, Failure> {
    let mut select = Selector::below(base, only);
    for (include, pattern) in rules {
        select.rule(*include, pattern.as_bytes()).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(select)
}

/// Parses a reference; adds nothing.
///
/// # Errors
/// It is none.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|error| Failure::usage(error.to_string()))
}

/// One pass.
///
/// # Errors
/// Every way a pass can end early, and the exit codes of passes that were done in part.
pub async fn pass(service: &Service, wish: Pass, out: &Output) -> Result<Value, Failure> {
    let (before_in, before_out) = service.node.swarm.bytes().await;
    let request = request(service, &wish).await?;
    let progress = Arc::new(Progress::default());
    let report = {
        let run = pass::run(&service.node, &request, &progress);
        tokio::pin!(run);
        let mut tell = tokio::time::interval(TELL);
        loop {
            tokio::select! {
                result = &mut run => break result?,
                _ = tell.tick() => tell_progress(&progress, out).await,
            }
        }
    };
    let (received, sent) = service.node.swarm.bytes().await;
    let traffic = (received - before_in, sent - before_out);
    print(&wish, &request, &report, traffic, out).await;
    if wish.mirror && !wish.dry_run && report.placed.problems.is_empty() {
        service.hold(&request.module).await?;
    }
    check(&wish, &report)?;
    Ok(done(&report, traffic))
}

async fn tell_progress(progress: &Progress, out: &Output) {
    let (done, total) = (progress.done.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
    if total > 0 {
        out.say(Event::Progress { done, total }).await;
    }
}

async fn request(service: &Service, wish: &Pass) -> Result<Request, Failure> {
    let reference = reference(&wish.reference)?;
    let (base, only) = reference.transfer_root();
    let mut dest = wish.dest.clone();
    let mut rename = None;
    if only.is_some()
        && !wish.mirror
        && !wish.dest_slash
        && !dest.is_dir()
        && inspect::is_file(service, &reference).await?
    {
        // One file to a name that is no directory: as cp does, the file gets that name.
        let name = dest.file_name().and_then(|name| Name::new(name.as_encoded_bytes()).ok());
        rename = Some(name.ok_or_else(|| Failure::usage("DEST has no name"))?);
        dest = dest.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from);
    }
    let rules = Rules {
        links: wish.links,
        perms: wish.perms,
        times: wish.times,
        hard_links: wish.hard_links,
        delete: wish.delete,
        safe_links: wish.safe_links,
    };
    Ok(Request {
        kind: if wish.mirror { Kind::Mirror } else { Kind::Fetch },
        reference: wish.reference.clone(),
        hints: service.hints_with(&reference.peers),
        module: reference.module,
        wanted: reference.at,
        select: selector(base, only, &wish.rules)?,
        rename,
        dest,
        rules,
        late: wish.late.clone(),
        watch: wish.watch,
        dry_run: wish.dry_run,
        mkpath: wish.mkpath,
        adopt: wish.adopt,
        force_delete: wish.force_delete,
        max_delete: wish.max_delete,
        allow_downgrade: wish.allow_downgrade,
        max_total: wish.max_total,
        max_transfer: wish.max_transfer,
    })
}

async fn print(wish: &Pass, request: &Request, report: &Report, traffic: (u64, u64), out: &Output) {
    for (path, why) in &report.placed.problems {
        out.note(format!("{path}: {why}")).await;
    }
    for path in &report.plan.unsafe_links {
        out.note(format!("{path}: symlink leads out of the tree, left out")).await;
    }
    if report.bundle.is_from_future(unix_now()) {
        out.note("the head is dated in the future: check the clock").await;
    }
    for step in report.plan.in_rsync_order() {
        if wish.itemize || wish.dry_run {
            out.line(itemize(step, request.rules)).await;
        } else if wish.verbose {
            let gone = if step.change == Change::Delete { "deleting " } else { "" };
            out.line(format!("{gone}{}", step.path)).await;
        }
    }
    if wish.stats {
        stats(wish, &report.plan, traffic, out).await;
    }
    if wish.verbose || wish.stats {
        let (received, sent) = traffic;
        let (seconds, total) = (report.seconds, report.plan.bytes);
        let [moved, size] = Summary { sent, received, seconds, total, human: wish.human }.lines();
        let dry = if wish.dry_run { " (DRY RUN)" } else { "" };
        for line in [String::new(), moved, format!("{size}{dry}")] {
            out.line(line).await;
        }
    }
}

async fn stats(wish: &Pass, plan: &Plan, (received, sent): (u64, u64), out: &Output) {
    let fetched: u64 = plan.wants().iter().map(|want| want.size).sum();
    out.line("").await;
    let number = |value| if wish.human { human(value) } else { commas(value) };
    for line in [
        format!("Number of files: {}", commas(plan.files)),
        format!("Number of deleted files: {}", commas(plan.deletions())),
        format!("Number of regular files transferred: {}", commas(plan.transfers())),
        format!("Total file size: {} bytes", number(plan.bytes)),
        format!("Literal data: {} bytes", commas(fetched)),
        format!("Matched data: {} bytes", commas(plan.reused)),
        format!("Total bytes sent: {}", commas(sent)),
        format!("Total bytes received: {}", commas(received)),
    ] {
        out.line(line).await;
    }
}

/// Exit codes of passes that went through, but not as asked.
fn check(wish: &Pass, report: &Report) -> Result<(), Failure> {
    if let Some((path, why)) = report.placed.problems.first() {
        let count = report.placed.problems.len();
        return Err(Failure::new(Exit::Partial, format!("{count} paths failed, first {path}: {why}")));
    }
    if report.skipped_deletions > 0 {
        let text = format!("{} deletions were skipped because of --max-delete", report.skipped_deletions);
        return Err(Failure::new(Exit::Guarded, text));
    }
    check_age(wish, report)?;
    if wish.error_on_no_transfer && report.plan.steps.is_empty() {
        return Err(Failure::new(Exit::Unchanged, "nothing changed"));
    }
    Ok(())
}

fn check_age(wish: &Pass, report: &Report) -> Result<(), Failure> {
    let (have, newest) = (report.bundle.generation(), report.newest);
    let named = crate::reference::Reference::parse(&wish.reference)
        .is_ok_and(|reference| reference.at != crate::sync::resolve::Wanted::Newest);
    if newest > have && !named {
        let text = format!("done with {have}; {newest} was seen, but nobody has it");
        return Err(Failure::new(Exit::Stale, text));
    }
    let Some(max) = wish.max_age else { return Ok(()) };
    let (now, issued) = (unix_now(), report.bundle.fresh().map(|fresh| fresh.issued));
    let young = issued.is_some_and(|issued| now.saturating_sub(issued) <= max);
    if young && report.bundle.is_fresh(now) {
        return Ok(());
    }
    let age = issued.map_or("unknown".to_owned(), |issued| format!("{} s", now.saturating_sub(issued)));
    Err(Failure::new(Exit::Stale, format!("done, but the newest word of the publisher is old: {age}")))
}

fn done(report: &Report, (received, sent): (u64, u64)) -> Value {
    let trackers = &report.bundle.charter().trackers;
    let is_origin = |row: &&SourceRow| trackers.contains(&row.peer);
    let origin: u64 = report.sources.iter().filter(is_origin).map(|row| row.received).sum();
    let all: u64 = report.sources.iter().map(|row| row.received).sum();
    json!({
        "event": "done",
        "seq": report.bundle.generation().seq,
        "root": report.bundle.root().to_string(),
        "files": report.plan.files,
        "transferred": report.plan.transfers(),
        "deleted": report.placed.deleted,
        "received": received,
        "sent": sent,
        "reused": report.plan.reused,
        "from": { "origin": origin, "peers": all - origin, "web_seeds": 0, "classic": 0 },
        "sources": report.sources.iter().map(source).collect::<Vec<_>>(),
        "pages": report.pages,
        "stale": is_stale(&report.bundle),
        "seconds": report.seconds,
    })
}

fn is_stale(bundle: &CheckedBundle) -> bool {
    !bundle.is_fresh(unix_now())
}

fn source(row: &SourceRow) -> Value {
    json!({
        "peer_id": row.peer.to_string(),
        "kind": "peer",
        "received": row.received,
        "requests": row.requests,
        "bad": row.bad,
        "banned": row.banned,
    })
}
