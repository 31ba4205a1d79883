//! Names and paths of a tree: bytes, checked once, so that nothing later can leave the tree.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest name, bytes.
pub const MAX_NAME: usize = 255;
/// Deepest path, names.
pub const MAX_DEPTH: usize = 128;

/// Why something is no name or path of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// Empty, `.`, `..`, over 255 bytes, or with `/` or NUL in it.
    #[error("{name:?} is not a name of a tree")]
    Name {
        /// Escaped.
        name: String,
    },
    /// More than 128 names.
    #[error("a path is more than {MAX_DEPTH} names deep")]
    TooDeep,
}

/// One name: 1 to 255 bytes, any but NUL and `/`, neither `.` nor `..`. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`PathError::Name`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        let fits = (1..=MAX_NAME).contains(&bytes.len()) && bytes != b"." && bytes != b"..";
        if fits && !bytes.contains(&b'/') && !bytes.contains(&0) {
            Ok(Self(bytes.into()))
        } else {
            Err(PathError::Name { name: escape(bytes) })
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True if the name holds control characters: such trees are refused when fetched.
    pub fn has_control(&self) -> bool {
        self.0.iter().any(u8::is_ascii_control)
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&escape(&self.0))
    }
}

/// A relative path of checked names; empty for the root. Ordered as a walk goes: a directory, what is below it, its
/// successor. Clones share the bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TreePath(Arc<[u8]>);

impl TreePath {
    /// The root of the tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks a path of names separated by single slashes; empty is the root.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        let mut path = Self::root();
        if !bytes.is_empty() {
            for name in bytes.split(|byte| *byte == b'/') {
                path = path.join(&Name::new(name)?)?;
            }
        }
        Ok(path)
    }

    /// A path as people write it: `//` and `.` count for nothing, `..` leads up, but not out.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn plain(bytes: &[u8]) -> Result<Self, PathError> {
        let mut path = Self::root();
        for name in bytes.split(|byte| *byte == b'/') {
            path = match name {
                b"" | b"." => path,
                b".." => path.parent().unwrap_or_default(),
                name => path.join(&Name::new(name)?)?,
            };
        }
        Ok(path)
    }

    /// The bytes, names separated by slashes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the root of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path one name deeper.
    ///
    /// # Errors
    /// [`PathError::TooDeep`].
    pub fn join(&self, name: &Name) -> Result<Self, PathError> {
        if self.depth() >= MAX_DEPTH {
            return Err(PathError::TooDeep);
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        if !self.0.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
        Ok(Self(bytes.into()))
    }

    /// The names, outermost first.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(|name| Name(name.into()))
    }

    /// How many names.
    pub fn depth(&self) -> usize {
        if self.0.is_empty() { 0 } else { self.0.iter().filter(|byte| **byte == b'/').count() + 1 }
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<Name> {
        let last = self.0.rsplit(|byte| *byte == b'/').next()?;
        (!last.is_empty()).then(|| Name(last.into()))
    }

    /// The directory that holds it; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let cut = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// True if `other` lies below this path (and is not it).
    pub fn contains(&self, other: &Self) -> bool {
        other.relative_to(self).is_some_and(|rest| !rest.is_root())
    }

    /// The rest of this path below `base`; none if it is not `base` or below it.
    pub fn relative_to(&self, base: &Self) -> Option<Self> {
        if base.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&*base.0)? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // No name holds NUL, so a slash may stand for the lowest byte: then byte order is walk order.
        let low = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        self.0.iter().map(low).cmp(other.0.iter().map(low))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&escape(&self.0))
    }
}

/// Makes bytes fit for a terminal or a log as rsync does: control characters and what is not UTF-8 become `\#ooo`, and so
/// does a backslash that would read like one of these.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() {
                let mut utf8 = [0; 4];
                octal(char.encode_utf8(&mut utf8).as_bytes(), &mut text);
            } else {
                text.push(char);
            }
        }
        octal(chunk.invalid(), &mut text);
    }
    text.replace("\\#", "\\#134#").replace("\u{0}", "\\#")
}

fn octal(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        // NUL stands for the escape mark until every real backslash is seen to.
        text.push_str(&format!("\u{0}{byte:03o}"));
    }
}
