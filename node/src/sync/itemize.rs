//! rsync's `--itemize-changes` lines, for contents compared as `rsync -c` does.

use super::plan::{Change, Local, LocalKind, Rules, Step};

/// The line of one step, without its newline.
pub fn itemize(step: &Step, rules: Rules) -> String {
    let name = if step.path.is_root() { ".".to_owned() } else { step.path.to_string() };
    let old_dir = step.replaces.as_ref().is_some_and(|old| old.kind == LocalKind::Dir);
    match &step.change {
        Change::Delete => format!("*deleting   {name}{}", if old_dir { "/" } else { "" }),
        Change::MakeDir => format!("cd+++++++++ {name}/"),
        Change::SetDir => format!(".d{} {name}/", attributes(step, rules, '.', '.')),
        Change::Symlink(target) => {
            let same_kind = step.replaces.as_ref().is_some_and(|old| matches!(old.kind, LocalKind::Symlink(_)));
            let flags = if same_kind { attributes(step, rules, 'c', '.') } else { "+++++++++".to_owned() };
            format!("cL{flags} {name} -> {}", crate::manifest::path::escape(target))
        }
        Change::Link(leader) => {
            let flags = if step.replaces.is_none() { "+++++++++" } else { "........." };
            format!("hf{flags} {name} => {leader}")
        }
        Change::Touch => {
            let link = step.replaces.as_ref().is_some_and(|old| matches!(old.kind, LocalKind::Symlink(_)));
            format!(".{}{} {name}", if link { 'L' } else { 'f' }, attributes(step, rules, '.', '.'))
        }
        Change::File { size, id, .. } => match &step.replaces {
            Some(Local { kind: LocalKind::File { size: old, id: before, .. }, .. }) => {
                let content = if *before == Some(*id) { '.' } else { 'c' };
                format!(">f{} {name}", attributes(step, rules, content, if old == size { '.' } else { 's' }))
            }
            _ => format!(">f+++++++++ {name}"),
        },
    }
}

/// The nine columns after update type and kind: checksum, size, time, permissions, and five that a tree does not carry.
fn attributes(step: &Step, rules: Rules, content: char, size: char) -> String {
    let Some(old) = &step.replaces else { return "+++++++++".to_owned() };
    let time = if rules.times && old.mtime != step.mtime { 't' } else { '.' };
    let is_link = matches!(old.kind, LocalKind::Symlink(_));
    let perms = if rules.perms && !is_link && old.mode != step.mode { 'p' } else { '.' };
    format!("{content}{size}{time}{perms}.....")
}
