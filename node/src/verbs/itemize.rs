//! The itemized line of a plan's step, for contents compared as `rsync -c` does.

use super::format::{Changes, Kind, Update, deleting, item};
use crate::manifest::path::escape;
use crate::sync::plan::{Change, Local, LocalKind, Rules, Step};

/// The line of one step, without its newline.
pub fn itemize(step: &Step, rules: Rules) -> String {
    let name = if step.path.is_root() { ".".to_owned() } else { step.path.to_string() };
    let old = step.replaces.as_ref();
    let was_link = old.is_some_and(|old| matches!(old.kind, LocalKind::Symlink(_)));
    match &step.change {
        Change::Delete => {
            let slash = if old.is_some_and(|old| old.kind == LocalKind::Dir) { "/" } else { "" };
            deleting(&format!("{name}{slash}"))
        }
        Change::MakeDir => item(Update::Create, Kind::Dir, None, &name, "/"),
        Change::SetDir => item(Update::Attributes, Kind::Dir, changes(step, rules, false, false), &name, "/"),
        Change::Symlink(target) => {
            let changes = if was_link { changes(step, rules, true, false) } else { None };
            item(Update::Create, Kind::Symlink, changes, &name, &format!(" -> {}", escape(target)))
        }
        Change::Link(leader) => {
            let changes = old.map(|_| Changes::default());
            item(Update::HardLink, Kind::File, changes, &name, &format!(" => {leader}"))
        }
        Change::Touch => {
            let kind = if was_link { Kind::Symlink } else { Kind::File };
            item(Update::Attributes, kind, changes(step, rules, false, false), &name, "")
        }
        Change::File { size, id, .. } => {
            let changes = match old {
                Some(Local { kind: LocalKind::File { size: before, id: known, .. }, .. }) => {
                    changes(step, rules, *known != Some(*id), before != size)
                }
                _ => None,
            };
            item(Update::Receive, Kind::File, changes, &name, "")
        }
    }
}

fn changes(step: &Step, rules: Rules, content: bool, size: bool) -> Option<Changes> {
    let old = step.replaces.as_ref()?;
    let is_link = matches!(old.kind, LocalKind::Symlink(_));
    let time = rules.times && old.mtime != step.mtime;
    let perms = rules.perms && !is_link && old.mode != step.mode;
    Some(Changes { content, size, time, perms })
}
