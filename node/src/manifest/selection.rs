//! What of a module is wanted, as plain values: parsed from a command line, kept in a registration, sent to a node.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::filter::{Filter, FilterError};
use super::follow::Follow;
use super::path::{Name, TreePath, escape};
use super::regex::{PathRegex, RegexError};
use super::select::{Depth, Selector};
use super::text::ByteText;

/// Most names of `--files-from`.
const MAX_NAMES: usize = 10_000_000;

/// Rules, expressions, names and depth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Filter rules, files merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<ByteText>,
    /// Regular expressions, one of which a path must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regexes: Vec<String>,
    /// Only these names below the transfer root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<ByteText>>,
    /// `-r`: what is below directories, too.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub recursive: bool,
    /// `-d`: directories, but not what is below them.
    #[serde(default, skip_serializing_if = "is_no")]
    pub dirs: bool,
    /// `-R`: whole paths.
    #[serde(default, skip_serializing_if = "is_no")]
    pub relative: bool,
    /// `-L` and `-k`: symlinks that are taken for what they point at.
    #[serde(default, skip_serializing_if = "is_never")]
    pub follow: Follow,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_never(value: &Follow) -> bool {
    *value == Follow::Never
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_no(value: &bool) -> bool {
    !*value
}

impl Default for Selection {
    fn default() -> Self {
        let (rules, regexes, names) = (Vec::new(), Vec::new(), None);
        Self { rules, regexes, names, recursive: true, dirs: false, relative: false, follow: Follow::Never }
    }
}

/// Why a selection is refused (1).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectionError {
    /// A rule.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// An expression.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// A name of `--files-from`.
    #[error("no path below the transfer root: {name}")]
    Name {
        /// Escaped.
        name: String,
    },
    /// Too many names.
    #[error("more than {MAX_NAMES} names")]
    TooManyNames,
}

impl Selection {
    /// True if rules or expressions may leave something out.
    pub fn leaves_out(&self) -> bool {
        !self.rules.is_empty() || !self.regexes.is_empty()
    }

    /// The selector for a place in the tree: everything below `base`, or of that only the entry `only`.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn selector(&self, base: TreePath, only: Option<Name>) -> Result<Selector, SelectionError> {
        let place = only.as_ref().map_or_else(Vec::new, |name| name.as_bytes().to_vec());
        let depth = self.depth(only.is_none());
        let select = match &self.names {
            Some(names) => self.named(names, base, only)?,
            None if self.relative => Selector::places(TreePath::root(), [(joined(&base, &place), depth)], true),
            None => Selector::places(base, [(place, depth)], false),
        };
        let regexes: Result<Vec<_>, _> = self.regexes.iter().map(|text| PathRegex::new(text)).collect();
        Ok(select.with_filter(Filter::from_texts(&self.rules)?).with_regexes(regexes?).with_follow(self.follow))
    }

    /// How deep a named place goes; `listed` if its content was asked for, by a slash at its end.
    fn depth(&self, listed: bool) -> Depth {
        match (self.recursive, self.dirs) {
            (true, _) => Depth::All,
            (false, true) if listed => Depth::OneLevel,
            (false, true) => Depth::Itself,
            (false, false) => Depth::File,
        }
    }

    fn named(&self, names: &[ByteText], base: TreePath, only: Option<Name>) -> Result<Selector, SelectionError> {
        if names.len() > MAX_NAMES {
            return Err(SelectionError::TooManyNames);
        }
        // Names count from the directory that the reference names, with or without a slash.
        let base = match only {
            Some(name) => base.join(&name).unwrap_or(base),
            None => base,
        };
        // Directories are taken by name (rsync(1), `--files-from` implies `--dirs`).
        let by_name = Self { dirs: true, ..Self::default() };
        let depths = Self { recursive: self.recursive, ..by_name };
        let places: Result<Vec<_>, SelectionError> = names
            .iter()
            .map(|name| {
                let listed = name.0.ends_with(b"/") || name.0 == b".";
                Ok((plain(&name.0)?, depths.depth(listed)))
            })
            .collect();
        Ok(Selector::places(base, places?, true))
    }
}

fn joined(base: &TreePath, name: &[u8]) -> Vec<u8> {
    if base.is_root() || name.is_empty() {
        return [base.as_bytes(), name].concat();
    }
    [base.as_bytes(), b"/", name].concat()
}

/// A name of a list without `.`, and without slashes that mean nothing.
fn plain(name: &[u8]) -> Result<Vec<u8>, SelectionError> {
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    let path = parts.join(&b'/');
    match TreePath::new(&path) {
        Ok(path) => Ok(path.as_bytes().to_vec()),
        Err(_) => Err(SelectionError::Name { name: escape(name) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::select::Choice;

    fn choices(selection: &Selection, base: &str, only: Option<&str>, paths: &[&str]) -> Vec<Choice> {
        let path = |text: &str| TreePath::new(text.trim_end_matches('/').as_bytes()).expect("a path");
        let only = only.map(|name| Name::new(name).expect("a name"));
        let select = selection.selector(path(base), only).expect("a selection");
        let top = select.filter().top();
        paths.iter().map(|text| select.choose(&top, &path(text), text.ends_with('/'))).collect()
    }

    #[test]
    fn places_and_depths() {
        use Choice::{Pass, Skip, Take};
        let all = Selection::default();
        assert_eq!(choices(&all, "a", None, &["a/", "a/b", "b", "a/c/"]), [Pass, Take, Skip, Take]);
        assert_eq!(choices(&all, "a", Some("b"), &["a/", "a/b/", "a/c", "a/b/x"]), [Pass, Take, Skip, Take]);
        let flat = Selection { recursive: false, dirs: true, ..Selection::default() };
        assert_eq!(choices(&flat, "", None, &["a/", "b"]), [Take, Take]);
        assert_eq!(choices(&flat, "", None, &["a/b"]), [Skip]);
        let file = Selection { recursive: false, ..Selection::default() };
        assert_eq!(choices(&file, "", Some("a"), &["a/"]), [Skip]);
        assert_eq!(choices(&file, "", Some("a"), &["a"]), [Take]);
        let whole = Selection { relative: true, ..Selection::default() };
        assert_eq!(choices(&whole, "a", Some("b"), &["a/", "a/b/", "a/c", "a/b/x"]), [Take, Take, Skip, Take]);
    }

    #[test]
    fn names_of_a_list() {
        use Choice::{Skip, Take};
        let name = |text: &str| ByteText::from(text.as_bytes());
        let names = Some(vec![name("/a/./b"), name("d/")]);
        let list = Selection { names, recursive: false, ..Selection::default() };
        assert_eq!(
            choices(&list, "", None, &["a/", "a/b", "a/c", "d/", "d/x", "d/y/z"]),
            [Take, Take, Skip, Take, Take, Skip]
        );
        let out = Selection { names: Some(vec![name("a/../b")]), ..Selection::default() };
        assert!(matches!(out.selector(TreePath::root(), None), Err(SelectionError::Name { .. })));
    }
}
