//! Looking after what a node holds: `forget`, `withdraw`, `status`, `peers`, `id`.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::machine::Event as MachineEvent;
use tracker_less::record::Generation;

use super::pass::reference;
use super::publish::unsigned;
use super::{Event, Output};
use crate::error::Failure;
use crate::manifest::path::escape;
use crate::service::Service;
use crate::store::state::{Registration, Role};
use crate::sync::ModuleRef;

/// What to forget: a reference, or a directory (absolute).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forget {
    /// As text.
    pub what: String,
    /// The same as a path.
    #[serde(with = "crate::manifest::text::path")]
    pub path: PathBuf,
}

/// How much to say of what the node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Look into published directories too.
    pub verbose: bool,
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
    // For a while: whoever comes soon hears that this mirror is none any more.
    let _watch = service.node.swarm.watch(module.id).await;
    service.node.swarm.tell(MachineEvent::Release { module: module.id }).await;
    Ok(json!({ "reference": module.to_string() }))
}

/// Takes back the word that this node holds a module, and serves it no more, until the next `publish` or `mirror` of it. The
/// registration and the files stay.
///
/// # Errors
/// Nothing of that name is registered.
pub async fn withdraw(service: &Service, wish: &Forget) -> Result<Value, Failure> {
    let module = find(service, wish)?;
    let marks = service.node.marks(&module)?;
    if let Some(registration) = marks.registration()? {
        marks.register(&Registration { withdrawn: true, ..registration })?;
    }
    service.withdraw(&module).await?;
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
pub async fn status(service: &Service, wish: &Status, out: &Output) -> Result<Value, Failure> {
    let node = &service.node;
    let mut modules = Vec::new();
    for (publisher, name) in node.state.registered()? {
        if let Some(registration) = node.state.module(&publisher, &name)?.registration()? {
            modules.push(module_status(service, wish, &registration, out).await?);
        }
    }
    Ok(json!({
        "peer_id": node.swarm.peer_id().to_string(),
        "addresses": service.addresses().await,
        "modules": modules,
    }))
}

async fn module_status(
    service: &Service,
    wish: &Status,
    registration: &Registration,
    out: &Output,
) -> Result<Value, Failure> {
    let node = &service.node;
    let module = reference(&registration.reference)?.module;
    let marks = node.marks(&module)?;
    let placed = marks.placed()?;
    let holding = node.shelf.holding(&module.id);
    let damaged: Vec<String> =
        holding.as_ref().map(|held| held.damaged().iter().map(ToString::to_string).collect()).unwrap_or_default();
    let stage = holding.as_ref().and_then(|held| held.ground.stage.clone());
    let kept = stage.map_or((0, 0), |stage| stage.kept_total());
    let newest = node.shelf.newest(&module.id);
    let held = placed.as_ref().map(|placed| Generation { epoch: placed.epoch, seq: placed.seq });
    let behind = newest > held;
    let forked = node.fork(&module)?.is_some();
    let is_publisher = registration.role == Role::Publisher;
    let changed =
        if wish.verbose && is_publisher { Some(unsigned(service, &module, registration).await?) } else { None };
    let role = if is_publisher { "publisher" } else { "mirror" };
    let marker = match (behind, forked) {
        (_, true) => "  forked",
        _ if !registration.directory.is_dir() => "  missing",
        _ if registration.withdrawn => "  withdrawn",
        (true, _) => "  behind",
        _ => "",
    };
    let bad = if damaged.is_empty() { String::new() } else { format!("  {} damaged", damaged.len()) };
    let shown = held.map_or("-".to_owned(), |held| held.to_string());
    let path = escape(registration.directory.as_os_str().as_bytes());
    out.line(format!("{module}  {role}  {path}  {shown}{marker}{bad}")).await;
    if kept.0 > 0 {
        out.line(format!("  {} superseded files kept, {} bytes", kept.0, kept.1)).await;
    }
    for path in &damaged {
        out.line(format!("  damaged {path}")).await;
    }
    if let Some(changed) = changed.filter(|changed| *changed > 0) {
        out.line(format!("  {changed} entries changed since they were published")).await;
    }
    Ok(json!({
        "reference": module.to_string(), "role": role, "path": path, "held": holding.is_some(),
        "epoch": held.map(|held| held.epoch), "seq": held.map(|held| held.seq),
        "root": placed.map(|placed| placed.root), "newest_seq": newest.map(|newest| newest.seq),
        "behind": behind, "forked": forked, "withdrawn": registration.withdrawn, "damaged": damaged,
        "kept": { "files": kept.0, "bytes": kept.1 }, "changed": changed,
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
