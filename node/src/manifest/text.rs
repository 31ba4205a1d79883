//! Bytes as people write them in settings: text where they are UTF-8, a list of numbers where they are not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are mostly text: names and patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes(Vec<u8>),
}

impl Serialize for ByteText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Form::Text(text.into()).serialize(to),
            Err(_) => Form::Bytes(self.0.clone()).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for ByteText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match Form::deserialize(from)? {
            Form::Text(text) => text.into_owned().into_bytes(),
            Form::Bytes(bytes) => bytes,
        }))
    }
}

impl From<&[u8]> for ByteText {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&Path> for ByteText {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<&ByteText> for PathBuf {
    fn from(text: &ByteText) -> Self {
        OsStr::from_bytes(&text.0).into()
    }
}

/// Paths of this machine in the same form, for `#[serde(with)]`: serde's own refuses those that are not UTF-8.
pub mod path {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ByteText;

    /// Writes a path.
    ///
    /// # Errors
    /// The format's own.
    pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        ByteText::from(path).serialize(to)
    }

    /// Reads a path.
    ///
    /// # Errors
    /// It is neither text nor bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(PathBuf::from(&ByteText::deserialize(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_come_back() {
        for (bytes, json) in [(&b"- *.o"[..], r#""- *.o""#), (b"\xff", "[255]")] {
            let value = ByteText::from(bytes);
            assert_eq!(serde_json::to_string(&value).expect("json"), json);
            assert_eq!(serde_json::from_str::<ByteText>(json).expect("json"), value);
        }
    }
}
