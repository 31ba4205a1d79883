//! `fetch` and `mirror`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::record::CheckedBundle;

use super::seed::seed;
use super::show::Show;
use super::{Event, Output, glob, inspect};
use crate::error::{Exit, Failure};
use crate::manifest::follow::Broken;
use crate::manifest::path::{Name, TreePath};
use crate::manifest::select::Selector;
use crate::manifest::selection::Selection;
use crate::manifest::text::ByteText;
use crate::reference::Reference;
use crate::service::{Rates, Service};
use crate::sync::choice::Choice;
use crate::sync::fetch::Progress;
use crate::sync::pass::{self, Kind, Report, Request};
use crate::sync::passes::Pass as UnderWay;
use crate::sync::plan::{BasisKind, Rules};
use crate::sync::supply::SourceName;
use crate::sync::{SourceRow, unix_now};
use crate::wire::throttle::Pace;

/// How often progress is told.
const TELL: Duration = Duration::from_millis(200);

/// A limit that is never reached: ten years, seconds.
const NEVER: u64 = 10 * 366 * 24 * 3600;

/// The request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// A replica rather than a fetch.
    pub mirror: bool,
    /// What, as text.
    pub reference: String,
    /// Further sources of the same module, as texts.
    pub more: Vec<String>,
    /// Where to, absolute; with a trailing slash if the user wrote one.
    #[serde(with = "crate::manifest::text::path")]
    pub dest: PathBuf,
    /// The user wrote a slash after DEST.
    pub dest_slash: bool,
    /// DEST as the user wrote it, escaped, without a slash at its end.
    pub dest_name: String,
    /// Change nothing.
    pub dry_run: bool,
    /// Which entries are touched and what of them is kept.
    pub rules: Rules,
    /// What is printed.
    pub show: Show,
    /// `--max-delete`.
    pub max_delete: Option<u64>,
    /// `--force-delete`.
    pub force_delete: bool,
    /// What of the module.
    pub selection: Selection,
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
    /// The node does it by itself: a watching mirror.
    pub by_itself: bool,
    /// `--link-dest` and its like.
    pub bases: Vec<(BasisKind, ByteText)>,
    /// `--url`.
    pub http: Vec<String>,
    /// `--web-seed`.
    pub web_seeds: Vec<String>,
    /// `--no-delta`.
    pub no_delta: bool,
    /// `--bwlimit`: what is sent counts for a node of the pass's own only.
    pub rates: Rates,
    /// `--timeout`, seconds.
    pub timeout: Option<u64>,
    /// `--contimeout`, seconds.
    pub contimeout: Option<u64>,
    /// `--stop-after` and `--stop-at`: seconds from now.
    pub stop_after: Option<u64>,
    /// `--wait-lock`, seconds.
    pub wait_lock: Option<u64>,
    /// `--seed`, seconds.
    pub seed: Option<u64>,
    /// `--origin` and `--sources`.
    pub choice: Choice,
}

/// A selector from a place in the tree and what of it is wanted.
///
/// # Errors
/// A rule, expression or name is refused.
pub fn selector(base: TreePath, only: Option<Name>, selection: &Selection) -> Result<Selector, Failure> {
    selection.selector(base, only).map_err(|error| Failure::usage(error.to_string()))
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
    // On the heap, as the run itself: together they are too large for the stack of a worker.
    let wish = Box::pin(expanded(service, wish)).await?;
    let (before_in, before_out) = service.node.swarm.bytes().await;
    let request = Box::pin(request(service, &wish)).await?;
    let progress = Arc::new(Progress::default());
    let listed = service.passes().list(UnderWay {
        reference: wish.reference.clone(),
        dest: wish.dest.clone(),
        progress: Arc::clone(&progress),
        since: Instant::now(),
    });
    let report = {
        let run = Box::pin(pass::run(&service.node, &request, &progress));
        let stop = tokio::time::sleep(Duration::from_secs(wish.stop_after.unwrap_or(NEVER)));
        tokio::pin!(run, stop);
        let mut tell = tokio::time::interval(TELL);
        loop {
            tokio::select! {
                result = &mut run => break result?,
                () = &mut stop => {
                    let text = "stopping at requested limit; what was fetched is kept";
                    return Err(Failure::new(Exit::Timeout, text));
                }
                _ = tell.tick() => tell_progress(&progress, out).await,
            }
        }
    };
    drop(listed);
    let (received, sent) = service.node.swarm.bytes().await;
    let traffic = (received - before_in, sent - before_out);
    print(&wish, &report, traffic, out).await;
    // A run that ends now serves nobody: it says that it holds a replica only where a web server goes on.
    let stays = service.serves() || wish.seed.is_some() || !wish.http.is_empty();
    if wish.mirror && !wish.dry_run && report.placed.problems.is_empty() && stays {
        service.hold(&request.module).await?;
    }
    check(&wish, &report)?;
    let value = done(&report, traffic);
    if let Some(span) = wish.seed.filter(|_| !wish.dry_run).map(Duration::from_secs) {
        match service.node.shelf.holding(&request.module.id) {
            // A replica is held already.
            Some(_) => tokio::time::sleep(span).await,
            None => seed(service, &request, &report.bundle, span).await?,
        }
    }
    Ok(value)
}

async fn tell_progress(progress: &Progress, out: &Output) {
    let (done, total) = (progress.done.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
    if total > 0 {
        out.say(Event::Progress { done, total }).await;
    }
}

/// The same with the sources that wildcards stand for; a replica is of one place.
async fn expanded(service: &Service, mut wish: Pass) -> Result<Pass, Failure> {
    if wish.mirror {
        return Ok(wish);
    }
    let texts = std::iter::once(wish.reference).chain(wish.more).collect();
    let mut all = glob::expand(service, texts).await?.into_iter();
    wish.reference = all.next().unwrap_or_default();
    wish.more = all.collect();
    Ok(wish)
}

async fn request(service: &Service, wish: &Pass) -> Result<Request, Failure> {
    let reference = reference(&wish.reference)?;
    let (base, only) = reference.transfer_root();
    let mut dest = wish.dest.clone();
    let mut rename = None;
    let (more, hints) = more(wish, &reference)?;
    if only.is_some()
        && more.is_empty()
        && !wish.mirror
        && !wish.dest_slash
        && !dest.is_dir()
        && inspect::is_file(service, &reference).await?
    {
        // One file to a name that is no directory: as cp does, the file gets that name.
        let name = dest.file_name().and_then(|name| Name::new(name.as_encoded_bytes()).ok());
        rename = Some(name.ok_or_else(|| Failure::usage("DEST has no name"))?);
        dest = dest.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from);
        if !dest.is_dir() && !wish.mkpath {
            let text = format!("make {}: {} does not exist", wish.dest.display(), dest.display());
            return Err(Failure::new(Exit::Files, text).hint("--mkpath makes it"));
        }
    }
    Ok(Request {
        kind: if wish.mirror { Kind::Mirror } else { Kind::Fetch },
        reference: wish.reference.clone(),
        hints: service.hints_with(&[reference.peers.clone(), hints].concat()),
        module: reference.module,
        wanted: reference.at,
        select: selector(base, only, &wish.selection)?,
        more,
        selection: wish.selection.clone(),
        rename,
        dest,
        rules: rules(wish),
        late: wish.late.clone(),
        watch: wish.watch,
        by_itself: wish.by_itself,
        dry_run: wish.dry_run,
        mkpath: wish.mkpath,
        adopt: wish.adopt,
        force_delete: wish.force_delete,
        max_delete: wish.max_delete,
        allow_downgrade: wish.allow_downgrade,
        max_total: wish.max_total,
        max_transfer: wish.max_transfer,
        contimeout: wish.contimeout.map(Duration::from_secs),
        // A limit of its own counts in place of the node's.
        pace: wish.rates.down.map(Pace::new).or_else(|| service.passes().pace()),
        timeout: wish.timeout.map(Duration::from_secs),
        http: wish.http.clone(),
        web_seeds: wish.web_seeds.clone(),
        delta: !wish.no_delta,
        bases: wish.bases.iter().map(|(kind, path)| (*kind, path.into())).collect(),
        wait_lock: wish.wait_lock.map(Duration::from_secs),
        choice: wish.choice,
        // Who wants a young word asks everybody for it.
        narrow: wish.max_age.is_none(),
    })
}

/// The further sources, which must be of the same generation of the same module, and whom else they tell to ask.
fn more(wish: &Pass, first: &Reference) -> Result<(Vec<Selector>, Vec<Multiaddr>), Failure> {
    let (mut more, mut hints) = (Vec::new(), Vec::new());
    if !wish.more.is_empty() && wish.selection.names.is_some() {
        return Err(Failure::usage("a list of names counts from one source"));
    }
    for text in &wish.more {
        let other = reference(text)?;
        if (&other.module, &other.at) != (&first.module, &first.at) {
            return Err(Failure::usage(format!("all sources must be of one module: {text}")));
        }
        let (base, only) = other.transfer_root();
        more.push(selector(base, only, &wish.selection)?);
        hints.extend(other.peers);
    }
    Ok((more, hints))
}

/// The rules of a pass. Expressions leave directories without a match out; `--delete-excluded` is in the filter already.
fn rules(wish: &Pass) -> Rules {
    let prune_empty = wish.rules.prune_empty || !wish.selection.regexes.is_empty();
    Rules { prune_empty, ..wish.rules.clone() }
}

async fn print(wish: &Pass, report: &Report, traffic: (u64, u64), out: &Output) {
    for (path, why) in &report.placed.problems {
        out.note(format!("{path}: {why}")).await;
    }
    if wish.selection.leaves_out() && report.plan.files == 0 && report.plan.others.1 == 0 {
        out.note(format!("nothing matches: 0 of {} entries", report.bundle.head().entries)).await;
    }
    for path in &report.missing {
        out.note(format!("link_stat \"{path}\" failed: No such file or directory (2)")).await;
    }
    for (path, why) in &report.broken {
        out.note(format!("symlink has no referent{}: \"{path}\"", referent(*why))).await;
    }
    if report.bundle.is_from_future(unix_now()) {
        out.note("the head is dated in the future: check the clock").await;
    }
    let new_dest = report.is_new.then_some(wish.dest_name.as_str());
    for line in wish.show.lines(report, &wish.rules, traffic, new_dest, wish.dry_run) {
        out.line(line).await;
    }
    for line in wish.show.log(report, &wish.rules, traffic, wish.dry_run) {
        out.say(Event::Log(line)).await;
    }
}

/// What is to be added about a symlink that cannot be followed.
fn referent(why: Broken) -> &'static str {
    match why {
        Broken::Nowhere => "",
        Broken::Outside => " in the module",
        Broken::Circle => " but what it is in itself",
    }
}

/// Exit codes of passes that went through, but not as asked.
fn check(wish: &Pass, report: &Report) -> Result<(), Failure> {
    if let Some((path, why)) = report.placed.problems.first() {
        let count = report.placed.problems.len();
        return Err(Failure::new(Exit::Partial, format!("{count} paths failed, first {path}: {why}")));
    }
    if let Some(first) = report.missing.first() {
        let text = format!("{} names are not in the module, first {first}", report.missing.len());
        return Err(Failure::new(Exit::Partial, text));
    }
    if let Some((first, why)) = report.broken.first() {
        let text = format!("{} symlinks have no referent, first {first}{}", report.broken.len(), referent(*why));
        return Err(Failure::new(Exit::Partial, text));
    }
    if let Some(first) = report.plan.blocked.first() {
        let count = report.plan.blocked.len();
        let text = format!("{count} paths have no place, first {first}: something else stands there");
        return Err(Failure::new(Exit::Partial, text).hint("--delete makes room"));
    }
    if report.skipped_deletions > 0 {
        let text = format!("{} deletions were skipped because of --max-delete", report.skipped_deletions);
        return Err(Failure::new(Exit::Guarded, text));
    }
    check_age(wish, report)?;
    if wish.error_on_no_transfer && !report.plan.has_changes() {
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
    let (mut origin, mut peers, mut web_seeds) = (0, 0, 0);
    for row in &report.sources {
        match &row.name {
            SourceName::Peer(peer) if trackers.contains(peer) => origin += row.received,
            SourceName::Peer(_) => peers += row.received,
            SourceName::Web(_) => web_seeds += row.received,
        }
    }
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
        "from": { "origin": origin, "peers": peers, "web_seeds": web_seeds, "classic": 0 },
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
    let (key, kind) = match &row.name {
        SourceName::Peer(_) => ("peer_id", "peer"),
        SourceName::Web(_) => ("url", "web_seed"),
    };
    json!({
        key: row.name.to_string(),
        "kind": kind,
        "received": row.received,
        "requests": row.requests,
        "bad": row.bad,
        "banned": row.banned,
    })
}
