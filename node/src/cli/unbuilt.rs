//! Verbs and flags of ours that come later: told apart from what nobody knows.

use crate::error::{Exit, Failure};

const WORDS: &[&str] = &["--snapshot"];

/// The answer to a word that clap did not know; none if nobody knows it.
pub fn explain(word: &str) -> Option<Failure> {
    let name = word.split(['=', ' ']).next().unwrap_or(word);
    WORDS.contains(&name).then(|| Failure::new(Exit::Unsupported, format!("{name} is not built yet")))
}
