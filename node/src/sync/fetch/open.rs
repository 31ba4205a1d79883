//! What is here already when a download begins, and large contents while they arrive.

use std::collections::HashMap;
use std::sync::Arc;

use super::SMALL;
use crate::manifest::ContentId;
use crate::store::stage::{Partial, Stage};
use crate::sync::SyncError;
use crate::sync::plan::Want;
use crate::sync::shelf::Arriving;

/// A large content of which something was asked for.
pub(super) struct Open {
    pub(super) partial: Arc<Partial>,
    /// Bytes still to come.
    pub(super) left: u64,
}

impl Open {
    pub(super) fn new(partial: Partial) -> Self {
        let left = partial.missing().iter().map(|range| range.end - range.start).sum();
        Self { partial: Arc::new(partial), left }
    }
}

/// What the stage lacks of the wants, and the large contents of which it has a part. What it has can be had from here at once.
pub(super) fn lacking(
    stage: &Stage,
    mut wants: Vec<Want>,
    arriving: &Arriving,
) -> Result<(Vec<Want>, HashMap<ContentId, Open>), SyncError> {
    let (mut staged, mut parts) = (stage.whole()?, HashMap::new());
    for want in wants.iter().filter(|want| want.size > SMALL && stage.has_partial(&want.id)) {
        let open = Open::new(stage.partial(&want.id, want.size)?);
        if open.left == 0 {
            stage.finish(&open.partial)?;
            staged.insert(want.id);
        } else {
            arriving.opened(&open.partial);
            parts.insert(want.id, open);
        }
    }
    staged.iter().for_each(|id| arriving.arrived(id));
    wants.retain(|want| !staged.contains(&want.id));
    Ok((wants, parts))
}
