//! `--seed`: a run that stays for a while, and serves what it has brought.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracker_less::machine::Event;
use tracker_less::record::CheckedBundle;

use crate::error::{Exit, Failure};
use crate::service::Service;
use crate::store::files::Dir;
use crate::sync::SyncError;
use crate::sync::holding::{Ground, Holding};
use crate::sync::pass::Request;

/// Holds what a fetch has left in a directory, and takes it back after `span`. What was changed there meanwhile, or was left out
/// by the pass, is not served: everything is verified while it is read.
///
/// # Errors
/// The directory or the index fails.
pub async fn seed(service: &Service, request: &Request, bundle: &CheckedBundle, span: Duration) -> Result<(), Failure> {
    let (node, module) = (Arc::clone(&service.node), request.module.id);
    let outboards = service.outboards(&module)?;
    let (select, path, bundle) = (request.select.clone(), request.dest.clone(), bundle.clone());
    let work = move || -> Result<Holding, SyncError> {
        let root = Dir::open(Path::new(&path))?;
        let ground = Ground { path, root, outboards, stage: None, http: Vec::new() };
        Holding::load(&node.index, bundle, &select, ground, &[])
    };
    let held =
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(Exit::Memory, error.to_string()))?;
    let holding = Arc::new(held?);
    let said = holding.event();
    service.node.swarm.widen().await;
    service.node.shelf.put(holding);
    service.node.swarm.tell(said).await;
    tracing::info!(seconds = span.as_secs(), "serving what was brought");
    tokio::time::sleep(span).await;
    service.node.shelf.remove(&module);
    service.node.swarm.tell(Event::Release { module }).await;
    Ok(())
}
