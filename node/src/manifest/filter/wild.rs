//! rsync's wildcard patterns on bytes (rsync(1), "PATTERN MATCHING RULES"): `*` within a name, `**` across slashes, `?`,
//! `[...]` with `!` or `^` and POSIX classes, `\` to quote.

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This byte.
    Byte(u8),
    /// Any byte but a slash: `?`.
    Any,
    /// A byte of the set, which never holds the slash: `[...]`.
    Class(Box<[bool; 256]>),
    /// Any run without a slash: `*`.
    Star,
    /// Any run: `**`.
    Stars,
    /// Nothing matches: a bracket without its end, a backslash at the end.
    Never,
}

/// A compiled pattern. Matching takes time proportional to pattern times text, whatever they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wild(Vec<Token>);

impl Wild {
    /// Compiles a pattern; every byte string is one.
    pub fn new(pattern: &[u8]) -> Self {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            tokens.push(match first {
                b'?' => Token::Any,
                b'*' => {
                    let more = tail.iter().take_while(|byte| **byte == b'*').count();
                    rest = &tail[more..];
                    if more == 0 { Token::Star } else { Token::Stars }
                }
                b'\\' => match tail.split_first() {
                    Some((byte, tail)) => {
                        rest = tail;
                        Token::Byte(*byte)
                    }
                    None => Token::Never,
                },
                b'[' => match class(tail) {
                    Some((set, tail)) => {
                        rest = tail;
                        Token::Class(set)
                    }
                    None => Token::Never,
                },
                byte => Token::Byte(*byte),
            });
            // What follows decides nothing any more, and looking for the end of every bracket would take time squared.
            if tokens.last() == Some(&Token::Never) {
                break;
            }
        }
        Self(tokens)
    }

    /// True if the pattern matches all of `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        // The set of tokens that may come next, as a row of flags: no backtracking, so no pattern is slow.
        let mut at = vec![false; self.0.len() + 1];
        at[0] = true;
        self.skip_runs(&mut at);
        let mut next = vec![false; at.len()];
        for byte in text {
            next.fill(false);
            let mut alive = false;
            for (place, token) in self.0.iter().enumerate().filter(|(place, _)| at[*place]) {
                let goes_on = match token {
                    Token::Byte(wanted) => wanted == byte,
                    Token::Any => *byte != b'/',
                    Token::Class(set) => set[usize::from(*byte)],
                    Token::Star if *byte == b'/' => false,
                    Token::Star | Token::Stars => {
                        next[place] = true;
                        alive = true;
                        false
                    }
                    Token::Never => false,
                };
                if goes_on {
                    next[place + 1] = true;
                    alive = true;
                }
            }
            if !alive {
                return false;
            }
            self.skip_runs(&mut next);
            std::mem::swap(&mut at, &mut next);
        }
        at.last().copied().unwrap_or(false)
    }

    /// A run may be empty: what follows it may come next as well.
    fn skip_runs(&self, at: &mut [bool]) {
        for (place, token) in self.0.iter().enumerate() {
            if at[place] && matches!(token, Token::Star | Token::Stars) {
                at[place + 1] = true;
            }
        }
    }
}

/// The set of a bracket expression, given what follows `[`, and what follows its `]`; none if it has no end.
fn class(inside: &[u8]) -> Option<(Box<[bool; 256]>, &[u8])> {
    let negated = matches!(inside.first(), Some(b'!' | b'^'));
    let mut rest = &inside[usize::from(negated)..];
    let mut set = Box::new([false; 256]);
    let mut last = None;
    let mut is_first = true;
    loop {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b']' if !is_first => break,
            b'-' if last.is_some() && rest.first().is_some_and(|next| *next != b']') => {
                let (end, tail) = quoted(rest)?;
                rest = tail;
                for member in last.unwrap_or(end)..=end {
                    set[usize::from(member)] = true;
                }
                // The end of a range begins no other.
                last = None;
            }
            b'[' if rest.first() == Some(&b':') => match named(rest) {
                Some((members, tail)) => {
                    (0..=u8::MAX).filter(members).for_each(|member| set[usize::from(member)] = true);
                    rest = tail;
                    last = None;
                }
                // `[:` that closes as no class is two members; with an unknown name nothing matches.
                None if has_class_end(rest) => return None,
                None => {
                    set[usize::from(b'[')] = true;
                    last = Some(b'[');
                }
            },
            _ => {
                let (member, tail) =
                    if *byte == b'\\' { rest.split_first().map(|(m, t)| (*m, t))? } else { (*byte, rest) };
                rest = tail;
                set[usize::from(member)] = true;
                last = Some(member);
            }
        }
        is_first = false;
    }
    for member in set.iter_mut() {
        *member ^= negated;
    }
    set[usize::from(b'/')] = false;
    Some((set, rest))
}

/// One member, quoted or not.
fn quoted(text: &[u8]) -> Option<(u8, &[u8])> {
    match text.split_first()? {
        (b'\\', tail) => tail.split_first().map(|(byte, tail)| (*byte, tail)),
        (byte, tail) => Some((*byte, tail)),
    }
}

/// True if the text up to the next `]` ends with a colon, as `:alpha:]` does.
fn has_class_end(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| *byte == b']');
    end.is_some_and(|end| end >= 2 && text[end - 1] == b':')
}

type Members = fn(&u8) -> bool;

/// The members of `:name:]`, and what follows.
fn named(text: &[u8]) -> Option<(Members, &[u8])> {
    const CLASSES: [(&[u8], Members); 12] = [
        (b"alnum", u8::is_ascii_alphanumeric),
        (b"alpha", u8::is_ascii_alphabetic),
        (b"blank", |byte| matches!(byte, b' ' | b'\t')),
        (b"cntrl", u8::is_ascii_control),
        (b"digit", u8::is_ascii_digit),
        (b"graph", u8::is_ascii_graphic),
        (b"lower", u8::is_ascii_lowercase),
        (b"print", |byte| matches!(byte, b' '..=b'~')),
        (b"punct", u8::is_ascii_punctuation),
        // C's isspace has the vertical tab, too.
        (b"space", |byte| matches!(byte, b' ' | b'\t'..=b'\r')),
        (b"upper", u8::is_ascii_uppercase),
        (b"xdigit", u8::is_ascii_hexdigit),
    ];
    let text = text.strip_prefix(b":")?;
    CLASSES.iter().find_map(|(name, members)| {
        let rest = text.strip_prefix(*name)?.strip_prefix(b":]")?;
        Some((*members, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_classes() {
        for (pattern, text, expected) in [
            ("foo", "foo", true),
            ("foo", "fo", false),
            ("*", "", true),
            ("*", "a/b", false),
            ("**", "a/b", true),
            ("a*c", "abbc", true),
            ("a*c", "ab/c", false),
            ("a**c", "ab/c", true),
            ("a***", "a/b/c", true),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[!a]", "/", false),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            ("[\\]]", "]", true),
            ("[[:digit:]x]", "7", true),
            ("[[:digit:]x]", "x", true),
            ("[[:nosuch:]x]", "x", false),
            ("[ab", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a", false),
        ] {
            assert_eq!(Wild::new(pattern.as_bytes()).matches(text.as_bytes()), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn no_pattern_is_slow() {
        let pattern = b"a*".repeat(100);
        let text = b"a".repeat(4000);
        assert!(!Wild::new(&[&pattern[..], b"b"].concat()).matches(&text));
    }
}
