//! A publisher's static export, kept as new and as fresh as what its node serves.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::outboards;
use crate::sync::marks::placed_bundle;
use crate::sync::{ModuleRef, Node, SyncError, export};

/// Two writers would take each other's files for leftovers.
static WRITER: Mutex<()> = Mutex::const_new(());

/// Writes what stands in the directory of a registered module to its static export, where it has one.
///
/// # Errors
/// The state fails, or the export cannot be written.
pub async fn export_placed(node: &Arc<Node>, module: &ModuleRef) -> Result<(), SyncError> {
    let marks = node.marks(module)?;
    let (Some(registration), Some(bundle)) = (marks.registration()?, placed_bundle(&marks)?) else { return Ok(()) };
    let Some(to) = registration.export.as_ref().map(PathBuf::from) else { return Ok(()) };
    let (node, outboards) = (Arc::clone(node), outboards(&node.state, &module.id)?);
    let _writer = WRITER.lock().await;
    let work = move || export::export(&node.index, &outboards, &bundle, &registration.directory, &to);
    let exported = tokio::task::spawn_blocking(work).await;
    let exported = exported.map_err(|error| SyncError::Worker { reason: error.to_string() })??;
    tracing::info!(%module, files = exported.files, written = exported.written, "static export");
    Ok(())
}
