//! Manifest: path.
#![allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 32]);
#[derive(Debug)]
pub struct PathError;
impl ContentId {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
impl Name {
    pub fn new(b: &[u8]) -> Result<Self, PathError> {
        if b.iter().any(|b| *b < 32) { Err(PathError) } else { Ok(Self(b.to_vec())) }
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl TreePath {
    pub fn root() -> Self {
        Self::default()
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    pub fn join(&self, name: &Name) -> Result<Self, PathError> {
        let mut v = self.0.clone();
        if !v.is_empty() {
            v.push(b'/');
        }
        v.extend(&name.0);
        if v.iter().filter(|b| **b == b'/').count() >= 128 {
            return Err(PathError);
        }
        Ok(Self(v))
    }
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty()).map(|c| Name(c.to_vec()))
    }
}
