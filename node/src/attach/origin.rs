//! What a user may name that is no reference: a module of an rsync daemon, or a web address.

use std::fmt;

use crate::manifest::path::{TreePath, escape};
use crate::reference::quoted;

/// Port of rsync daemons.
const PORT: u16 = 873;
/// Longest name of an origin, bytes.
const MAX_LENGTH: usize = 4096;

/// A module of an rsync daemon, and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The module; empty where only the list of modules is meant.
    pub module: String,
    /// The path in the module.
    pub path: TreePath,
    /// A slash follows the path.
    pub slash: bool,
}

/// A directory or file of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Scheme, host and port: `https://host:8443`.
    pub base: String,
    /// Name or address.
    pub host: String,
    /// From the first slash on, %-encoded, as given.
    pub path: String,
}

/// A place to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `rsync://host[:port]/module/path` or `host::module/path`.
    Daemon(Daemon),
    /// `https://host/path`.
    Web(Web),
}

impl Origin {
    /// The origin that a source names; none where it is a reference, a path, or a host behind a remote shell. `port` is that of
    /// `--port`.
    ///
    /// # Errors
    /// One line: what is wrong with it.
    pub fn parse(word: &str, port: Option<u16>) -> Option<Result<Self, String>> {
        let refuse = |what: &str| format!("{}: {what}", escape(word.as_bytes()));
        let parsed = if let Some(rest) = word.strip_prefix("rsync://") {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            Daemon::parse(host, path, port).map(Self::Daemon)
        } else if word.starts_with("https://") || word.starts_with("http://") {
            Web::parse(word).map(Self::Web)
        } else {
            let (host, path) = word.split_once("::")?;
            if host.contains('/') || host.is_empty() && !path.starts_with('[') {
                return None;
            }
            Daemon::parse(host, path, port).map(Self::Daemon)
        };
        let fits = word.len() <= MAX_LENGTH && !word.bytes().any(|byte| byte.is_ascii_control());
        Some(if fits { parsed.map_err(refuse) } else { Err(refuse("no name of an origin")) })
    }

    /// What is remembered of this origin is kept under this name.
    pub fn key(&self) -> String {
        match self {
            Self::Daemon(daemon) if daemon.port == PORT => {
                format!("rsync://{}/{}", bracketed(&daemon.host), daemon.module)
            }
            Self::Daemon(daemon) => {
                format!("rsync://{}:{}/{}", bracketed(&daemon.host), daemon.port, daemon.module)
            }
            Self::Web(web) => format!("{}{}", web.base, web.path.trim_end_matches('/')),
        }
    }

    /// The whole address without a user, as everybody may read it.
    pub fn place(&self) -> String {
        match self {
            Self::Daemon(daemon) if !daemon.path.is_root() => {
                format!("{}/{}", self.key(), quoted(daemon.path.as_bytes()))
            }
            _ => self.key(),
        }
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        match self {
            Self::Daemon(daemon) => &daemon.host,
            Self::Web(web) => &web.host,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&escape(self.key().as_bytes()))
    }
}

impl Daemon {
    fn parse(host: &str, rest: &str, port: Option<u16>) -> Result<Self, &'static str> {
        // A user's name is the daemon's business, and goes to rsync alone.
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let (host, own) = split_port(host).ok_or("no host and port")?;
        let (module, path) = rest.split_once('/').unwrap_or((rest, ""));
        let slash = path.is_empty() || asks_for_content(path.as_bytes());
        let path = TreePath::plain(path.as_bytes()).map_err(|_| "an impossible path")?;
        let port = own.or(port).unwrap_or(PORT);
        Ok(Self { host: host.to_owned(), port, module: module.to_owned(), path, slash })
    }
}

/// What is in a directory, rather than the directory itself: rsync's trailing slash, and what amounts to it.
fn asks_for_content(path: &[u8]) -> bool {
    [b"/".as_slice(), b"/.", b"/.."].iter().any(|end| path.ends_with(end)) || matches!(path, b"." | b"..")
}

impl Web {
    fn parse(url: &str) -> Result<Self, &'static str> {
        let start = url.find("://").ok_or("no address")? + 3;
        let end = url[start..].find('/').map_or(url.len(), |at| start + at);
        let (base, path) = url.split_at(end);
        let authority = base[start..].rsplit_once('@').map_or(&base[start..], |(_, host)| host);
        let (host, _) = split_port(authority).ok_or("no host and port")?;
        let path = if path.is_empty() { "/" } else { path };
        if path.contains(['?', '#']) {
            return Err("a query or fragment names no tree");
        }
        Ok(Self { base: base.to_owned(), host: host.to_owned(), path: path.to_owned() })
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    (!host.is_empty()).then_some((host, port))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(word: &str) -> Daemon {
        match Origin::parse(word, None) {
            Some(Ok(Origin::Daemon(daemon))) => daemon,
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn daemons_are_named_in_two_ways() {
        for (word, key, path, slash) in [
            ("rsync://host/m", "rsync://host/m", "", true),
            ("rsync://host:8730/m/", "rsync://host:8730/m", "", true),
            ("rsync://me@host/m/a/b", "rsync://host/m", "a/b", false),
            ("rsync://[::1]:8730/m/a/", "rsync://[::1]:8730/m", "a", true),
            ("host::m/a b", "rsync://host/m", "a b", false),
            ("me@host::m", "rsync://host/m", "", true),
            ("rsync://host", "rsync://host/", "", true),
            ("rsync://host/m//a/./b/../c", "rsync://host/m", "a/c", false),
            ("rsync://host/m/../a/.", "rsync://host/m", "a", true),
        ] {
            let found = daemon(word);
            assert_eq!(found.path.to_string(), path, "{word}");
            assert_eq!(found.slash, slash, "{word}");
            assert_eq!(Origin::Daemon(found).key(), key, "{word}");
        }
        assert_eq!(Origin::parse("host::m", Some(99)).unwrap().unwrap().key(), "rsync://host:99/m");
    }

    #[test]
    fn web_addresses() {
        let Some(Ok(Origin::Web(web))) = Origin::parse("https://host:8443/a/b%20c/", None) else { panic!("no web") };
        assert_eq!(
            (web.base.as_str(), web.host.as_str(), web.path.as_str()),
            ("https://host:8443", "host", "/a/b%20c/")
        );
        assert!(Origin::parse("https://host/a?b", None).unwrap().is_err());
    }

    #[test]
    fn other_words_are_no_origins() {
        for word in ["murmir://k51/m", "/a::b", "dir/a::b", "host:/path", "name"] {
            assert!(Origin::parse(word, None).is_none(), "{word}");
        }
        for word in ["rsync:///m", "rsync://host:x/m", "rsync://[::1/m"] {
            assert!(Origin::parse(word, None).unwrap().is_err(), "{word}");
        }
    }
}
