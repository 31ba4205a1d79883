//! What of a tree is wanted: a path in it, and include and exclude patterns with rsync's meaning.

use thiserror::Error;

use super::glob;
use super::path::{Name, TreePath};

/// Longest pattern, bytes.
pub const MAX_PATTERN: usize = 4096;
/// Most patterns.
pub const MAX_RULES: usize = 10_000;
/// Most `*` in a pattern: matching takes time that grows with them.
const MAX_STARS: usize = 16;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Empty, over 4096 bytes, or with more than 16 wildcards.
    #[error("pattern {pattern} is empty, too long, or has too many wildcards")]
    Unusable {
        /// The pattern, cut and escaped.
        pattern: String,
    },
    /// Too many patterns.
    #[error("more than {MAX_RULES} patterns")]
    TooMany,
}

/// What a selector says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is wanted.
    Take,
    /// Only on the way to what is wanted.
    Pass,
    /// Neither it nor what is below it.
    Skip,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    include: bool,
    pattern: Vec<u8>,
    dirs_only: bool,
    anchored: bool,
    /// Matched against the whole path below the transfer root, or against the name alone.
    whole: bool,
}

/// A selection: first match wins, what no rule matches is wanted, an excluded directory takes along what is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    base: TreePath,
    only: Option<Name>,
    rules: Vec<Rule>,
}

impl Selector {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Everything below `base`, or of that only the entry `only` and what is below it.
    pub fn below(base: TreePath, only: Option<Name>) -> Self {
        Self { base, only, rules: Vec::new() }
    }

    /// The directory that is the transfer root.
    pub fn base(&self) -> &TreePath {
        &self.base
    }

    /// The one entry of the base that is wanted, if not all.
    pub fn only(&self) -> Option<&Name> {
        self.only.as_ref()
    }

    /// True if patterns leave something out.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Adds a pattern after the former ones.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn rule(&mut self, include: bool, pattern: &[u8]) -> Result<(), PatternError> {
        let stars = pattern.iter().filter(|byte| **byte == b'*').count();
        if pattern.is_empty() || pattern.len() > MAX_PATTERN || stars > MAX_STARS {
            let pattern = super::path::escape(&pattern[..pattern.len().min(80)]);
            return Err(PatternError::Unusable { pattern });
        }
        if self.rules.len() >= MAX_RULES {
            return Err(PatternError::TooMany);
        }
        let dirs_only = pattern.len() > 1 && pattern.ends_with(b"/");
        let body = if dirs_only { &pattern[..pattern.len() - 1] } else { pattern };
        let anchored = body.starts_with(b"/");
        let body = body.strip_prefix(b"/").unwrap_or(body);
        let whole = anchored || body.contains(&b'/') || body.windows(2).any(|pair| pair == b"**");
        self.rules.push(Rule { include, pattern: body.to_vec(), dirs_only, anchored, whole });
        Ok(())
    }

    /// The patterns as texts, `+ PATTERN` or `- PATTERN`, in order.
    pub fn to_texts(&self) -> Vec<String> {
        let text = |rule: &Rule| {
            let (sign, slash) = (if rule.include { '+' } else { '-' }, if rule.anchored { "/" } else { "" });
            let tail = if rule.dirs_only { "/" } else { "" };
            format!("{sign} {slash}{}{tail}", String::from_utf8_lossy(&rule.pattern))
        };
        self.rules.iter().map(text).collect()
    }

    /// What becomes of an entry of the module, given that all directories above it were not skipped.
    pub fn choose(&self, path: &TreePath, is_dir: bool) -> Choice {
        let Some(below) = path.relative_to(&self.base) else {
            return if is_dir && self.base.contains_self(path) { Choice::Pass } else { Choice::Skip };
        };
        if below.is_root() {
            return Choice::Pass;
        }
        if self.only.is_some() && below.components().next() != self.only {
            return Choice::Skip;
        }
        if self.wants(&below, is_dir) { Choice::Take } else { Choice::Skip }
    }

    /// What the patterns say of a path below the transfer root.
    pub fn wants(&self, below: &TreePath, is_dir: bool) -> bool {
        self.rules.iter().find(|rule| rule.matches(below, is_dir)).is_none_or(|rule| rule.include)
    }
}

impl TreePath {
    /// True if `above` is this path or on the way to it.
    fn contains_self(&self, above: &Self) -> bool {
        self.relative_to(above).is_some()
    }
}

impl Rule {
    fn matches(&self, below: &TreePath, is_dir: bool) -> bool {
        if self.dirs_only && !is_dir {
            return false;
        }
        let text = below.as_bytes();
        let name = text.rsplit(|byte| *byte == b'/').next().unwrap_or(text);
        if !self.whole {
            return glob::matches(&self.pattern, name);
        }
        // `dir/***` is `dir` and all in it.
        if let Some(dir) = self.pattern.strip_suffix(b"/***")
            && self.at_any(dir, text)
        {
            return is_dir || self.dirs_only;
        }
        self.at_any(&self.pattern, text)
    }

    /// Anchored patterns match from the transfer root, others at the end of the path, from any slash on.
    fn at_any(&self, pattern: &[u8], text: &[u8]) -> bool {
        if glob::matches(pattern, text) {
            return true;
        }
        let mut slashes = text.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
        !self.anchored && slashes.any(|at| glob::matches(pattern, &text[at..]))
    }
}
