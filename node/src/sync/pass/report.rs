//! What a pass did.

use tracker_less::record::{CheckedBundle, Generation};

use crate::manifest::follow::Broken;
use crate::manifest::path::TreePath;
use crate::sync::SourceRow;
use crate::sync::place::Placed;
use crate::sync::plan::{self, Plan};

/// What a pass did.
#[derive(Debug)]
pub struct Report {
    /// The head that was brought.
    pub bundle: CheckedBundle,
    /// The highest generation seen; above the bundle's if nobody had that one.
    pub newest: Generation,
    /// What was (or would be) changed.
    pub plan: Plan,
    /// What placing did.
    pub placed: Placed,
    /// Names that were asked for and are not in the module.
    pub missing: Vec<TreePath>,
    /// Symlinks that were to be followed and stand for nothing.
    pub broken: Vec<(TreePath, Broken)>,
    /// Directories that were named, of which nothing was asked for: neither `-r` nor `-d` was given.
    pub unlisted: Vec<String>,
    /// Deletions that `--max-delete` left undone.
    pub skipped_deletions: u64,
    /// Per source.
    pub sources: Vec<SourceRow>,
    /// Pages fetched.
    pub pages: u64,
    /// Their bytes.
    pub page_bytes: u64,
    /// Seconds until they were there.
    pub page_seconds: f64,
    /// The destination is new.
    pub is_new: bool,
    /// What bringing the bytes will cost, of a dry run.
    pub estimate: Option<plan::Estimate>,
    /// Seconds.
    pub seconds: f64,
}

impl Report {
    /// Nothing was done.
    pub(super) fn of(bundle: CheckedBundle, newest: Generation, is_new: bool) -> Self {
        Self {
            bundle,
            newest,
            plan: Plan::default(),
            placed: Placed::default(),
            missing: Vec::new(),
            broken: Vec::new(),
            unlisted: Vec::new(),
            skipped_deletions: 0,
            sources: Vec::new(),
            pages: 0,
            page_bytes: 0,
            page_seconds: 0.0,
            is_new,
            estimate: None,
            seconds: 0.0,
        }
    }

    /// True if everything that was asked for was in the module.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.broken.is_empty()
    }
}
