//! `ls` and `find`: what a module holds, from its pages alone.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::figures::Figures;
use super::format::{self, Numbers};
use super::inspect::{copy_of, items, open};
use super::levels::Levels;
use super::pass::{reference, selector};
use super::{Event, Output};
use crate::error::Failure;
use crate::manifest::entry::{Entry, Node as Kind};
use crate::manifest::filter::{Rule, Subject, Traits};
use crate::manifest::path::{TreePath, escape};
use crate::manifest::regex::PathRegex;
use crate::manifest::selection::Selection;
use crate::manifest::text::ByteText;
use crate::manifest::walk::root_node;
use crate::service::Service;
use crate::sync::SyncError;
use crate::sync::plan::rsyncs_order;

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ls {
    /// As text.
    pub reference: String,
    /// rsync's list line rather than names.
    pub long: bool,
    /// ... with the targets of symlinks.
    pub links: bool,
    /// Everything below.
    pub recursive: bool,
    /// What of it.
    pub selection: Selection,
    /// How numbers are written.
    pub numbers: Numbers,
    /// The directory itself comes first, as in rsync's listings.
    pub itself: bool,
    /// What is told around it: `-v`, `--stats`.
    pub levels: Levels,
    /// `-q`: not even the list.
    pub quiet: bool,
    /// How the list is told of, where it is.
    pub announced: String,
}

/// What to look for; everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Find {
    /// As text.
    pub reference: String,
    /// rsync's patterns, one of which must match.
    pub patterns: Vec<ByteText>,
    /// Regular expressions, one of which must match.
    pub regexes: Vec<String>,
    /// Fewest bytes of a file.
    pub min_size: Option<u64>,
    /// Most bytes of a file.
    pub max_size: Option<u64>,
    /// Modified after this, seconds since the epoch.
    pub newer: Option<i64>,
    /// rsync's list line rather than names.
    pub long: bool,
}

/// Lists names, or rsync's list lines.
///
/// # Errors
/// Nobody has the module, the path is unknown, or the tree is refused.
pub async fn ls(service: &Service, wish: Ls, out: &Output) -> Result<Value, Failure> {
    let reference = reference(&wish.reference)?;
    let (base, only) = reference.transfer_root();
    // One level unless told otherwise; a named directory is listed itself.
    let wanted = Selection { recursive: wish.recursive, dirs: true, ..wish.selection.clone() };
    let select = selector(base.clone(), only.clone(), &wanted)?;
    let (start, before) = (Instant::now(), service.node.swarm.bytes().await);
    let opened = open(service, &reference, select).await?;
    let pages = (opened.count.bytes, start.elapsed().as_secs_f64());
    let mut items = items(service, &reference, &opened)?;
    items.sort_by(|a, b| rsyncs_order((&a.path, a.entry.is_dir()), (&b.path, b.entry.is_dir())));
    if items.is_empty() && !reference.path.is_root() && !opened.holds(service, &base, only.as_ref()) {
        return Err(SyncError::UnknownPath { path: reference.path.to_string() }.into());
    }
    if let Some(from) = root_node(&*service.node.index, opened.bundle.root()).ok().and_then(|root| root.unofficial) {
        out.note(copy_of(&from)).await;
    }
    if wish.quiet {
        return Ok(Value::Null);
    }
    if wish.levels.flist > 0 {
        out.line(wish.announced.clone()).await;
    }
    let top = if wish.itself && only.is_none() { Some(opened.top(service, &reference)?) } else { None };
    if let Some(top) = &top {
        out.line(list_line(".", top, wish.links, wish.numbers)).await;
    }
    for item in &items {
        let Some(path) = item.path.relative_to(&base) else { continue };
        let long = wish.long.then_some(wish.links);
        say(&path, &item.entry, long, wish.numbers, out).await;
    }
    let (received, sent) = service.node.swarm.bytes().await;
    let traffic = (received - before.0, sent - before.1);
    let entries = items.iter().map(|item| &item.entry).chain(&top);
    let figures = Figures { pages, traffic, seconds: start.elapsed().as_secs_f64(), ..listed(entries) };
    if wish.levels.stats > 1 {
        out.line("").await;
        for line in figures.lines(wish.numbers) {
            out.line(line).await;
        }
    }
    if wish.levels.stats > 0 {
        let [moved, size] = figures.sums(wish.numbers);
        for line in [String::new(), moved, size] {
            out.line(line).await;
        }
    }
    Ok(Value::Null)
}

/// The figures of what is listed.
fn listed<'a>(entries: impl Iterator<Item = &'a Entry>) -> Figures {
    let mut figures = Figures::default();
    for entry in entries {
        let (at, size) = match &entry.node {
            Kind::File { size, .. } => (0, *size),
            Kind::Dir(_) => (1, 0),
            Kind::Symlink { target } => (2, target.len() as u64),
        };
        figures.all[at] += 1;
        figures.total = figures.total.saturating_add(size);
    }
    figures
}

/// Lists what matches; directories that cannot hold a match are not opened.
///
/// # Errors
/// As [`ls`], and expressions that are none.
pub async fn find(service: &Service, wish: Find, out: &Output) -> Result<Value, Failure> {
    let reference = reference(&wish.reference)?;
    let (base, only) = reference.transfer_root();
    let wanted = Selection { regexes: wish.regexes.clone(), ..Selection::default() };
    let select = selector(base.clone(), only, &wanted)?;
    let opened = open(service, &reference, select).await?;
    let criteria = Criteria::new(&wish)?;
    let mut found = 0u64;
    for item in items(service, &reference, &opened)? {
        let Some(path) = item.path.relative_to(&base) else { continue };
        if criteria.hold(&path, &item.entry) {
            found += 1;
            say(&path, &item.entry, wish.long.then_some(true), Numbers::Commas, out).await;
        }
    }
    if found == 0 {
        out.note("nothing matches").await;
    }
    Ok(Value::Null)
}

struct Criteria<'a> {
    wish: &'a Find,
    rules: Vec<Rule>,
    regexes: Vec<PathRegex>,
}

impl<'a> Criteria<'a> {
    fn new(wish: &'a Find) -> Result<Self, Failure> {
        let rules = wish.patterns.iter().map(|pattern| Rule::new(&pattern.0, Traits::default(), None)).collect();
        let regexes: Result<Vec<_>, _> = wish.regexes.iter().map(|text| PathRegex::new(text)).collect();
        let regexes = regexes.map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self { wish, rules, regexes })
    }

    fn hold(&self, path: &TreePath, entry: &Entry) -> bool {
        let subject = Subject { path: path.as_bytes(), below: 0, is_dir: entry.is_dir() };
        let size = match &entry.node {
            Kind::File { size, .. } => Some(*size),
            _ => None,
        };
        let named = self.rules.is_empty() || self.rules.iter().any(|rule| rule.matches(subject));
        let expressed = self.regexes.is_empty() || self.regexes.iter().any(|regex| regex.matches(path.as_bytes()));
        let sized = |limit: Option<u64>, fits: fn(u64, u64) -> bool| {
            limit.is_none_or(|limit| size.is_some_and(|size| fits(size, limit)))
        };
        let newer = self.wish.newer.is_none_or(|newer| entry.mtime.div_euclid(SECOND) > newer);
        named
            && expressed
            && sized(self.wish.min_size, |size, min| size >= min)
            && sized(self.wish.max_size, |size, max| size <= max)
            && newer
    }
}

/// `long`: rsync's list line, and whether it has the targets of symlinks.
async fn say(path: &TreePath, entry: &Entry, long: Option<bool>, numbers: Numbers, out: &Output) {
    let slash = if entry.is_dir() { "/" } else { "" };
    let line = match long {
        Some(links) => list_line(&path.to_string(), entry, links, numbers),
        None => format!("{path}{slash}"),
    };
    out.line(line).await;
    out.say(Event::Row(row(path, entry))).await;
}

/// rsync's `--list-only` line, in local time.
fn list_line(path: &str, entry: &Entry, links: bool, numbers: Numbers) -> String {
    let target = match &entry.node {
        Kind::Symlink { target } if links => Some(escape(target)),
        _ => None,
    };
    let (kind, size, mode) = match &entry.node {
        Kind::File { size, .. } => (format::Kind::File, *size, entry.mode),
        Kind::Dir(_) => (format::Kind::Dir, format::DIR_SIZE, entry.mode),
        Kind::Symlink { target } => (format::Kind::Symlink, target.len() as u64, 0o777),
    };
    let listed = format::Listed { kind, mode, size, mtime: entry.mtime, path, target: target.as_deref() };
    listed.line(numbers, &jiff::tz::TimeZone::system())
}

fn row(path: &TreePath, entry: &Entry) -> Value {
    let mut row = json!({ "mode": format!("{:04o}", entry.mode), "mtime": entry.mtime as f64 / 1e9 });
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => row["path"] = text.into(),
        Err(_) => row["path_b64"] = base64(path.as_bytes()).into(),
    }
    match &entry.node {
        Kind::File { size, id, .. } => {
            row["type"] = "file".into();
            row["size"] = (*size).into();
            row["id"] = id.to_string().into();
        }
        Kind::Dir(link) => {
            row["type"] = "dir".into();
            row["size"] = link.bytes.into();
        }
        Kind::Symlink { target } => {
            row["type"] = "symlink".into();
            row["target"] = String::from_utf8_lossy(target).into();
        }
    }
    row
}

/// Base64 (RFC 4648, with padding), for names that are not UTF-8.
fn base64(bytes: &[u8]) -> String {
    use cid::multibase::Base;
    Base::Base64Pad.encode(bytes)
}
