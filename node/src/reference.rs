//! `murmir://` references: which module, which generation, what of it, and whom to ask.
//!
//! `murmir://<publisher-id>/<module>[@<seq>|@<root-cid>][/<path>][?peer=<multiaddr>[&peer=...]]`

use std::fmt;

use cid::Cid;
use libp2p::Multiaddr;
use thiserror::Error;
use tracker_less::record::{ModuleName, PublisherId};

use crate::manifest::path::{Name, TreePath, escape};
use crate::sync::ModuleRef;
use crate::sync::resolve::Wanted;

/// Longest reference.
const MAX_LENGTH: usize = 16 << 10;
/// Most `peer=` parameters.
const MAX_PEERS: usize = 32;
/// The scheme.
const SCHEME: &str = "murmir://";

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Another scheme, or none.
    #[error("{text} is no murmir:// reference")]
    Scheme {
        /// Escaped, cut.
        text: String,
    },
    /// The first part is no publisher id.
    #[error("{text} is not a publisher id (k51...)")]
    Publisher {
        /// Escaped, cut.
        text: String,
    },
    /// Something after it does not fit the grammar.
    #[error("{what} in the reference: {text}")]
    Part {
        /// Which part.
        what: &'static str,
        /// Escaped, cut.
        text: String,
    },
}

/// A parsed reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The module.
    pub module: ModuleRef,
    /// The generation.
    pub at: Wanted,
    /// The path in the module; root for the module itself.
    pub path: TreePath,
    /// A slash follows the path: the content of a directory, not the directory itself.
    pub slash: bool,
    /// Whom to ask.
    pub peers: Vec<Multiaddr>,
}

fn cut(text: &str) -> String {
    escape(text.as_bytes()).chars().take(80).collect()
}

fn part(what: &'static str, text: &str) -> ReferenceError {
    ReferenceError::Part { what, text: cut(text) }
}

impl Reference {
    /// The newest generation of a module.
    pub fn of(module: &ModuleRef) -> Self {
        let (module, path) = (module.clone(), TreePath::root());
        Self { module, at: Wanted::Newest, path, slash: false, peers: Vec::new() }
    }

    /// Parses a reference.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= MAX_LENGTH);
        let rest = rest.ok_or_else(|| ReferenceError::Scheme { text: cut(text) })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (publisher, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let publisher: PublisherId =
            publisher.parse().map_err(|_| ReferenceError::Publisher { text: cut(publisher) })?;
        let (module, path) = rest.split_once('/').map_or((rest, None), |(module, path)| (module, Some(path)));
        let (name, at) = module.split_once('@').map_or((module, None), |(name, at)| (name, Some(at)));
        let name: ModuleName = name.parse().map_err(|_| part("no module name", name))?;
        let at = at.map_or(Ok(Wanted::Newest), generation)?;
        let (path, slash) = parse_path(path.unwrap_or_default())?;
        let module = ModuleRef::new(publisher, name);
        Ok(Self { module, at, path, slash, peers: parse_query(query)? })
    }

    /// The transfer root, and the one entry in it that is wanted if not all: rsync's trailing-slash rule.
    pub fn transfer_root(&self) -> (TreePath, Option<Name>) {
        match (self.path.parent(), self.path.name()) {
            (Some(parent), Some(name)) if !self.slash => (parent, Some(name)),
            _ => (self.path.clone(), None),
        }
    }
}

fn generation(text: &str) -> Result<Wanted, ReferenceError> {
    if let Ok(seq) = text.parse::<u64>()
        && seq > 0
    {
        return Ok(Wanted::Seq(seq));
    }
    let cid = Cid::try_from(text).ok().filter(crate::manifest::page::is_page_cid);
    cid.map(Wanted::Root).ok_or_else(|| part("neither number nor root", text))
}

fn parse_path(text: &str) -> Result<(TreePath, bool), ReferenceError> {
    let slash = text.ends_with('/');
    let bytes = unquote(text.trim_end_matches('/')).ok_or_else(|| part("wrong %-encoding", text))?;
    let path = TreePath::new(&bytes).map_err(|_| part("impossible path", text))?;
    Ok((path, slash && !bytes.is_empty()))
}

fn parse_query(query: &str) -> Result<Vec<Multiaddr>, ReferenceError> {
    let mut peers = Vec::new();
    for item in query.split('&').filter(|item| !item.is_empty()) {
        let address = item.strip_prefix("peer=").ok_or_else(|| part("unknown parameter", item))?;
        let address = unquote(address).and_then(|bytes| String::from_utf8(bytes).ok());
        let address = address.and_then(|text| text.parse().ok()).ok_or_else(|| part("no multiaddr", item))?;
        if peers.len() >= MAX_PEERS {
            return Err(part("too many peers", item));
        }
        peers.push(address);
    }
    Ok(peers)
}

/// Undoes %-encoding (RFC 3986, section 2.1); none where it is wrong.
pub fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let (code, tail) = tail.split_at_checked(2)?;
        let code = std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        rest = tail;
    }
    Some(bytes)
}

/// A path, %-encoded.
pub fn quoted(bytes: &[u8]) -> String {
    struct Quoted<'a>(&'a [u8]);
    impl fmt::Display for Quoted<'_> {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            quote(self.0, out)
        }
    }
    Quoted(bytes).to_string()
}

/// %-encodes what is not unreserved (RFC 3986, section 2.3), `/` and `@` apart.
fn quote(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || b"-._~/@".contains(byte);
        if plain { write!(out, "{}", char::from(*byte))? } else { write!(out, "%{byte:02X}")? }
    }
    Ok(())
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.module)?;
        match self.at {
            Wanted::Newest => {}
            Wanted::Seq(seq) => write!(out, "@{seq}")?,
            Wanted::Root(root) => write!(out, "@{root}")?,
        }
        if !self.path.is_root() || self.slash {
            out.write_str("/")?;
            quote(self.path.as_bytes(), out)?;
        }
        if self.slash && !self.path.is_root() {
            out.write_str("/")?;
        }
        for (number, peer) in self.peers.iter().enumerate() {
            write!(out, "{}peer={peer}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
