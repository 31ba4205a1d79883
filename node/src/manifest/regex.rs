//! Regular expressions over paths, that also tell which directories cannot hold a match: their pages are never fetched.

use std::fmt;

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};
use thiserror::Error;

/// Longest expression, bytes.
const MAX_TEXT: usize = 4096;
/// Largest automaton, bytes.
const MAX_AUTOMATON: usize = 8 << 20;

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("regular expression {text}: {reason}")]
pub struct RegexError {
    text: String,
    reason: String,
}

/// An expression that matches anywhere in a path unless it is anchored. Bytes that are not UTF-8 match only where the
/// expression turns Unicode off, `(?-u)`.
#[derive(Clone)]
pub struct PathRegex {
    text: String,
    automaton: dense::DFA<Vec<u32>>,
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRegex {}

impl PathRegex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is none, or too large.
    pub fn new(text: &str) -> Result<Self, RegexError> {
        let refuse = |reason: String| {
            let reason = reason.lines().last().unwrap_or("not a regular expression").trim_start_matches("error: ");
            RegexError { text: text.chars().take(80).collect(), reason: reason.to_owned() }
        };
        if text.len() > MAX_TEXT {
            return Err(refuse("too long".to_owned()));
        }
        let limits = dense::Config::new()
            // Every match counts, so that the automaton dies only where no path below can match.
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(MAX_AUTOMATON))
            .determinize_size_limit(Some(MAX_AUTOMATON));
        let built = dense::Builder::new()
            .configure(limits)
            .syntax(syntax::Config::new().utf8(false))
            .thompson(regex_automata::nfa::thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_AUTOMATON)))
            .build(text);
        let reason = |error: dense::BuildError| match std::error::Error::source(&error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        let automaton = built.map_err(|error| refuse(reason(error)))?;
        Ok(Self { text: text.to_owned(), automaton })
    }

    /// True if the expression matches in `path`.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.run(path).is_none_or(|state| self.automaton.is_match_state(self.automaton.next_eoi_state(state)))
    }

    /// True unless nothing below the directory `dir` can match.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        let inside = [dir, b"/"].concat();
        self.run(&inside).is_none_or(|state| !self.automaton.is_dead_state(state))
    }

    /// The state after `text`; none if a match was met on the way.
    fn run(&self, text: &[u8]) -> Option<regex_automata::util::primitives::StateID> {
        // A start that needs to look behind has nothing to look at here; quitting means not knowing: a match is assumed.
        let mut state = self.automaton.start_state(&start::Config::new().anchored(Anchored::No)).ok()?;
        for byte in text {
            state = self.automaton.next_state(state, *byte);
            if self.automaton.is_match_state(state) || self.automaton.is_quit_state(state) {
                return None;
            }
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_and_prunes() {
        let regex = PathRegex::new(r"^pool/.*\.deb$").expect("an expression");
        assert!(regex.matches(b"pool/a/x.deb"));
        assert!(!regex.matches(b"pool/a/x.debs") && !regex.matches(b"x/pool/a.deb"));
        assert!(regex.may_match_below(b"pool/a"));
        assert!(!regex.may_match_below(b"dists"));
        let loose = PathRegex::new("deb").expect("an expression");
        assert!(loose.matches(b"a/xdebx/c") && loose.may_match_below(b"dists"));
        let ended = PathRegex::new("^a/b").expect("an expression");
        assert!(ended.matches(b"a/bc/d") && ended.may_match_below(b"a/bc") && !ended.may_match_below(b"b"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["(", "[", "a{1000}{1000}{1000}"] {
            assert!(PathRegex::new(text).is_err(), "{text}");
        }
    }
}
