//! Looking without changing anything: `cat`, `resolve`, `motd`.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::record::CheckedBundle;

use super::pass::{reference, selector};
use super::{Event, Output};
use crate::attach::offer::{MAX_LINE, Offer};
use crate::error::{Exit, Failure};
use crate::manifest::entry::{Entry, Node as Kind};
use crate::manifest::path::{Name, TreePath, escape};
use crate::manifest::select::{Depth, Selector};
use crate::manifest::selection::Selection;
use crate::manifest::walk::{Walk, WalkItem, root_node};
use crate::reference::Reference;
use crate::service::Service;
use crate::store::files::{Attributes, Dir};
use crate::store::stage::Stage;
use crate::store::state::Role;
use crate::sync::fetch::{Download, Progress};
use crate::sync::pages::PageCount;
use crate::sync::plan::Want;
use crate::sync::resolve::{InPlace, Resolved, resolve as find_head};
use crate::sync::shelf::Arriving;
use crate::sync::source::{Finder, Source};
use crate::sync::{ModuleRef, SyncError, pages, selected};

/// How long `resolve` waits for the top of the tree.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a file said at once.
const CHUNK: usize = 256 << 10;

/// A module, or something in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// As text.
    pub reference: String,
}

/// Which modules the lines are to lead to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Motd {
    /// As text; none: all that are published here.
    pub reference: Option<String>,
    /// Mirrors may nominate themselves by `--early-input`: `murmir nominate --stdin` is the daemon's `early exec`.
    pub nominate: bool,
}

/// A tree whose selected pages are in the index.
pub(super) struct Opened {
    pub(super) bundle: CheckedBundle,
    select: Selector,
    sources: Vec<Source>,
    finder: Finder,
    /// What the pages cost.
    pub(super) count: PageCount,
}

impl Opened {
    /// The directory that is the transfer root, as an entry.
    pub(super) fn top(&self, service: &Service, reference: &Reference) -> Result<Entry, Failure> {
        let top = selected::top(&service.node.index, &reference.module, &self.select, self.bundle.root())?;
        top.ok_or_else(|| SyncError::UnknownPath { path: self.select.base().to_string() }.into())
    }
}

impl Opened {
    /// True if the place of the reference is in the tree, whatever rules say of it.
    pub(super) fn holds(&self, service: &Service, base: &TreePath, only: Option<&Name>) -> bool {
        let (index, root) = (&*service.node.index, self.bundle.root());
        let Some(name) = only else {
            let (module, below) = (ModuleRef::of(&self.bundle), Selector::below(base.clone(), None));
            return selected::top(index, &module, &below, root).is_ok_and(|top| top.is_some());
        };
        let select = Selector::places(base.clone(), [(name.as_bytes().to_vec(), Depth::Itself)], false);
        Walk::new(index, root, &select).is_ok_and(|mut walk| walk.any(|item| item.is_ok()))
    }
}

/// Finds the newest generation and brings the selected pages.
pub(super) async fn open(service: &Service, reference: &Reference, select: Selector) -> Result<Opened, Failure> {
    let node = &service.node;
    let hints = service.hints_with(&reference.peers);
    let mut finder = Finder::start(Arc::clone(node), reference.module.clone(), hints);
    let found = find_head(node, &reference.module, reference.at, &InPlace::default(), &mut finder).await?;
    let Resolved { bundle, mut sources, .. } = found;
    let root = *bundle.root();
    let count = pages::bring(node, &reference.module, (root, None), &select, &mut sources, &mut finder).await?;
    Ok(Opened { bundle, select, sources, finder, count })
}

/// The selected entries.
pub(super) fn items(service: &Service, reference: &Reference, opened: &Opened) -> Result<Vec<WalkItem>, Failure> {
    let refuse = |error| Failure::from(SyncError::tree(&reference.module, error));
    let walk = Walk::new(&*service.node.index, opened.bundle.root(), &opened.select).map_err(refuse)?;
    walk.map(|item| item.map_err(refuse)).collect()
}

/// True if the reference names a regular file.
///
/// # Errors
/// Nobody has the module, or the tree is refused.
pub async fn is_file(service: &Service, reference: &Reference) -> Result<bool, Failure> {
    let (base, only) = reference.transfer_root();
    let Some(name) = only else { return Ok(false) };
    let select = Selector::places(base, [(name.as_bytes().to_vec(), Depth::Itself)], false);
    let opened = open(service, reference, select).await?;
    let items = items(service, reference, &opened)?;
    Ok(matches!(items.as_slice(), [WalkItem { entry: Entry { node: Kind::File { .. }, .. }, .. }]))
}

/// Writes one file to stdout.
///
/// # Errors
/// It is no file, or nobody has it.
pub async fn cat(service: &Service, wish: &Target, out: &Output) -> Result<Value, Failure> {
    let reference = reference(&wish.reference)?;
    let (base, only) = reference.transfer_root();
    let opened = open(service, &reference, selector(base, only, &Selection::default())?).await?;
    let items = items(service, &reference, &opened)?;
    let [WalkItem { entry: Entry { node: Kind::File { size, id, .. }, .. }, number, .. }] = items.as_slice() else {
        return Err(SyncError::UnknownPath { path: format!("{} (as one file)", reference.path) }.into());
    };
    let want = Want { id: *id, size: *size, number: *number, attributes: Attributes::default() };
    let (own, home) = service.scratch()?;
    let result = copy_out(&reference, opened, want, &own, out).await;
    if let Err(error) = std::fs::remove_dir_all(&home) {
        tracing::warn!(%error, "scratch directory not removed");
    }
    result.map(|()| Value::Null)
}

async fn copy_out(reference: &Reference, opened: Opened, want: Want, own: &Dir, out: &Output) -> Result<(), Failure> {
    let Opened { bundle, sources, mut finder, .. } = opened;
    let stage = Arc::new(Stage::open(own).map_err(SyncError::from)?);
    let (id, wants, root) = (want.id, vec![want], *bundle.root());
    let arriving = Arc::new(Arriving::new(bundle, Arc::clone(&stage), &wants));
    let progress = Arc::new(Progress::default());
    let download = Download::new(reference.module.id, root, Arc::clone(&stage), wants, arriving, progress, None)?;
    download.run(sources, &mut finder).await?;
    let mut file = stage.open_file(&id).map_err(SyncError::from)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = file.read(&mut buffer).map_err(|error| Failure::new(Exit::Files, error.to_string()))?;
        if read == 0 {
            return Ok(());
        }
        out.say(Event::Raw(buffer.get(..read).unwrap_or_default().to_vec())).await;
    }
}

/// What the tree is an unofficial copy of, where it says so and its top can be had soon.
pub(super) async fn origin_of(service: &Service, reference: &Reference, found: &Resolved) -> Option<String> {
    let root = *found.bundle.root();
    let bring = pages::bring_root(&service.node, &reference.module, root, &found.sources);
    // A head is as good without.
    let _ = tokio::time::timeout(PATIENCE, bring).await;
    root_node(&*service.node.index, &root).ok()?.unofficial
}

/// How a copy is told from what its origin publishes itself.
pub(super) fn copy_of(from: &str) -> String {
    format!("unofficial: somebody's copy of {}", escape(from.as_bytes()))
}

/// The lines that lead others to a module, or to all that are published here: MOTD, DNS, web.
///
/// # Errors
/// The reference is none, nothing is published, a line would be too long for other clients.
pub async fn motd(service: &Service, wish: &Motd, out: &Output) -> Result<Value, Failure> {
    let mut references = match &wish.reference {
        Some(text) => vec![reference(text)?],
        None => published(service)?,
    };
    let addresses = service.public_addresses().await;
    for reference in references.iter_mut().filter(|reference| reference.peers.is_empty()) {
        reference.peers.clone_from(&addresses);
    }
    let lines = |prefix: &str| references.iter().map(|one| format!("{prefix}{one}")).collect::<Vec<_>>();
    let (mut motd, dns) = (lines("murmir: "), lines("murmir="));
    if wish.nominate {
        // Only a daemon has an `early exec`.
        motd.iter_mut().for_each(|line| *line = Offer::nominating(line));
    }
    if motd.iter().any(|line| line.len() > MAX_LINE) {
        return Err(Failure::usage("the line would be over 900 bytes: name fewer peers"));
    }
    let row = |one: &Reference| json!({ "reference": one.to_string(), "path": web_path(one, references.len()) });
    let web = json!({ "modules": references.iter().map(row).collect::<Vec<_>>() });
    let (motd, dns) = (motd.join("\n"), dns.join("\n"));
    for (head, text) in [("motd", &motd), ("dns", &dns), ("well-known", &web.to_string())] {
        out.line(format!("# {head}\n{text}")).await;
    }
    Ok(json!({ "motd": motd, "dns": dns, "well_known": web }))
}

/// Where a module is taken to stand on a web server: one alone at its root, several under their names.
fn web_path(reference: &Reference, count: usize) -> String {
    if count == 1 { "/".to_owned() } else { format!("/{}/", reference.module.name) }
}

fn published(service: &Service) -> Result<Vec<Reference>, Failure> {
    let state = &service.node.state;
    let mut references = Vec::new();
    for (publisher, name) in state.registered()? {
        let registration = state.module(&publisher, &name)?.registration()?;
        if let Some(registration) = registration.filter(|found| found.role == Role::Publisher) {
            references.push(reference(&registration.reference)?);
        }
    }
    if references.is_empty() {
        return Err(
            Failure::usage("nothing is published here").hint("murmir motd REF makes the lines of another's module")
        );
    }
    Ok(references)
}
