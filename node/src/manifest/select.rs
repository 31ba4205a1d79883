//! What of a tree is wanted: places in it, filter rules, regular expressions.

use std::collections::BTreeMap;

use super::filter::{Filter, FilterError, Manner, Scope, Side, Subject};
use super::follow::Follow;
use super::path::{Name, TreePath};
use super::regex::PathRegex;

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

/// How much of a named place is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The entry, unless it is a directory.
    File,
    /// The entry alone.
    Itself,
    /// A directory and what is in it (rsync's `-d`).
    OneLevel,
    /// All that is below.
    All,
}

/// A selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    base: TreePath,
    /// Places below the base and how deep; the base itself where it is the root.
    named: BTreeMap<Vec<u8>, Depth>,
    /// Directories on the way to a named place are wanted too (rsync's `-R`).
    implied: bool,
    filter: Filter,
    regexes: Vec<PathRegex>,
    follow: Follow,
}

impl Default for Selector {
    fn default() -> Self {
        Self::below(TreePath::root(), None)
    }
}

impl Selector {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Everything below `base`, or of that only the entry `only` and what is below it.
    pub fn below(base: TreePath, only: Option<Name>) -> Self {
        let place = only.map_or_else(Vec::new, |name| name.as_bytes().to_vec());
        Self::places(base, [(place, Depth::All)], false)
    }

    /// The named places below `base`, each a path (empty: the base itself) and its depth. `implied` directories on the way
    /// are wanted as well.
    pub fn places(base: TreePath, named: impl IntoIterator<Item = (Vec<u8>, Depth)>, implied: bool) -> Self {
        let mut places: BTreeMap<Vec<u8>, Depth> = BTreeMap::new();
        for (path, depth) in named {
            let known = places.entry(path).or_insert(depth);
            *known = depth.max(*known);
        }
        Self { base, named: places, implied, filter: Filter::default(), regexes: Vec::new(), follow: Follow::Never }
    }

    /// With these rules.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// With regular expressions, one of which a path below the transfer root must match.
    #[must_use]
    pub fn with_regexes(self, regexes: Vec<PathRegex>) -> Self {
        Self { regexes, ..self }
    }

    /// With these symlinks taken for what they point at.
    #[must_use]
    pub fn with_follow(self, follow: Follow) -> Self {
        Self { follow, ..self }
    }

    /// Whether a symlink of the module is taken for what it points at. The way to the transfer root may lead over symlinks to
    /// directories, as everywhere.
    pub fn follows(&self, scope: &Scope, path: &TreePath) -> Follow {
        let wanted = |is_dir| self.choose(scope, path, is_dir) != Choice::Skip;
        match self.follow {
            Follow::Never if self.base.relative_to(path).is_some() => Follow::Dirs,
            how if how != Follow::Never && (wanted(true) || wanted(false)) => how,
            _ => Follow::Never,
        }
    }

    /// The directory that is the transfer root.
    pub fn base(&self) -> &TreePath {
        &self.base
    }

    /// The one entry of the base that is wanted, if it is one.
    pub fn only(&self) -> Option<&[u8]> {
        match self.named.first_key_value() {
            Some((path, _)) if self.named.len() == 1 && !path.is_empty() => Some(path),
            _ => None,
        }
    }

    /// The named places, below the base.
    pub fn named(&self) -> impl Iterator<Item = &[u8]> {
        self.named.keys().map(Vec::as_slice)
    }

    /// The rules.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Adds a rule in the manner of `--include` or `--exclude`.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn rule(&mut self, include: bool, pattern: &[u8]) -> Result<(), FilterError> {
        let mut no_files = |_: &[u8]| Err(FilterError::Unsupported { rule: super::path::escape(pattern) });
        self.filter.add(pattern, Manner::patterns(include), &mut no_files)
    }

    /// True if rules or expressions may leave something out.
    pub fn has_rules(&self) -> bool {
        !self.filter.is_empty() || !self.regexes.is_empty()
    }

    /// True if what is in this directory of the module is wanted, rather than at most the directory itself.
    pub fn lists(&self, path: &TreePath) -> bool {
        let Some(below) = path.relative_to(&self.base) else { return false };
        matches!(self.cover(below.as_bytes()), Some((_, Depth::All) | (0, Depth::OneLevel)))
    }

    /// True if something inside this directory of the module may be wanted.
    pub fn enters(&self, path: &TreePath) -> bool {
        let leads = |below: TreePath| self.leads(below.as_bytes());
        self.base.relative_to(path).is_some() || self.lists(path) || path.relative_to(&self.base).is_some_and(leads)
    }

    /// True if the directory lies above the transfer root, or is it without being listed.
    pub fn is_above(&self, dir: &TreePath) -> bool {
        self.base.relative_to(dir).is_some() && !self.lists(dir)
    }

    /// What becomes of an entry of the module, given that all directories above it were not skipped, and the rules in force
    /// in the directory that holds it.
    pub fn choose(&self, scope: &Scope, path: &TreePath, is_dir: bool) -> Choice {
        let Some(below) = path.relative_to(&self.base) else {
            return if is_dir && self.base.relative_to(path).is_some() { Choice::Pass } else { Choice::Skip };
        };
        if below.is_root() {
            return Choice::Pass;
        }
        let covered = match self.cover(below.as_bytes()) {
            Some((0, Depth::File)) => !is_dir,
            other => matches!(other, Some((_, Depth::All) | (0, _) | (1, Depth::OneLevel))),
        };
        if !covered {
            return match (is_dir && self.leads(below.as_bytes()), self.implied) {
                (true, true) if self.leads_to_wanted(below.as_bytes()) => Choice::Take,
                (true, _) => Choice::Pass,
                (false, _) => Choice::Skip,
            };
        }
        let below_at = path.as_bytes().len() - below.as_bytes().len();
        let subject = Subject { path: path.as_bytes(), below: below_at, is_dir };
        if self.filter.verdict(scope, Side::Remote, subject, false) == Some(false) {
            return Choice::Skip;
        }
        self.expressed(below.as_bytes(), is_dir)
    }

    /// True if a path below the root is wanted by the rules alone, those of per-directory files aside.
    pub fn wants(&self, below: &TreePath, is_dir: bool) -> bool {
        let subject = Subject { path: below.as_bytes(), below: 0, is_dir };
        self.filter.verdict(&self.filter.top(), Side::Remote, subject, false) != Some(false)
    }

    fn expressed(&self, below: &[u8], is_dir: bool) -> Choice {
        let matches = |regex: &PathRegex| regex.matches(below) || (is_dir && regex.may_match_below(below));
        if self.regexes.is_empty() || self.regexes.iter().any(matches) { Choice::Take } else { Choice::Skip }
    }

    /// The nearest named place at or above a path, as names in between, and its depth; the deepest reach counts.
    fn cover(&self, below: &[u8]) -> Option<(usize, Depth)> {
        let (mut place, mut distance) = (below, 0);
        let mut best: Option<(usize, Depth)> = None;
        loop {
            if let Some(depth) = self.named.get(place) {
                let wins = best.is_none_or(|(_, known)| *depth == Depth::All && known != Depth::All);
                if wins {
                    best = Some((distance, *depth));
                }
            }
            if place.is_empty() {
                return best;
            }
            place = place.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &place[..slash]);
            distance += 1;
        }
    }

    /// True if a named place below a directory is wanted by the rules. Of names of a list rsync asks the rules for themselves alone,
    /// whatever lies above.
    fn leads_to_wanted(&self, below: &[u8]) -> bool {
        let from = [below, b"/"].concat();
        let inside = self.named.range(from.clone()..).map(|(path, _)| path);
        inside
            .take_while(|path| path.starts_with(&from))
            .filter_map(|path| TreePath::new(path).ok())
            .any(|path| self.wants(&path, false) || self.wants(&path, true))
    }

    /// True if a named place lies below a directory.
    fn leads(&self, below: &[u8]) -> bool {
        let from = [below, b"/"].concat();
        self.named.range(from.clone()..).next().is_some_and(|(path, _)| path.starts_with(&from))
    }
}
