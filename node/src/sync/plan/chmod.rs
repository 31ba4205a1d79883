//! `--chmod`: changes of permission bits as chmod(1) writes them, with rsync's `D` and `F` for directories and files.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most changes.
const MAX_CHANGES: usize = 256;

/// A text that is no change of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid argument passed to --chmod ({0})")]
pub struct ChmodError(String);

/// What happens to the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    Add,
    Remove,
    Set,
    /// All bits, by number.
    Octal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    dirs: bool,
    files: bool,
    action: Action,
    /// The bits of those who are concerned.
    who: u16,
    bits: u16,
    /// `X`: executable only for directories and for what is executable already.
    exec_if_any: bool,
}

/// A list of changes, applied in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chmod(Vec<Change>);

impl Chmod {
    /// Adds the changes of `Du=rwx,go-w,F644`. Without `ugoa` the bits of `umask` are left alone.
    ///
    /// # Errors
    /// [`ChmodError`].
    pub fn add(&mut self, text: &str, umask: u16) -> Result<(), ChmodError> {
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let change = change(word, umask).ok_or_else(|| ChmodError(text.to_owned()))?;
            self.0.push(change);
        }
        if self.0.len() > MAX_CHANGES { Err(ChmodError(text.chars().take(80).collect())) } else { Ok(()) }
    }

    /// The bits after all changes. Set-id bits never come about.
    pub fn apply(&self, before: u16, is_dir: bool) -> u16 {
        let concerned = self.0.iter().filter(|change| if is_dir { change.dirs } else { change.files });
        concerned.fold(before, |mode, change| {
            // As in rsync, what was executable before all changes.
            let bits = if change.exec_if_any && (is_dir || before & 0o111 != 0) {
                change.bits | (change.who & 0o111)
            } else {
                change.bits
            };
            match change.action {
                Action::Add => mode | bits,
                Action::Remove => mode & !bits,
                Action::Set => (mode & !change.who) | bits,
                Action::Octal => bits,
            }
        }) & 0o1777
    }
}

fn change(word: &str, umask: u16) -> Option<Change> {
    let (dirs, files, rest) = match word.as_bytes().first()? {
        b'D' => (true, false, &word[1..]),
        b'F' => (false, true, &word[1..]),
        _ => (true, true, word),
    };
    if rest.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) && (1..=4).contains(&rest.len()) {
        let bits = u16::from_str_radix(rest, 8).ok()?;
        return Some(Change { dirs, files, action: Action::Octal, who: 0o7777, bits, exec_if_any: false });
    }
    let at = rest.find(['+', '-', '='])?;
    let (named, rest) = rest.split_at(at);
    let mut who = 0;
    for letter in named.chars() {
        who |= match letter {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    let allowed = if who == 0 { 0o777 & !umask } else { who };
    let who = if who == 0 { 0o777 } else { who };
    let (mut bits, mut exec_if_any) = (0, false);
    for letter in rest[1..].chars() {
        match letter {
            'r' => bits |= 0o444 & allowed,
            'w' => bits |= 0o222 & allowed,
            'x' => bits |= 0o111 & allowed,
            'X' => exec_if_any = true,
            't' => bits |= 0o1000,
            // Set-id bits are never set here; to take them away is granted.
            's' => {}
            _ => return None,
        }
    }
    let action = match rest.as_bytes().first()? {
        b'+' => Action::Add,
        b'-' => Action::Remove,
        _ => Action::Set,
    };
    Some(Change { dirs, files, action, who, bits, exec_if_any })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, mode: u16, is_dir: bool) -> u16 {
        let mut chmod = Chmod::default();
        chmod.add(text, 0o022).expect(text);
        chmod.apply(mode, is_dir)
    }

    #[test]
    fn changes() {
        assert_eq!(applied("Dg+w,o-r", 0o755, true), 0o771);
        assert_eq!(applied("Dg+w,o-r", 0o644, false), 0o640);
        assert_eq!(applied("D2775,F664", 0o700, true), 0o775);
        assert_eq!(applied("ugo=rwX", 0o600, false), 0o666);
        assert_eq!(applied("ugo=rwX", 0o700, false), 0o777);
        assert_eq!(applied("+w", 0o444, false), 0o644);
        assert_eq!(applied("u=", 0o777, false), 0o077);
        for text in ["z+r", "u", "8", "D", "u+q", "77777"] {
            assert!(Chmod::default().add(text, 0).is_err(), "{text}");
        }
    }
}
