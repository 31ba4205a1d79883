//! `verify`: what stands in a destination, against the tree that should.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
use crate::reference::Reference;
use crate::service::{Service, random};
use crate::store::files::Dir;
use crate::store::locate::locate;
use crate::store::proof;
use crate::store::state::{Registration, Role};
use crate::sync::marks::placed_bundle;
use crate::sync::plan::Rules;
use crate::sync::resolve::{InPlace, Resolved, Wanted, resolve};
use crate::sync::source::Finder;
use crate::sync::{ModuleRef, SyncError, pages};

/// What to verify.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// The directory, absolute.
    #[serde(with = "crate::manifest::text::path")]
    pub dest: PathBuf,
    /// Against this rather than what was placed.
    pub reference: Option<String>,
    /// Fetch what is damaged or missing.
    pub repair: bool,
    /// What of the reference was wanted there.
    pub selection: Selection,
    /// Files may be missing there.
    pub in_part: bool,
    /// Check so many percent of the files, chosen at random.
    pub sample: Option<f64>,
}

impl Verify {
    /// Whether a pass that something else did left the right files behind.
    pub fn after(pass: &Pass) -> Self {
        let rules = &pass.rules;
        let in_part = rules.existing
            || rules.ignore_existing
            || rules.update
            || rules.max_size.is_some()
            || rules.min_size.is_some()
            || rules.safe_links;
        Self { dest: pass.dest.clone(), selection: pass.selection.clone(), in_part, ..Self::default() }
    }
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
    let standing = standing(service, &wish).await?;
    let mut checked = check(service, &wish, &standing).await?;
    let found = checked.damaged.len() + checked.missing.len();
    let mut repaired = 0;
    note_damage(service, &wish, &standing, &checked).await?;
    if wish.repair && found > 0 {
        repair(service, &wish, &standing, out).await?;
        let after = check(service, &wish, &standing).await?;
        repaired = found.saturating_sub(after.damaged.len() + after.missing.len());
        checked = after;
        note_damage(service, &wish, &standing, &checked).await?;
    }
    if wish.in_part {
        checked.missing.clear();
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

/// By our own records, unless a reference says otherwise.
async fn standing(service: &Service, wish: &Verify) -> Result<Standing, Failure> {
    let node = &service.node;
    if let Some(text) = &wish.reference {
        return named(service, wish, reference(text)?).await;
    }
    for (publisher, name) in node.state.registered()? {
        let marks = node.state.module(&publisher, &name)?;
        let Some(registration) = marks.registration()?.filter(|found| found.directory == wish.dest) else { continue };
        let bundle = placed_bundle(&marks)?;
        let bundle = bundle.ok_or_else(|| Failure::new(Exit::Files, "nothing is placed there yet"))?;
        let (base, only) = reference(&registration.reference)?.transfer_root();
        let select = selector(base, only, &registration.selection)?;
        let reference = registration.reference.clone();
        return Ok(Standing { bundle, select, reference, registration: Some(registration) });
    }
    let (bundle, fetched) = (node.fetched_bundle(&wish.dest)?, node.state.fetched(&wish.dest)?);
    match (bundle, fetched) {
        (Some(bundle), Some(fetched)) => {
            let (base, only) = reference(&fetched.reference)?.transfer_root();
            let select = selector(base, only, &Selection::default())?;
            Ok(Standing { bundle, select, reference: fetched.reference, registration: None })
        }
        _ => Err(Failure::usage(format!("{}: nothing is known of this directory", wish.dest.display()))),
    }
}

/// What a reference says should stand there: the head and its pages, as others have them, or as they are known here.
async fn named(service: &Service, wish: &Verify, wanted: Reference) -> Result<Standing, Failure> {
    let node = &service.node;
    let (base, only) = wanted.transfer_root();
    let select = selector(base, only, &wish.selection)?;
    let mut finder = Finder::start(Arc::clone(node), wanted.module.clone(), service.hints_with(&wanted.peers));
    let bundle = match resolve(node, &wanted.module, wanted.at, &InPlace::default(), &mut finder).await {
        Ok(Resolved { bundle, mut sources, .. }) => {
            pages::bring(node, &wanted.module, (*bundle.root(), None), &select, &mut sources, &mut finder).await?;
            bundle
        }
        Err(error) => {
            let seen = node.seen(&wanted.module)?.filter(|_| wanted.at == Wanted::Newest);
            let known = seen.filter(|bundle| pages::are_here(node, bundle.root(), &select));
            known.ok_or(error)?
        }
    };
    Ok(Standing { bundle, select, reference: wanted.to_string(), registration: None })
}

async fn check(service: &Service, wish: &Verify, standing: &Standing) -> Result<Checked, Failure> {
    let (node, root) = (Arc::clone(&service.node), Dir::open(&wish.dest).map_err(SyncError::from)?);
    let (bundle, select) = (standing.bundle.clone(), standing.select.clone());
    let (sample, salt) = (wish.sample, random()?);
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
        if let Some(percent) = sample {
            files.retain(|(path, ..)| is_drawn(&salt, path, percent));
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

/// True for about so many percent of all paths, others with each salt.
fn is_drawn(salt: &[u8; 32], path: &TreePath, percent: f64) -> bool {
    let hash = *blake3::keyed_hash(salt, path.as_bytes()).as_bytes();
    let drawn = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    f64::from(drawn) < f64::from(u32::MAX) * percent / 100.0
}

/// None: there is no such file; otherwise whether its bytes are right.
fn look(root: &Dir, path: &TreePath, id: &ContentId, size: u64) -> Option<bool> {
    let (dir, name) = locate(root, path).ok()?;
    let file = dir.open_file(&name).ok()?;
    Some(proof::hash_file(&file).is_ok_and(|hashed| hashed.id == *id && hashed.size == size))
}

/// Damage is written down, claimed no longer, and forgotten by the index, so that a pass sees it.
async fn note_damage(service: &Service, wish: &Verify, standing: &Standing, checked: &Checked) -> Result<(), Failure> {
    let (node, dest) = (&service.node, &wish.dest);
    for path in &checked.damaged {
        let (Some(dir), Some(name)) = (path.parent(), path.name()) else { continue };
        let tree = service.tree_key(standing.registration.as_ref(), dest);
        let mut row = node.index.directory(&tree, &dir).map_err(SyncError::from)?;
        row.remove(&name);
        node.index.put_directories(&tree, [(&dir, &row)]).map_err(SyncError::from)?;
    }
    if standing.registration.is_some() {
        let module = ModuleRef::of(&standing.bundle);
        let mut paths: Vec<Vec<u8>> =
            checked.damaged.iter().chain(&checked.missing).map(|path| path.as_bytes().to_vec()).collect();
        if wish.sample.is_some() {
            // A sample says nothing of the rest.
            paths.extend(node.marks(&module)?.damaged()?);
            paths.sort();
            paths.dedup();
        }
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
    exact.at = Wanted::Root(*standing.bundle.root());
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
    Box::pin(super::pass::pass(service, pass, out)).await.map(drop)
}
