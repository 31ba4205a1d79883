//! `diff` and `log`: what differs between two trees, and which generations can still be had.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::format::local_time;
use super::inspect::{Target, open};
use super::pass::{reference, selector};
use super::{Event, Output};
use crate::error::{Exit, Failure};
use crate::manifest::diff::{Difference, diff as differences};
use crate::manifest::entry::{Entry, Node as Kind};
use crate::manifest::selection::Selection;
use crate::service::Service;
use crate::sync::resolve::{InPlace, resolve};
use crate::sync::source::Finder;
use crate::sync::{SyncError, publish};

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// One of the two trees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Tree {
    /// A module, as text.
    Module(String),
    /// A directory, absolute.
    Directory(#[serde(with = "crate::manifest::text::path")] PathBuf),
}

/// What to compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// What was.
    pub old: Tree,
    /// What is.
    pub new: Tree,
}

/// A line per difference, as `rsync -c -i` would bring the old tree to the new one.
///
/// # Errors
/// Nobody has a module, a directory cannot be read, or a tree is refused.
pub async fn diff(service: &Service, wish: Compare, out: &Output) -> Result<Value, Failure> {
    let (old, new) = (root(service, &wish.old).await?, root(service, &wish.new).await?);
    let found = differences(&*service.node.index, &old, &new)
        .map_err(|error| Failure::new(Exit::Files, format!("a tree cannot be read: {error}")))?;
    for difference in &found {
        let (letters, slash) = letters(difference);
        out.line(format!("{letters} {}{slash}", difference.path)).await;
        let kind = |entry: &Option<Entry>| entry.as_ref().map(id);
        let row = json!({ "path": difference.path.to_string(), "change": letters.trim_end(),
            "old": kind(&difference.old), "new": kind(&difference.new) });
        out.say(Event::Row(row)).await;
    }
    Ok(Value::Null)
}

/// The root of a tree whose pages are all in the index.
async fn root(service: &Service, tree: &Tree) -> Result<Cid, Failure> {
    match tree {
        Tree::Module(text) => {
            let reference = reference(text)?;
            let (base, only) = reference.transfer_root();
            if only.is_some() || !base.is_root() {
                return Err(Failure::new(Exit::Unsupported, "diff of a part of a module is not built yet"));
            }
            let opened = open(service, &reference, selector(base, None, &Selection::default())?).await?;
            Ok(*opened.bundle.root())
        }
        Tree::Directory(path) => {
            let (node, path) = (Arc::clone(&service.node), path.clone());
            let survey = tokio::task::spawn_blocking(move || publish::survey(&node.index, &path)).await;
            Ok(survey.map_err(|error| Failure::new(Exit::Memory, error.to_string()))??)
        }
    }
}

/// What stands for an entry in a row: its content, its target, or that it is a directory.
fn id(entry: &Entry) -> String {
    match &entry.node {
        Kind::File { id, .. } => id.to_string(),
        Kind::Symlink { target } => String::from_utf8_lossy(target).into_owned(),
        Kind::Dir(_) => "dir".to_owned(),
    }
}

/// rsync's eleven letters, and the slash of a directory.
fn letters(difference: &Difference) -> (String, &'static str) {
    use super::format::{Changes, Kind as Shown, Update, item};
    let Some(new) = &difference.new else {
        let is_dir = difference.old.as_ref().is_some_and(Entry::is_dir);
        return ("*deleting  ".to_owned(), if is_dir { "/" } else { "" });
    };
    let old =
        difference.old.as_ref().filter(|old| std::mem::discriminant(&old.node) == std::mem::discriminant(&new.node));
    let changes = old.map(|old| {
        let size = |entry: &Entry| match &entry.node {
            Kind::File { size, .. } => *size,
            _ => 0,
        };
        let content = match (&old.node, &new.node) {
            (Kind::File { id: before, .. }, Kind::File { id, .. }) => before != id,
            (Kind::Symlink { target: before }, Kind::Symlink { target }) => before != target,
            _ => false,
        };
        let (time, perms) = (old.mtime != new.mtime, old.mode != new.mode);
        Changes { content, size: size(old) != size(new), time, now: false, perms }
    });
    let moved = changes.is_none_or(|changes| changes.content);
    let (update, kind) = match &new.node {
        Kind::Dir(_) => (if moved { Update::Create } else { Update::Attributes }, Shown::Dir),
        Kind::Symlink { .. } => (if moved { Update::Create } else { Update::Attributes }, Shown::Symlink),
        Kind::File { .. } => (if moved { Update::Receive } else { Update::Attributes }, Shown::File),
    };
    (item(update, kind, changes), if new.is_dir() { "/" } else { "" })
}

/// The generations that somebody within reach holds, newest first.
///
/// # Errors
/// Nobody answered, or nobody knows the module.
pub async fn log(service: &Service, wish: &Target, out: &Output) -> Result<Value, Failure> {
    let reference = reference(&wish.reference)?;
    let hints = service.hints_with(&reference.peers);
    let mut finder = Finder::start(Arc::clone(&service.node), reference.module.clone(), hints);
    let found = resolve(&service.node, &reference.module, reference.at, &InPlace::default(), &mut finder).await?;
    let mut held: BTreeMap<_, (_, u64, u64)> = BTreeMap::new();
    for offer in found.sources.iter().flat_map(|source| &source.offers) {
        let row = held.entry(offer.bundle.generation()).or_insert_with(|| (offer.bundle.clone(), 0, 0));
        row.1 += 1;
        row.2 += u64::from(offer.whole);
    }
    for (generation, (bundle, holders, whole)) in held.iter().rev() {
        let head = bundle.head();
        let created = i64::try_from(head.created).unwrap_or(i64::MAX).saturating_mul(SECOND);
        let created = local_time(created, &jiff::tz::TimeZone::system());
        let (entries, bytes, root) = (head.entries, head.bytes, bundle.root());
        out.line(format!(
            "{generation}  {created}  {entries} entries  {bytes} bytes  {holders} holders ({whole} whole)  {root}"
        ))
        .await;
        out.say(Event::Row(json!({
            "epoch": generation.epoch, "seq": generation.seq, "root": root.to_string(), "created": head.created,
            "entries": entries, "bytes": bytes, "holders": holders, "whole": whole,
        })))
        .await;
    }
    if held.is_empty() {
        let module = reference.module.to_string();
        return Err(SyncError::UnknownPath { path: module }.into());
    }
    Ok(Value::Null)
}
