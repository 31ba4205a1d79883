//! Wildcards in the path of a source: the daemon's shell expands them in rsync, here the tree does.

use super::pass::selector;
use super::{inspect, pass};
use crate::error::Failure;
use crate::manifest::filter::Wild;
use crate::manifest::path::{Name, TreePath};
use crate::manifest::selection::Selection;
use crate::reference::Reference;
use crate::service::Service;

/// Most sources that one pattern stands for.
const MAX_SOURCES: usize = 10_000;

/// The references that each of these stands for, in their order: itself where it has no wildcards, or nothing is like it.
///
/// # Errors
/// A text is no reference, a pattern stands for too many, nobody has the module.
pub async fn expand(service: &Service, texts: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        let parsed = pass::reference(&text)?;
        if !parsed.path.components().any(|name| has_wildcards(&name)) {
            all.push(text);
            continue;
        }
        let found = matching(service, &parsed).await?;
        let is_none = found.is_empty();
        all.extend(found.into_iter().map(|path| Reference { path, ..parsed.clone() }.to_string()));
        all.extend(is_none.then_some(text));
        if all.len() > MAX_SOURCES {
            return Err(Failure::usage(format!("{parsed} stands for too many sources")));
        }
    }
    Ok(all)
}

/// The paths of the tree that are like the one of a reference, sorted.
async fn matching(service: &Service, wanted: &Reference) -> Result<Vec<TreePath>, Failure> {
    let (mut found, mut is_literal) = (vec![TreePath::root()], true);
    for name in wanted.path.components() {
        is_literal &= !has_wildcards(&name);
        let mut deeper = Vec::new();
        for dir in &found {
            // What stands before the first wildcard need not be looked for.
            let names = if is_literal { vec![name.clone()] } else { like(service, wanted, dir, &name).await? };
            deeper.extend(names.iter().filter_map(|name| dir.join(name).ok()));
        }
        found = deeper;
        if found.len() > MAX_SOURCES {
            break;
        }
    }
    Ok(found)
}

/// The names in a directory that are like this one; none where there is no such directory.
async fn like(service: &Service, wanted: &Reference, dir: &TreePath, name: &Name) -> Result<Vec<Name>, Failure> {
    let children = Selection { recursive: false, dirs: true, ..Selection::default() };
    let place = Reference { path: dir.clone(), slash: true, ..wanted.clone() };
    let opened = inspect::open(service, &place, selector(dir.clone(), None, &children)?).await?;
    let pattern = Wild::new(name.as_bytes());
    // As in a shell, a dot in front is not met by chance.
    let is_like = |found: &Name| {
        let hidden = found.as_bytes().starts_with(b".") && !name.as_bytes().starts_with(b".");
        !hidden && pattern.matches(found.as_bytes())
    };
    let items = inspect::items(service, &place, &opened)?;
    if items.iter().any(|item| item.entry.name == *name && item.path.parent().as_ref() == Some(dir)) {
        // A link that was written down means just this name.
        return Ok(vec![name.clone()]);
    }
    let items = items.into_iter();
    Ok(items
        .filter(|item| item.path.parent().as_ref() == Some(dir))
        .map(|item| item.entry.name)
        .filter(is_like)
        .collect())
}

fn has_wildcards(name: &Name) -> bool {
    name.as_bytes().iter().any(|byte| b"*?[".contains(byte))
}
