//! What the running node does with bundles that were signed beside it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::record::CheckedBundle;

use super::Output;
use crate::error::{Exit, Failure};
use crate::service::{Service, export_placed};
use crate::store::state::Role;
use crate::sync::marks::{placed, placed_bundle};
use crate::sync::{ModuleRef, SyncError};

/// Bundles of trees that are published here already, under new keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Take {
    /// As they travel; unchecked.
    pub bundles: Vec<Vec<u8>>,
}

/// Holds what is published here under the new bundles, and tells the swarm.
///
/// # Errors
/// A bundle does not verify, is of another tree than the one published here, or is no newer.
pub async fn take(service: &Service, wish: &Take, out: &Output) -> Result<Value, Failure> {
    let mut rows = Vec::new();
    for bytes in &wish.bundles {
        let bundle = CheckedBundle::verify(bytes).map_err(|error| Failure::new(Exit::KeyChanged, error))?;
        let module = ModuleRef::of(&bundle);
        replace(service, &module, &bundle).await?;
        out.line(format!("{module}  {}", bundle.generation())).await;
        rows.push(json!({ "reference": module.to_string(), "seq": bundle.generation().seq }));
    }
    Ok(rows.into())
}

async fn replace(service: &Service, module: &ModuleRef, bundle: &CheckedBundle) -> Result<(), Failure> {
    let node = &service.node;
    let marks = node.marks(module)?;
    let is_ours = marks.registration()?.is_some_and(|found| found.role == Role::Publisher);
    let former = placed_bundle(&marks)?.filter(|former| is_ours && former.root() == bundle.root());
    let Some(former) = former else {
        return Err(Failure::usage(format!("{module} is not what is published here")));
    };
    if former.generation() >= bundle.generation() {
        let (offered, placed) = (bundle.generation(), former.generation());
        return Err(SyncError::Rollback { offered, placed }.into());
    }
    node.note_seen(bundle)?;
    marks.set_placed(&placed(bundle), bundle.bytes())?;
    node.witness(bundle).await?;
    if service.serves() {
        service.hold(module).await?;
    }
    Ok(export_placed(node, module).await?)
}
