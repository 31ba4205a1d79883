//! Mistyped ids: a publisher id one edit away from one that is pinned here is a slip of the hand, or a trap.

use std::path::Path;

use crate::error::Failure;
use crate::store::state::State;

/// Refuses a reference whose id is not pinned but one edit away from one that is.
///
/// # Errors
/// Exit 1, naming the near one.
pub fn check(state: &Path, reference: &str) -> Result<(), Failure> {
    let Some(rest) = reference.strip_prefix("murmir://") else { return Ok(()) };
    let id = rest.split(['/', '@', '?']).next().unwrap_or_default();
    // Without a state nothing is pinned.
    let known = if state.is_dir() { State::open(state)?.publishers()? } else { Vec::new() };
    if known.iter().any(|one| one == id) {
        return Ok(());
    }
    match known.iter().find(|one| is_one_edit(one.as_bytes(), id.as_bytes())) {
        Some(near) => {
            let text = format!("{id} is not known here, but differs in one place from {near}, which is");
            Err(Failure::usage(text).hint("check the reference"))
        }
        None => Ok(()),
    }
}

/// True if one change of a byte, one more, one less, or two swapped make one text the other.
fn is_one_edit(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let start = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    let (short, long) = (&short[start..], &long[start..]);
    match (short, long) {
        ([], [_]) => true,
        ([a, c, short @ ..], [b, d, long @ ..]) if a == d && b == c && short == long => true,
        ([_, short @ ..], [_, long @ ..]) if short == long => true,
        (short, [_, long @ ..]) => short == long,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_edit() {
        for (a, b, expected) in [
            ("abc", "abd", true),
            ("abc", "ab", true),
            ("abc", "acb", true),
            ("abc", "abcd", true),
            ("abc", "xabc", true),
            ("abc", "abc", false),
            ("abc", "axd", false),
            ("abc", "a", false),
            ("", "", false),
        ] {
            assert_eq!(is_one_edit(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(is_one_edit(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
    }
}
