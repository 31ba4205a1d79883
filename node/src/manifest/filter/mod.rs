//! rsync's filter rules: ordered, the first match wins, what no rule matches is included, an excluded directory takes along
//! what is below it. Pure, on bytes.

mod parse;
mod rule;
mod scope;
mod wild;

pub use parse::{CVS_IGNORED, FilterError, Manner, Parsed, lines, parse};
pub use rule::{Rule, Side, Sides, Subject, Traits};
pub use scope::{Inside, Scope};
pub use wild::Wild;

use super::path::escape;
use super::text::ByteText;

/// Longest rule, bytes.
pub const MAX_PATTERN: usize = 4096;
/// Most rules of a filter, and of one file.
pub const MAX_RULES: usize = 10_000;
/// Largest file of rules inside a tree, bytes.
pub const MAX_MERGE: u64 = 256 << 10;

/// Files of one name whose rules count from their directory on: `dir-merge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerDir {
    /// The files' name.
    pub name: Vec<u8>,
    /// Directories above the transfer root count as well.
    pub parents: bool,
    /// How the files are read.
    pub manner: Manner,
}

impl PerDir {
    fn to_text(&self) -> Vec<u8> {
        let Manner { traits, bare, words, no_inherit, free, .. } = self.manner;
        let sign = match (bare, traits.include) {
            (true, true) => "+",
            (true, false) => "-",
            (false, _) => "",
        };
        let marks = [(words, 'w'), (no_inherit, 'n'), (free, 'f')];
        let letters: String = marks.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
        let slash = if self.parents { "/" } else { "" };
        [format!(":{sign}{letters}{} {slash}", traits.letters()).as_bytes(), &self.name].concat()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Rule(Rule),
    /// The rules of the per-directory files of this number stand here.
    PerDir(usize),
}

/// A list of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    items: Vec<Item>,
    per_dir: Vec<PerDir>,
}

impl Filter {
    /// Adds what a rule's text means; `read` gives the content of the files that it merges.
    ///
    /// # Errors
    /// The rule, or one in a file, is refused; `read` fails.
    pub fn add<E: From<FilterError>>(
        &mut self,
        text: &[u8],
        manner: Manner,
        read: &mut impl FnMut(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        match parse(text, manner, None)? {
            Parsed::Rule(rule) => self.items.push(Item::Rule(rule)),
            Parsed::Clear => *self = Self::default(),
            Parsed::PerDir(files) => self.add_per_dir(files),
            Parsed::Cvs(manner) | Parsed::Merge(None, manner) => self.add_file(CVS_IGNORED, manner, read)?,
            Parsed::Merge(Some(name), manner) => {
                if manner.exclude_self {
                    let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or(&name);
                    self.items.push(Item::Rule(Rule::new(base, Traits::default(), None)));
                }
                let content = read(&name)?;
                self.add_file(&content, manner, read)?;
            }
        }
        if self.items.len() > MAX_RULES { Err(FilterError::TooMany.into()) } else { Ok(()) }
    }

    fn add_per_dir(&mut self, mut files: PerDir) {
        if files.manner.exclude_self {
            self.items.push(Item::Rule(Rule::new(&files.name, Traits::default(), None)));
            files.manner.exclude_self = false;
        }
        // As in rsync, the first word on a file's name stands.
        if self.per_dir.iter().any(|known| known.name == files.name) {
            return;
        }
        self.items.push(Item::PerDir(self.per_dir.len()));
        self.per_dir.push(files);
    }

    fn add_file<E: From<FilterError>>(
        &mut self,
        content: &[u8],
        manner: Manner,
        read: &mut impl FnMut(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let inner = Manner { words: false, ..manner };
        lines(content, manner).into_iter().try_for_each(|line| self.add(line, inner, read))
    }

    /// The rules as texts that parse to the same filter; what was merged stands in its place.
    pub fn to_texts(&self) -> Vec<ByteText> {
        let text = |item: &Item| match item {
            Item::Rule(rule) => Some(rule.to_text()),
            Item::PerDir(number) => self.per_dir.get(*number).map(PerDir::to_text),
        };
        self.items.iter().filter_map(text).map(ByteText).collect()
    }

    /// The filter of texts that [`Self::to_texts`] made.
    ///
    /// # Errors
    /// They are no rules.
    pub fn from_texts(texts: &[ByteText]) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        let mut no_files = |name: &[u8]| Err(FilterError::Unsupported { rule: escape(name) });
        let own = Manner { own: true, ..Manner::default() };
        texts.iter().try_for_each(|text| filter.add(&text.0, own, &mut no_files))?;
        filter.per_dir.iter_mut().for_each(|files| files.manner.own = false);
        Ok(filter)
    }

    /// Rules that name no side speak of the remote tree only: `--delete-excluded`.
    pub fn protect_nothing(&mut self) {
        let free = |sides: &mut Sides| {
            let names_none = *sides == Sides::default();
            sides.remote |= names_none;
            names_none
        };
        for item in &mut self.items {
            if let Item::Rule(rule) = item {
                free(&mut rule.sides);
            }
        }
        for files in &mut self.per_dir {
            files.manner.free |= free(&mut files.manner.traits.sides);
        }
    }

    /// True if there is no rule.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The per-directory files to look for in every directory.
    pub fn per_dir(&self) -> &[PerDir] {
        &self.per_dir
    }
}

#[cfg(test)]
mod tests;
