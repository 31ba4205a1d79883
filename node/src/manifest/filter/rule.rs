//! One filter rule: a pattern with rsync's meaning (rsync(1), "FILTER RULES"), and what it says of what it matches.

use super::wild::Wild;

/// Whose view of the tree: what is brought, or what deletion spares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree that is fetched (rsync's sender): rules hide and show.
    Remote,
    /// The destination (rsync's receiver): rules protect and put at risk.
    Local,
}

/// The sides a rule speaks to. Neither means both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sides {
    /// Modifier `s`, or `hide` and `show`.
    pub remote: bool,
    /// Modifier `r`, or `protect` and `risk`.
    pub local: bool,
}

impl Sides {
    /// True if a rule of these sides counts on `side`.
    pub fn covers(self, side: Side) -> bool {
        let this = match side {
            Side::Remote => self.remote,
            Side::Local => self.local,
        };
        this || !(self.remote || self.local)
    }
}

/// What a rule is matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The path from the root of the tree (of the module, or of the destination).
    pub path: &'a [u8],
    /// Where in it the path below the transfer root begins.
    pub below: usize,
    /// It is a directory.
    pub is_dir: bool,
}

impl<'a> Subject<'a> {
    fn from(self, start: usize) -> &'a [u8] {
        self.path.get(start..).unwrap_or_default()
    }
}

/// Where an anchored pattern begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// At the transfer root.
    Transfer,
    /// So many bytes into the path from the root: at the directory whose file holds the rule.
    At(usize),
}

/// How a pattern is laid on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// On the last name.
    Name,
    /// On the whole path from the anchor.
    Whole,
    /// On the last so many names.
    Tail(usize),
    /// On the path, and on what follows any slash of it.
    Anywhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Literal(Vec<u8>),
    Wild(Wild),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// It includes what it matches, rather than excluding it.
    pub include: bool,
    /// Whom it concerns.
    pub sides: Sides,
    /// It does not count in a directory that is being deleted.
    pub perishable: bool,
    absolute: bool,
    negated: bool,
    /// As it was written.
    pattern: Vec<u8>,
    dirs_only: bool,
    anchor: Anchor,
    reach: Reach,
    /// The pattern begins with `**`: a slash is put before the path, so that `**/x` finds `x` at the top.
    leading_slash: bool,
    /// The pattern ends with `***`: a slash is put after a directory.
    with_slash: bool,
    form: Form,
}

/// What stands around a pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits {
    /// Includes.
    pub include: bool,
    /// Whom it concerns.
    pub sides: Sides,
    /// Modifier `p`.
    pub perishable: bool,
    /// Modifier `!`: it concerns what does not match.
    pub negated: bool,
    /// Modifier `/`: the pattern begins at the root of the tree rather than of the transfer.
    pub absolute: bool,
}

impl Traits {
    /// The modifiers that say the same, but for the sign.
    pub fn letters(self) -> String {
        let Self { sides, perishable, negated, absolute, .. } = self;
        let marks = [(negated, '!'), (absolute, '/'), (perishable, 'p'), (sides.remote, 's'), (sides.local, 'r')];
        marks.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect()
    }
}

impl Rule {
    /// Compiles a pattern. `dir` is the length of the path of the directory whose file holds the rule, with the slash after it.
    pub fn new(pattern: &[u8], traits: Traits, dir: Option<usize>) -> Self {
        let is_wild = pattern.iter().any(|byte| b"*[?".contains(byte));
        let (dirs_only, body) = match pattern.strip_suffix(b"/") {
            Some(body) if !body.is_empty() => (true, body),
            _ => (false, pattern),
        };
        let stars = body.windows(2).position(|pair| pair == b"**");
        let slashes = body.iter().filter(|byte| **byte == b'/').count();
        let anchored = body.first() == Some(&b'/');
        let leading_slash = stars == Some(0);
        let reach = match stars {
            None if slashes == 0 => Reach::Name,
            _ if anchored || leading_slash => Reach::Whole,
            None => Reach::Tail(slashes + 1),
            Some(_) => Reach::Anywhere,
        };
        let text = if anchored { &body[1..] } else { body };
        let anchor = match (anchored, traits.absolute, dir) {
            (true, true, _) => Anchor::At(0),
            (true, false, Some(dir)) => Anchor::At(dir),
            _ => Anchor::Transfer,
        };
        Self {
            include: traits.include,
            sides: traits.sides,
            perishable: traits.perishable,
            absolute: traits.absolute,
            pattern: pattern.to_vec(),
            negated: traits.negated,
            dirs_only,
            anchor,
            reach,
            leading_slash,
            with_slash: is_wild && body.ends_with(b"***"),
            form: if is_wild { Form::Wild(Wild::new(text)) } else { Form::Literal(text.to_vec()) },
        }
    }

    /// The rule as text that parses to it.
    pub fn to_text(&self) -> Vec<u8> {
        let sign = if self.include { '+' } else { '-' };
        let traits = Traits {
            include: self.include,
            sides: self.sides,
            perishable: self.perishable,
            negated: self.negated,
            absolute: self.absolute,
        };
        [format!("{sign}{} ", traits.letters()).as_bytes(), &self.pattern].concat()
    }

    /// True if the rule decides about `subject`.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        self.pattern_matches(subject) != self.negated
    }

    fn pattern_matches(&self, subject: Subject<'_>) -> bool {
        if self.dirs_only && !subject.is_dir {
            return false;
        }
        let start = match self.anchor {
            Anchor::Transfer => subject.below,
            Anchor::At(start) => start,
        };
        let path = subject.from(start);
        let adorned;
        let path = if self.leading_slash || (self.with_slash && subject.is_dir) {
            let before: &[u8] = if self.leading_slash { b"/" } else { b"" };
            let after: &[u8] = if self.with_slash && subject.is_dir { b"/" } else { b"" };
            adorned = [before, path, after].concat();
            &adorned[..]
        } else {
            path
        };
        match self.reach {
            Reach::Name => self.fits(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)),
            Reach::Whole => self.fits(path),
            Reach::Tail(names) => tail(path, names).is_some_and(|text| self.fits(text)),
            Reach::Anywhere => {
                let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
                self.fits(path) || slashes.into_iter().any(|(at, _)| self.fits(&path[at + 1..]))
            }
        }
    }

    fn fits(&self, text: &[u8]) -> bool {
        match &self.form {
            Form::Literal(literal) => literal == text,
            Form::Wild(wild) => wild.matches(text),
        }
    }
}

/// The last `names` names of a path; none if it has fewer.
fn tail(path: &[u8], names: usize) -> Option<&[u8]> {
    let mut starts = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    match starts.nth(names - 1) {
        Some(start) => Some(&path[start..]),
        None => (path.split(|byte| *byte == b'/').count() == names).then_some(path),
    }
}
