//! Looking after what a node holds: `verify`, `forget`, `withdraw`, `status`, `peers`, `id`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::machine::Event as MachineEvent;
use tracker_less::record::CheckedBundle;

use super::pass::{Pass, reference, selector};
use super::{Event, Output};
use crate::error::{Exit, Failure};
use crate::manifest::ContentId;
use crate::manifest::entry::Node as Kind;
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;
use crate::manifest::selection::Selection;
use crate::manifest::walk::Walk;
use crate::service::Service;
use crate::store::files::Dir;
use crate::store::locate::locate;
use crate::store::proof;
use crate::store::state::{Registration, Role};
use crate::sync::plan::Rules;
use crate::sync::{ModuleRef, SyncError};

/// What to verify.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// The directory, absolute.
    pub dest: PathBuf,
    /// Against this rather than what was placed.
    pub reference: Option<String>,
    /// Fetch what is damaged or missing.
    pub repair: bool,
}

/// What to forget: a reference, or a directory (absolute).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forget {
    /// As text.
    pub what: String,
    /// The same as a path.
    pub path: PathBuf,
}

/// What stands in a destination, by our own records.
struct Standing {
    bundle: CheckedBundle,
    select: Selector,
    reference: String,
    registration: Option<Registration>,
}

/// What checking found.
#[derive(Debug, Default)]
struct Checked {
    files: u64,
    damaged: Vec<TreePath>,
    missing: Vec<TreePath>,
}

/// Hashes every file of a destination and compares it with the tree.
///
/// # Errors
/// 44 if anything stays damaged or missing.
pub async fn verify(service: &Service, wish: Verify, out: &Output) -> Result<Value, Failure> {
    let standing = standing(service, &wish)?;
    let mut checked = check(service, &wish, &standing).await?;
    let found = checked.damaged.len() + checked.missing.len();
    let mut repaired = 0;
    note_damage(service, &wish.dest, &standing, &checked).await?;
    if wish.repair && found > 0 {
        repair(service, &wish, &standing, out).await?;
        let after = check(service, &wish, &standing).await?;
        repaired = found.saturating_sub(after.damaged.len() + after.missing.len());
        checked = after;
        note_damage(service, &wish.dest, &standing, &checked).await?;
    }
    for path in &checked.damaged {
        out.line(format!("damaged {path}")).await;
    }
    for path in &checked.missing {
        out.line(format!("missing {path}")).await;
    }
    let texts = |paths: &[TreePath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (damaged, missing) = (texts(&checked.damaged), texts(&checked.missing));
    let value = json!({ "checked": checked.files, "damaged": damaged, "missing": missing, "repaired": repaired });
    if damaged.is_empty() && missing.is_empty() {
        return Ok(value);
    }
    out.say(Event::Row(value)).await;
    let (bad, gone) = (damaged.len(), missing.len());
    let failure = Failure::new(Exit::Damaged, format!("{bad} files damaged, {gone} missing"));
    Err(failure.hint("--repair fetches them again"))
}

fn standing(service: &Service, wish: &Verify) -> Result<Standing, Failure> {
    let node = &service.node;
    for (publisher, name) in node.state.registered()? {
        let marks = node.state.module(&publisher, &name)?;
        let Some(registration) = marks.registration()?.filter(|found| found.directory == wish.dest) else { continue };
        let bundle = service.placed_bundle(&marks)?;
        let bundle = bundle.ok_or_else(|| Failure::new(Exit::Files, "nothing is placed there yet"))?;
        let (base, only) = reference(&registration.reference)?.transfer_root();
        let select = selector(base, only, &registration.selection)?;
        let reference = registration.reference.clone();
        return Ok(Standing { bundle, select, reference, registration: Some(registration) });
    }
    let bundle = node.fetched_bundle(&wish.dest)?;
    let text = node.state.fetched(&wish.dest)?.map(|fetched| fetched.reference).or_else(|| wish.reference.clone());
    match (bundle, text) {
        (Some(bundle), Some(text)) => {
            let (base, only) = reference(&text)?.transfer_root();
            let select = selector(base, only, &Selection::default())?;
            Ok(Standing { bundle, select, reference: text, registration: None })
        }
        _ => Err(Failure::usage(format!("{}: nothing is known of this directory", wish.dest.display()))),
    }
}

async fn check(service: &Service, wish: &Verify, standing: &Standing) -> Result<Checked, Failure> {
    let (node, root) = (Arc::clone(&service.node), Dir::open(&wish.dest).map_err(SyncError::from)?);
    let (bundle, select) = (standing.bundle.clone(), standing.select.clone());
    let work = move || -> Result<Checked, SyncError> {
        let module = ModuleRef::of(&bundle);
        let refuse = |error| SyncError::tree(&module, error);
        let mut files: Vec<(TreePath, ContentId, u64)> = Vec::new();
        for item in Walk::new(&*node.index, bundle.root(), &select).map_err(refuse)? {
            let item = item.map_err(refuse)?;
            if let (Kind::File { id, size, .. }, Some(path)) = (&item.entry.node, item.path.relative_to(select.base()))
            {
                files.push((path, *id, *size));
            }
        }
        let count = files.len() as u64;
        let verdicts: Vec<(TreePath, Option<bool>)> =
            files.into_par_iter().map(|(path, id, size)| (path.clone(), look(&root, &path, &id, size))).collect();
        let mut checked = Checked { files: count, ..Checked::default() };
        for (path, verdict) in verdicts {
            match verdict {
                Some(true) => {}
                Some(false) => checked.damaged.push(path),
                None => checked.missing.push(path),
            }
        }
        Ok(checked)
    };
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::new(Exit::Memory, error.to_string()))??)
}

/// None: there is no such file; otherwise whether its bytes are right.
fn look(root: &Dir, path: &TreePath, id: &ContentId, size: u64) -> Option<bool> {
    let (dir, name) = locate(root, path).ok()?;
    let file = dir.open_file(&name).ok()?;
    Some(proof::hash_file(&file).is_ok_and(|hashed| hashed.id == *id && hashed.size == size))
}

/// Damage is written down, claimed no longer, and forgotten by the index, so that a pass sees it.
async fn note_damage(service: &Service, dest: &Path, standing: &Standing, checked: &Checked) -> Result<(), Failure> {
    let node = &service.node;
    for path in &checked.damaged {
        let (Some(dir), Some(name)) = (path.parent(), path.name()) else { continue };
        let tree = service.tree_key(standing.registration.as_ref(), dest);
        let mut row = node.index.directory(&tree, &dir).map_err(SyncError::from)?;
        row.remove(&name);
        node.index.put_directories(&tree, [(&dir, &row)]).map_err(SyncError::from)?;
    }
    if standing.registration.is_some() {
        let module = ModuleRef::of(&standing.bundle);
        let paths: Vec<Vec<u8>> =
            checked.damaged.iter().chain(&checked.missing).map(|path| path.as_bytes().to_vec()).collect();
        node.marks(&module)?.set_damaged(&paths)?;
        if service.serves() {
            service.hold(&module).await?;
        }
    }
    Ok(())
}

/// A pass that brings exactly the placed generation again.
async fn repair(service: &Service, wish: &Verify, standing: &Standing, out: &Output) -> Result<(), Failure> {
    let registered = standing.registration.as_ref();
    if registered.is_some_and(|found| found.role == Role::Publisher) {
        return Err(Failure::usage("a publisher's own directory is repaired from a backup, not from mirrors"));
    }
    let mut exact = reference(&standing.reference)?;
    exact.at = crate::sync::resolve::Wanted::Root(*standing.bundle.root());
    let pass = Pass {
        mirror: false,
        reference: exact.to_string(),
        dest: wish.dest.clone(),
        dest_slash: true,
        rules: Rules::archive(),
        selection: registered.map(|registration| registration.selection.clone()).unwrap_or_default(),
        adopt: true,
        force_delete: true,
        ..Pass::default()
    };
    super::pass::pass(service, pass, out).await.map(drop)
}

/// Ends a registration; the files stay.
///
/// # Errors
/// Nothing of that name is registered.
pub async fn forget(service: &Service, wish: &Forget) -> Result<Value, Failure> {
    let module = find(service, wish)?;
    let marks = service.node.marks(&module)?;
    marks.unregister()?;
    service.node.shelf.remove(&module.id);
    service.node.swarm.tell(MachineEvent::Release { module: module.id }).await;
    Ok(json!({ "reference": module.to_string() }))
}

/// Takes back the word that this node holds a module; the registration stays.
///
/// # Errors
/// Nothing of that name is registered.
pub async fn withdraw(service: &Service, wish: &Forget) -> Result<Value, Failure> {
    let module = find(service, wish)?;
    service.node.swarm.tell(MachineEvent::Release { module: module.id }).await;
    Ok(json!({ "reference": module.to_string() }))
}

fn find(service: &Service, wish: &Forget) -> Result<ModuleRef, Failure> {
    let node = &service.node;
    let wanted = reference(&wish.what).ok().map(|reference| reference.module);
    for (publisher, name) in node.state.registered()? {
        let Some(registration) = node.state.module(&publisher, &name)?.registration()? else { continue };
        let module = reference(&registration.reference)?.module;
        if wanted.as_ref() == Some(&module) || registration.directory == wish.path {
            return Ok(module);
        }
    }
    Err(Failure::usage(format!("{} is not registered", wish.what)))
}

/// Peer id, then addresses.
///
/// # Errors
/// None of its own.
pub async fn id(service: &Service, out: &Output) -> Result<Value, Failure> {
    let peer = service.lasting_peer_id()?;
    let addresses: Vec<String> = if service.serves() { service.addresses().await } else { Vec::new() };
    out.line(peer.to_string()).await;
    for address in &addresses {
        out.line(address).await;
    }
    Ok(json!({ "peer_id": peer.to_string(), "addresses": addresses }))
}

/// What this node holds, and how it stands.
///
/// # Errors
/// The state fails.
pub async fn status(service: &Service, out: &Output) -> Result<Value, Failure> {
    let node = &service.node;
    let mut modules = Vec::new();
    for (publisher, name) in node.state.registered()? {
        let marks = node.state.module(&publisher, &name)?;
        let Some(registration) = marks.registration()? else { continue };
        let module = reference(&registration.reference)?.module;
        let placed = marks.placed()?;
        let holding = node.shelf.holding(&module.id);
        let damaged: Vec<String> =
            holding.as_ref().map(|held| held.damaged().iter().map(ToString::to_string).collect()).unwrap_or_default();
        let newest = node.shelf.newest(&module.id).map(|generation| generation.seq);
        let seq = placed.as_ref().map(|placed| placed.seq);
        let behind = newest > seq;
        let role = if registration.role == Role::Publisher { "publisher" } else { "mirror" };
        let marker = if behind { "  behind" } else { "" };
        let bad = if damaged.is_empty() { String::new() } else { format!("  {} damaged", damaged.len()) };
        let shown = seq.map_or("-".to_owned(), |seq| format!("@{seq}"));
        out.line(format!("{module}  {role}  {}  {shown}{marker}{bad}", registration.directory.display())).await;
        for path in &damaged {
            out.line(format!("  damaged {path}")).await;
        }
        modules.push(json!({
            "reference": module.to_string(), "role": role, "path": registration.directory, "seq": seq,
            "root": placed.map(|placed| placed.root), "newest_seq": newest, "behind": behind,
            "forked": marks.fork()?.is_some(), "damaged": damaged,
        }));
    }
    Ok(json!({
        "peer_id": node.swarm.peer_id().to_string(),
        "addresses": service.addresses().await,
        "modules": modules,
    }))
}

/// Whom this node is connected to.
///
/// # Errors
/// None of its own.
pub async fn peers(service: &Service, out: &Output) -> Result<Value, Failure> {
    for row in service.node.swarm.peers().await {
        let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        out.line(format!("{}  {}", row.peer, addresses.join(" "))).await;
        out.say(Event::Row(json!({ "peer_id": row.peer.to_string(), "addresses": addresses, "rtt_ms": row.rtt_ms })))
            .await;
    }
    Ok(Value::Null)
}
