//! The web seeds of a pass.

use std::collections::HashMap;
use std::sync::Arc;

use super::SyncError;
use super::pass::{Request, Selected};
use super::plan::Remote;
use crate::manifest::ContentId;
use crate::manifest::entry::{Entry, Node as Kind};
use crate::manifest::path::TreePath;
use crate::web::WebSeed;
use crate::web::client::client;

/// One for each address; all with one client.
///
/// # Errors
/// [`SyncError::Web`].
pub fn open(urls: &[String]) -> Result<Vec<Arc<WebSeed>>, SyncError> {
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let client = client().map_err(|what| SyncError::Web { what })?;
    Ok(urls.iter().map(|url| Arc::new(WebSeed::new(client.clone(), url))).collect())
}

/// Tells them where each content of the selection stands in the module.
pub fn tell_paths(seeds: &[Arc<WebSeed>], request: &Request, tree: &Selected) {
    if seeds.is_empty() {
        return;
    }
    let base = request.select.base();
    let place = |remote: &Remote| {
        let Entry { name, node: Kind::File { id, .. }, .. } = &remote.entry else { return None };
        // The name in the module, whatever it is to be here.
        let dir = remote.path.parent().unwrap_or_default();
        let full = dir.components().try_fold(base.clone(), |path, part| path.join(&part).ok())?;
        Some((*id, full.join(name).ok()?))
    };
    let paths: Arc<HashMap<ContentId, TreePath>> = Arc::new(tree.entries.iter().filter_map(place).collect());
    seeds.iter().for_each(|seed| seed.set_paths(Arc::clone(&paths)));
}
