//! `publish`: on this node, and at once in the swarm if it serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::record::{CheckedBundle, ModuleName, PublisherId};

use super::Output;
use super::pass::selector;
use crate::error::{Exit, Failure};
use crate::manifest::entry::Entry;
use crate::manifest::path::TreePath;
use crate::manifest::selection::Selection;
use crate::manifest::text::ByteText;
use crate::reference::Reference;
use crate::service::{Service, export_placed};
use crate::store::scan::{Problem, ProblemKind};
use crate::store::state::{Registration, Role};
use crate::sync::keys::{Keys, Terms};
use crate::sync::marks::{placed, placed_bundle};
use crate::sync::proposal::{Changes, Proposal};
use crate::sync::publish::{self, Former, Published, Request, Signer, is_failure};
use crate::sync::source::Finder;
use crate::sync::{ModuleRef, SyncError, unix_now};

/// How long others may take to tell of a newer head.
const ASK_OTHERS: Duration = Duration::from_secs(5);
/// ... where this machine published the generation before itself.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Publish {
    /// The directory, absolute.
    #[serde(with = "crate::manifest::text::path")]
    pub dir: PathBuf,
    /// The module; the directory's name if none.
    pub module: Option<String>,
    /// The key's name, or the publisher's id.
    pub key: String,
    /// Filter rules.
    pub selection: Selection,
    /// Globs of files that switch last.
    pub late: Vec<String>,
    /// Life of a Fresh record, seconds.
    pub fresh: u64,
    /// There is no earlier generation.
    pub first: bool,
    /// Publish under this number.
    pub seq: Option<u64>,
    /// A shrunken tree is meant.
    pub allow_shrink: bool,
    /// Leave out what cannot be read.
    pub ignore_errors: bool,
    /// Exit with 48 if nothing changed.
    pub error_on_no_change: bool,
    /// Sign nothing.
    pub dry_run: bool,
    /// List changes.
    pub itemize: bool,
    /// Ask nobody.
    pub offline: bool,
    /// Web addresses where the tree stands.
    pub http: Vec<String>,
    /// Another's tree, whose address this is: the module is marked as unofficial from now on.
    pub from: Option<String>,
    /// Write a static export there, absolute, and keep it up.
    pub export: Option<ByteText>,
    /// Sign nothing: make a request for `sign`.
    pub request: bool,
    /// The bundle that `sign` made of a request.
    pub signed: Option<Vec<u8>>,
}

/// Publishes, registers, and lets the swarm know.
///
/// # Errors
/// The guards, local failures; 23 or 24 when new entries had to be left out.
pub async fn publish(service: &Service, request: Publish, out: &Output) -> Result<Value, Failure> {
    let name = module_name(&request)?;
    let (publisher, signer, is_new) = signer(service, &request, out).await?;
    let module = ModuleRef::new(publisher, name);
    if let Signer::Signed(bundle) = &signer
        && ModuleRef::of(bundle) != module
    {
        return Err(Failure::usage(format!("--signed is of {}, not of {module}", ModuleRef::of(bundle))));
    }
    let former = former(service, &request, &module, is_new).await?;
    check_signed(&signer, former.bundle.as_ref())?;
    let published = run(service, &request, &module, &signer, &former).await;
    if let (Err(_), Signer::Signed(bundle)) = (&published, &signer) {
        // It is signed, whatever stands here: the next request goes on from it.
        service.node.note_seen(bundle)?;
    }
    let published = published?;
    for problem in &published.problems {
        out.note(format!("left out: {problem}")).await;
    }
    let reference = module.to_string();
    out.line(&reference).await;
    if request.itemize {
        list(&published, out).await;
    }
    if let Some(bundle) = &published.bundle {
        register(service, &request, &module, bundle).await?;
        export_placed(&service.node, &module).await?;
    }
    let mut report = finish(service, &request, &module, &published).await?;
    if matches!(signer, Signer::Elsewhere) && !request.dry_run {
        report["request"] = propose(service, &request, &module, &published, former)?.text().into();
    }
    Ok(report)
}

/// Whose module it is, who signs, and whether the key was made now.
async fn signer(service: &Service, request: &Publish, out: &Output) -> Result<(PublisherId, Signer, bool), Failure> {
    if let Some(bytes) = &request.signed {
        let bundle = CheckedBundle::verify(bytes);
        let bundle = bundle.map_err(|error| Failure::new(Exit::KeyChanged, format!("--signed: {error}")))?;
        return Ok((*bundle.publisher(), Signer::Signed(Box::new(bundle)), false));
    }
    let (keys, is_new) = match request.key.parse::<PublisherId>() {
        Ok(publisher) => match Keys::find(&service.node.state, &publisher)? {
            Some(keys) => (keys, false),
            None => return Ok((publisher, Signer::Elsewhere, false)),
        },
        Err(_) => service.publisher_keys(&request.key)?,
    };
    if is_new {
        out.note(format!("made the publisher key {} ({})", request.key, keys.publisher)).await;
    }
    let publisher = keys.publisher;
    Ok((publisher, if request.request { Signer::Elsewhere } else { Signer::Keys(Box::new(keys)) }, is_new))
}

fn module_name(request: &Publish) -> Result<ModuleName, Failure> {
    let own = request.dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let text = request.module.clone().or(own).unwrap_or_default();
    text.parse().map_err(|error| Failure::usage(format!("{text}: {error}")).hint("--module NAME names it"))
}

/// What the new generation goes on from: by this state, and by whoever can be reached.
async fn former(service: &Service, request: &Publish, module: &ModuleRef, key_is_new: bool) -> Result<Former, Failure> {
    let node = &service.node;
    let has_history = node.state.knows_publisher(&module.publisher.to_string())?;
    if key_is_new {
        return Ok(Former::default());
    }
    let mut newest = node.seen(module)?;
    if !request.offline && !request.first && request.signed.is_none() && service.can_ask() {
        let finder = Finder::start(Arc::clone(node), module.clone(), service.hints());
        let news = finder.news();
        let settled = async {
            while !finder.asked_all() {
                news.notified().await;
            }
        };
        // Whoever does not answer in time cannot be waited for: the mark in the state is what counts.
        let patience = if newest.is_some() { ASK_AGAIN } else { ASK_OTHERS };
        let _ = tokio::time::timeout(patience, settled).await;
        let heard = node.swarm.newest(module.id).await;
        newest = [newest, heard, node.seen(module)?].into_iter().flatten().max_by_key(CheckedBundle::generation);
    }
    if let Some(fork) = node.fork(module)? {
        return Err(SyncError::Forked { module: module.to_string(), at: fork.at() }.into());
    }
    let is_first = request.first || request.seq.is_some() || request.signed.is_some();
    if newest.is_none() && !has_history && !is_first {
        return Err(SyncError::NoHistory { module: module.to_string() }.into());
    }
    let sibling = if newest.is_none() { sibling(service, module)? } else { None };
    Ok(Former { bundle: newest, sibling })
}

/// What was signed elsewhere must be the next word, or the last one once more.
fn check_signed(signer: &Signer, newest: Option<&CheckedBundle>) -> Result<(), Failure> {
    let (Signer::Signed(bundle), Some(newest)) = (signer, newest) else { return Ok(()) };
    if bundle.generation() > newest.generation() || bundle.head_hash() == newest.head_hash() {
        return Ok(());
    }
    let (offered, placed) = (bundle.generation(), newest.generation());
    Err(SyncError::Rollback { offered, placed }.into())
}

/// The publisher's newest charter, by its other modules, once it has rotated its keys.
fn sibling(service: &Service, module: &ModuleRef) -> Result<Option<CheckedBundle>, Failure> {
    let node = &service.node;
    let mut seen = Vec::new();
    for name in node.state.modules_seen(&module.publisher.to_string())? {
        let Ok(name) = name.parse() else { continue };
        seen.extend(node.seen(&ModuleRef::new(module.publisher, name))?);
    }
    let newest = seen.into_iter().max_by_key(|bundle| bundle.generation().epoch);
    Ok(newest.filter(|bundle| bundle.generation().epoch > 0))
}

async fn run(
    service: &Service,
    request: &Publish,
    module: &ModuleRef,
    signer: &Signer,
    former: &Former,
) -> Result<Published, Failure> {
    let marks = service.node.marks(module)?;
    let unofficial = request.from.clone().or(marks.registration()?.and_then(|former| former.from));
    let wish = Request {
        unofficial,
        dir: request.dir.clone(),
        module: module.clone(),
        select: selector(TreePath::root(), None, &request.selection)?,
        late: request.late.clone(),
        terms: terms(service, request, signer)?,
        seq: request.seq,
        allow_shrink: request.allow_shrink,
        ignore_errors: request.ignore_errors,
        dry_run: request.dry_run,
        now: unix_now(),
    };
    let (node, signer, former) = (Arc::clone(&service.node), signer.clone(), former.clone());
    let outboards = service.outboards(&module.id)?;
    let work = move || publish::publish(&node.index, &outboards, &signer, &wish, &former);
    let published = tokio::task::spawn_blocking(work).await;
    Ok(published.map_err(|error| Failure::new(Exit::Memory, error.to_string()))??)
}

/// How many entries of a published directory are not what was signed last.
///
/// # Errors
/// The directory cannot be read, or the index fails.
pub async fn unsigned(service: &Service, module: &ModuleRef, published: &Registration) -> Result<usize, Failure> {
    let request = Publish {
        dir: published.directory.clone(),
        selection: published.selection.clone(),
        late: published.late.clone(),
        allow_shrink: true,
        ignore_errors: true,
        dry_run: true,
        ..Publish::default()
    };
    let bundle = placed_bundle(&service.node.marks(module)?)?;
    let former = Former { bundle, sibling: None };
    let looked_at = run(service, &request, module, &Signer::Elsewhere, &former).await?;
    Ok(looked_at.changes.len())
}

/// What a first charter says. A node that has no publisher key renews Fresh records by its own.
fn terms(service: &Service, request: &Publish, signer: &Signer) -> Result<Terms, Failure> {
    let own = service.lasting_public_key()?;
    let fresh = if matches!(signer, Signer::Keys(_)) { Vec::new() } else { vec![own] };
    Ok(Terms { trackers: vec![service.lasting_peer_id()?], fresh, fresh_for: request.fresh })
}

fn propose(
    service: &Service,
    request: &Publish,
    module: &ModuleRef,
    published: &Published,
    former: Former,
) -> Result<Proposal, Failure> {
    let mut changes = Changes::default();
    for change in &published.changes {
        match (&change.old, &change.new) {
            (None, _) => changes.added += 1,
            (_, None) => changes.deleted += 1,
            _ => changes.changed += 1,
        }
    }
    if former.bundle.is_none() {
        changes.added = published.head.entries;
    }
    Ok(Proposal {
        module: module.clone(),
        head: published.head.clone(),
        terms: terms(service, request, &Signer::Elsewhere)?,
        changes,
        former: former.bundle,
        sibling: former.sibling,
    })
}

async fn list(published: &Published, out: &Output) {
    for change in &published.changes {
        let is_dir = change.new.as_ref().or(change.old.as_ref()).is_some_and(Entry::is_dir);
        let (kind, slash) = if is_dir { ("d", "/") } else { ("f", "") };
        let mark = match (&change.old, &change.new) {
            (None, _) if is_dir => "cd+++++++++".to_owned(),
            (None, _) => ">f+++++++++".to_owned(),
            (_, None) => "*deleting  ".to_owned(),
            (Some(old), Some(new)) if is_dir || old.node == new.node => format!(".{kind}..t......"),
            _ => ">fc........".to_owned(),
        };
        out.line(format!("{mark} {}{slash}", change.path)).await;
    }
}

async fn register(
    service: &Service,
    request: &Publish,
    module: &ModuleRef,
    bundle: &CheckedBundle,
) -> Result<(), Failure> {
    let marks = service.node.marks(module)?;
    // The signed head is durable before it leaves this process.
    service.node.note_seen(bundle)?;
    let http = service.node.urls(&marks, &request.http)?;
    // Once asked for, it is kept up.
    let (export, from) = marks.registration()?.map_or((None, None), |former| (former.export, former.from));
    let (export, from) = (request.export.clone().or(export), request.from.clone().or(from));
    marks.register(&Registration {
        http,
        export,
        from,
        reference: module.to_string(),
        directory: request.dir.clone(),
        role: Role::Publisher,
        selection: request.selection.clone(),
        late: request.late.clone(),
        watch: false,
        key: Some(request.key.clone()),
        withdrawn: false,
        fresh: u32::try_from(request.fresh).ok(),
    })?;
    marks.set_damaged(&[])?;
    marks.set_placed(&placed(bundle), bundle.bytes())?;
    service.node.witness(bundle).await?;
    if service.serves() {
        service.hold(module).await?;
    }
    Ok(())
}

/// The report, and the exit code of what was left out.
async fn finish(
    service: &Service,
    request: &Publish,
    module: &ModuleRef,
    published: &Published,
) -> Result<Value, Failure> {
    let failed: Vec<_> = published.problems.iter().filter(|problem| is_failure(problem)).collect();
    if let Some(first) = failed.first() {
        // Left out for good, rather than gone meanwhile.
        let lasting = |one: &&&Problem| matches!(one.kind, ProblemKind::Unreadable | ProblemKind::Unnamable);
        let code = if failed.iter().any(|one| lasting(&one)) { Exit::Partial } else { Exit::Missing };
        return Err(Failure::new(code, format!("{} entries left out, first {first}", failed.len())));
    }
    if request.error_on_no_change && !published.changed {
        return Err(Failure::new(Exit::Unchanged, "the tree is the one of the newest generation"));
    }
    let mut reference = Reference::of(module);
    reference.peers = service.public_addresses().await;
    Ok(json!({
        "reference": module.to_string(),
        "link": reference.to_string(),
        "seq": published.generation.seq,
        "root": published.root.to_string(),
        "files": published.files,
        "bytes": published.bytes,
    }))
}
