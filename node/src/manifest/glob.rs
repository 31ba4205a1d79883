//! rsync's wildcard patterns, on bytes: `*` within a name, `**` across slashes, `?`, `[...]` with `!` or `^`, `\` to quote.

/// True if `pattern` matches all of `text`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    match first {
        b'*' if rest.first() == Some(&b'*') => {
            let rest = &rest[rest.iter().take_while(|byte| **byte == b'*').count()..];
            (0..=text.len()).any(|at| matches(rest, &text[at..]))
        }
        b'*' => {
            let span = text.iter().take_while(|byte| **byte != b'/').count();
            (0..=span).any(|at| matches(rest, &text[at..]))
        }
        b'?' => matches!(text.split_first(), Some((byte, text)) if *byte != b'/' && matches(rest, text)),
        b'[' => match (text.split_first(), class(rest)) {
            (Some((byte, text)), Some((set, rest))) => *byte != b'/' && set.has(*byte) && matches(rest, text),
            (_, None) => literal(b'[', rest, text),
            (None, _) => false,
        },
        b'\\' => match rest.split_first() {
            Some((byte, rest)) => literal(*byte, rest, text),
            None => text == b"\\",
        },
        byte => literal(*byte, rest, text),
    }
}

fn literal(byte: u8, rest: &[u8], text: &[u8]) -> bool {
    matches!(text.split_first(), Some((first, text)) if *first == byte && matches(rest, text))
}

/// The inside of a bracket expression.
struct Class<'a> {
    negated: bool,
    members: &'a [u8],
}

/// Splits `...]rest`; none without a closing bracket.
fn class(pattern: &[u8]) -> Option<(Class<'_>, &[u8])> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let members = &pattern[usize::from(negated)..];
    // A bracket right at the start is a member.
    let end = members.iter().skip(1).position(|byte| *byte == b']')? + 1;
    Some((Class { negated, members: &members[..end] }, &members[end + 1..]))
}

impl Class<'_> {
    fn has(&self, byte: u8) -> bool {
        let mut rest = self.members;
        let mut found = false;
        while let Some((first, tail)) = rest.split_first() {
            match tail {
                [b'-', last, tail @ ..] => {
                    found |= (*first..=*last).contains(&byte);
                    rest = tail;
                }
                _ => {
                    found |= *first == byte;
                    rest = tail;
                }
            }
        }
        found != self.negated
    }
}
