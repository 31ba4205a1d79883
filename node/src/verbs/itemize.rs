//! What rsync would say of a plan's step, for contents compared as `rsync -c` does.

use super::format::{Changes, Kind, Update, item};
use crate::manifest::path::escape;
use crate::sync::plan::{Change, Local, LocalKind, Origin, Rules, Step};

/// The name of a step as rsync writes it: directories end with a slash.
pub fn name(step: &Step) -> String {
    let is_dir = match &step.change {
        Change::Delete => step.replaces.as_ref().is_some_and(|old| old.kind == LocalKind::Dir),
        Change::MakeDir | Change::SetDir => true,
        Change::Keep { .. } => step.replaces.as_ref().is_some_and(|old| old.kind == LocalKind::Dir),
        _ => false,
    };
    let name = if step.path.is_root() { ".".to_owned() } else { step.path.to_string() };
    format!("{name}{}", if is_dir { "/" } else { "" })
}

/// What follows the name: ` -> target`, ` => leader`.
pub fn suffix(step: &Step) -> String {
    match (&step.change, step.replaces.as_ref().map(|old| &old.kind)) {
        (Change::Symlink(target), _) | (Change::Touch | Change::Keep { .. }, Some(LocalKind::Symlink(target))) => {
            format!(" -> {}", escape(target))
        }
        (Change::Link { leader, .. }, _) => format!(" => {leader}"),
        _ => String::new(),
    }
}

/// `>f.st......`: the eleven letters of a step.
pub fn letters(step: &Step, rules: &Rules) -> String {
    let old = step.replaces.as_deref();
    let is_link = old.is_some_and(|old| matches!(old.kind, LocalKind::Symlink(_)));
    let is_dir = old.is_some_and(|old| old.kind == LocalKind::Dir);
    let attributes = changes(step, rules, false, false);
    let (update, kind, changes) = match &step.change {
        Change::Delete => return "*deleting  ".to_owned(),
        Change::MakeDir => (Update::Create, Kind::Dir, attributes.filter(|_| step.beside.is_some())),
        Change::SetDir => (Update::Attributes, Kind::Dir, attributes),
        Change::Symlink(_) => {
            let known = is_link || step.beside.is_some();
            (Update::Create, Kind::Symlink, changes(step, rules, true, false).filter(|_| known))
        }
        Change::Link { size, .. } => match old.or(step.beside.as_deref()).map(|old| &old.kind) {
            Some(LocalKind::File { size: before, .. }) => {
                (Update::HardLink, Kind::File, changes(step, rules, false, before != size))
            }
            _ => (Update::HardLink, Kind::File, None),
        },
        Change::Touch if is_link => (Update::Attributes, Kind::Symlink, attributes),
        Change::Touch => (Update::Attributes, Kind::File, attributes),
        Change::Keep { .. } if is_dir => (Update::Attributes, Kind::Dir, Some(Changes::default())),
        Change::Keep { .. } if is_link => (Update::Attributes, Kind::Symlink, Some(Changes::default())),
        Change::Keep { linked } => {
            (if *linked { Update::HardLink } else { Update::Attributes }, Kind::File, Some(Changes::default()))
        }
        Change::File { origin: Origin::Basis { link: true, .. }, .. } => {
            (Update::HardLink, Kind::File, Some(Changes::default()))
        }
        Change::File { origin: Origin::Basis { .. }, .. } => {
            (Update::Create, Kind::File, changes(step, rules, false, false))
        }
        Change::File { size, id, .. } => match old.or(step.beside.as_deref()) {
            Some(Local { kind: LocalKind::File { size: before, id: known, .. }, .. }) => {
                (Update::Receive, Kind::File, changes(step, rules, *known != Some(*id), before != size))
            }
            _ => (Update::Receive, Kind::File, None),
        },
    };
    item(update, kind, changes)
}

fn changes(step: &Step, rules: &Rules, content: bool, size: bool) -> Option<Changes> {
    let old = step.beside.as_ref().or(step.replaces.as_ref())?;
    let is_link = matches!(old.kind, LocalKind::Symlink(_));
    let moved = matches!(step.change, Change::File { .. } | Change::Symlink(_) | Change::Link { .. });
    // A symlink made anew has a new time, unless it is set.
    let time =
        step.mtime.map_or(matches!(step.change, Change::Symlink(_)), |mtime| rules.times_differ(old.mtime, mtime));
    let time = time && rules.times;
    let perms = !is_link && old.mode != step.mode && (step.replaces.is_some() || rules.perms);
    Some(Changes { content, size, time, now: moved && !rules.times, perms })
}
