//! Filter rules as text (rsync(1), "FILTER RULES", "MERGE-FILE FILTER RULES").

use thiserror::Error;

use super::rule::{Rule, Sides, Traits};
use super::{MAX_PATTERN, PerDir};
use crate::manifest::path::escape;

/// What CVS ignores (rsync(1), `--cvs-exclude`).
pub const CVS_IGNORED: &[u8] = b"RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* \
    _$* *$ *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core \
    .svn/ .git/ .hg/ .bzr/";

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// No known prefix.
    #[error("unknown filter rule: {rule}")]
    Unknown {
        /// The rule, escaped.
        rule: String,
    },
    /// A modifier that this kind of rule does not have.
    #[error("invalid modifier '{}' in filter rule: {rule}", modifier.escape_debug())]
    Modifier {
        /// The letter.
        modifier: char,
        /// The rule, escaped.
        rule: String,
    },
    /// Nothing where a pattern or a file name belongs.
    #[error("unexpected end of filter rule: {rule}")]
    Empty {
        /// The rule, escaped.
        rule: String,
    },
    /// A file that was merged for one side holds a rule that names a side itself.
    #[error("specified-side merge file contains specified-side filter: {rule}")]
    Sides {
        /// The rule, escaped.
        rule: String,
    },
    /// Over 4096 bytes.
    #[error("filter rule too long: {rule}...")]
    TooLong {
        /// Its beginning, escaped.
        rule: String,
    },
    /// Over 10,000.
    #[error("more than {} filter rules", super::MAX_RULES)]
    TooMany,
    /// A file of rules of a tree merges one that is not there.
    #[error("failed to open exclude file of the rule: {rule}")]
    NoFile {
        /// The rule, escaped.
        rule: String,
    },
    /// A per-directory file with a slash in its name.
    #[error("not supported here: {rule}")]
    Unsupported {
        /// The rule, escaped.
        rule: String,
    },
}

/// How the lines of a file, or the words of an option, are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// What every rule of the file has by default.
    pub traits: Traits,
    /// Bare patterns: no prefix is looked for (modifiers `-` and `+`).
    pub bare: bool,
    /// Of prefixes only `+ `, `- ` and `!` count: `--include` and `--exclude`.
    pub old_prefixes: bool,
    /// Words rather than lines (modifier `w`).
    pub words: bool,
    /// Subdirectories do not inherit (modifier `n`).
    pub no_inherit: bool,
    /// The file leaves itself out (modifier `e`).
    pub exclude_self: bool,
    /// Lines end with NUL: `--from0`.
    pub nul: bool,
    /// The sides in `traits` come from `--delete-excluded` rather than from a rule: the file may name others.
    pub free: bool,
    /// The text is one of our own, where the modifier `f` says so.
    pub own: bool,
}

impl Manner {
    /// Of `--include` and `--exclude`, and of the files of `--include-from` and `--exclude-from`.
    pub fn patterns(include: bool) -> Self {
        Self { traits: Traits { include, ..Traits::default() }, old_prefixes: true, ..Self::default() }
    }
}

/// What a rule's text means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A rule.
    Rule(Rule),
    /// `!`: forget all before it.
    Clear,
    /// `.`: the rules of a file stand here. None: what CVS ignores.
    Merge(Option<Vec<u8>>, Manner),
    /// `:`: the rules of files of this name, directory by directory, stand here.
    PerDir(PerDir),
    /// `-C`: CVS's own list.
    Cvs(Manner),
}

/// Parses one rule. `dir`: see [`Rule::new`].
///
/// # Errors
/// [`FilterError`].
pub fn parse(text: &[u8], manner: Manner, dir: Option<usize>) -> Result<Parsed, FilterError> {
    if text.len() > MAX_PATTERN {
        return Err(FilterError::TooLong { rule: escape(&text[..80]) });
    }
    let (kind, rest, manner, is_cvs) = prefix(text, manner)?;
    if kind == b'!' {
        return if rest.is_empty() { Ok(Parsed::Clear) } else { Err(FilterError::Unknown { rule: escape(text) }) };
    }
    let empty = || FilterError::Empty { rule: escape(text) };
    match kind {
        b'.' if rest.is_empty() && is_cvs => Ok(Parsed::Merge(None, manner)),
        b'.' if rest.is_empty() => Err(empty()),
        b'.' => Ok(Parsed::Merge(Some(rest.to_vec()), manner)),
        b':' => per_dir(if rest.is_empty() && is_cvs { b".cvsignore" } else { rest }, manner, text),
        _ if is_cvs && rest.is_empty() => Ok(Parsed::Cvs(manner)),
        _ if rest.is_empty() => Err(empty()),
        _ => Ok(Parsed::Rule(Rule::new(rest, manner.traits, dir))),
    }
}

fn per_dir(name: &[u8], manner: Manner, text: &[u8]) -> Result<Parsed, FilterError> {
    let (parents, name) = name.strip_prefix(b"/").map_or((false, name), |name| (true, name));
    if name.is_empty() {
        return Err(FilterError::Empty { rule: escape(text) });
    }
    if name.contains(&b'/') {
        return Err(FilterError::Unsupported { rule: escape(text) });
    }
    Ok(Parsed::PerDir(PerDir { name: name.to_vec(), parents, manner }))
}

/// Kind, what follows the prefix, the manner with the modifiers, and whether it is CVS's.
fn prefix(text: &[u8], manner: Manner) -> Result<(u8, &[u8], Manner, bool), FilterError> {
    let plain = if manner.traits.include { b'+' } else { b'-' };
    if manner.old_prefixes || manner.bare {
        let with = |include| Manner { traits: Traits { include, ..manner.traits }, ..manner };
        return Ok(match text {
            // In a bare list only a line of its own clears.
            b"!" => (b'!', b"", manner, false),
            [b'-', b' ', rest @ ..] if manner.old_prefixes => (b'-', rest, with(false), false),
            [b'+', b' ', rest @ ..] if manner.old_prefixes => (b'+', rest, with(true), false),
            _ => (plain, text, manner, false),
        });
    }
    let unknown = || FilterError::Unknown { rule: escape(text) };
    let (kind, rest) = kind(text).ok_or_else(unknown)?;
    let mut traits = Traits { include: matches!(kind, b'+' | b'S' | b'R'), negated: false, ..manner.traits };
    match kind {
        b'H' | b'S' => traits.sides = Sides { remote: true, local: false },
        b'P' | b'R' => traits.sides = Sides { remote: false, local: true },
        _ => {}
    }
    let is_merge = matches!(kind, b'.' | b':');
    // What a merge rule says of itself counts for what its file holds.
    let (of_file, of_a_free_file) = (manner.traits.sides, manner.free);
    let mut manner = if is_merge {
        Manner { traits, nul: manner.nul, own: manner.own, ..Manner::default() }
    } else {
        Manner { traits, ..manner }
    };
    if kind == b'!' {
        return Ok((kind, rest, manner, false));
    }
    let length = rest.iter().take_while(|byte| !matches!(byte, b' ' | b'_')).count();
    let (letters, rest) = rest.split_at(length);
    let rest = rest.get(1..).unwrap_or_default();
    let names_side = matches!(kind, b'H' | b'S' | b'P' | b'R') || letters.iter().any(|letter| b"sr".contains(letter));
    if names_side && of_file != Sides::default() && !of_a_free_file {
        return Err(FilterError::Sides { rule: escape(text) });
    }
    if names_side && of_a_free_file && !matches!(kind, b'H' | b'S' | b'P' | b'R') {
        manner.traits.sides = Sides::default();
    }
    let mut is_cvs = false;
    for letter in letters {
        is_cvs |= *letter == b'C';
        modify(&mut manner, *letter, kind)
            .ok_or_else(|| FilterError::Modifier { modifier: char::from(*letter), rule: escape(text) })?;
    }
    Ok((kind, rest, manner, is_cvs))
}

/// The kind's letter, and what follows the prefix up to its modifiers.
fn kind(text: &[u8]) -> Option<(u8, &[u8])> {
    const NAMES: [(&[u8], u8); 10] = [
        (b"clear", b'!'),
        (b"dir-merge", b':'),
        (b"exclude", b'-'),
        (b"hide", b'H'),
        (b"include", b'+'),
        (b"merge", b'.'),
        (b"protect", b'P'),
        (b"risk", b'R'),
        (b"show", b'S'),
        (b"", 0),
    ];
    for (name, kind) in NAMES {
        match text.strip_prefix(name) {
            Some(rest) if kind != 0 && matches!(rest.first(), None | Some(b' ' | b'_')) => return Some((kind, rest)),
            Some([b',', rest @ ..]) if kind != 0 => return Some((kind, rest)),
            _ => {}
        }
    }
    let (first, rest) = text.split_first()?;
    let rest = rest.strip_prefix(b",").unwrap_or(rest);
    b":-H+.PRS!".contains(first).then_some((*first, rest))
}

/// Applies one modifier; none if this kind of rule has no such one.
fn modify(manner: &mut Manner, letter: u8, kind: u8) -> Option<()> {
    let is_merge = matches!(kind, b'.' | b':');
    let has_side = matches!(kind, b'H' | b'S' | b'P' | b'R');
    let traits = &mut manner.traits;
    match letter {
        b'-' if is_merge => manner.bare = true,
        b'+' if is_merge => (manner.bare, traits.include) = (true, true),
        b'/' => traits.absolute = true,
        b'!' if !is_merge => traits.negated = true,
        b'C' if !has_side && !manner.bare => {
            traits.perishable = true;
            (manner.bare, manner.words, manner.no_inherit) = (true, true, true);
        }
        b'e' if is_merge => manner.exclude_self = true,
        b'f' if is_merge && manner.own => manner.free = true,
        b'n' if is_merge => manner.no_inherit = true,
        b'w' if is_merge => manner.words = true,
        b'p' => traits.perishable = true,
        b'r' if !has_side => traits.sides.local = true,
        b's' if !has_side => traits.sides.remote = true,
        // Extended attributes are not carried: such a rule matches nothing, and is refused rather than ignored.
        _ => return None,
    }
    Some(())
}

/// The rules of a file: lines without comments, or words.
pub fn lines(content: &[u8], manner: Manner) -> Vec<&[u8]> {
    if manner.words {
        let words = content.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b);
        return words.filter(|word| !word.is_empty()).collect();
    }
    let ends = |byte: &u8| if manner.nul { *byte == 0 } else { matches!(byte, b'\n' | b'\r') };
    content.split(ends).filter(|line| !matches!(line.first(), None | Some(b'#' | b';'))).collect()
}
