//! What must survive: keys, marks, registrations. Plain files, each written whole and fsynced; what can be rebuilt is
//! in the index instead.
//!
//! ```text
//! version   node.key   keys/NAME.{key,head}   peers   bootstrap   records   origins.toml   dests/HASH.{toml,bundle}
//! modules/PUBLISHER/MODULE.{toml,seen,rosters,placed,held,fork-a,fork-b,damaged}
//! ```
//!
//! `NAME.key` is a publisher's root key. It signs heads too, until `rotate` makes `NAME.head` (the root's public key, then the
//! seed of the key that signs heads); from then on it is needed for the next `rotate` alone, and may be kept elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod durable;
mod module;
#[cfg(test)]
mod tests;

pub use module::{Module, Placed, Registration, Role};

use crate::store::files::{Dir, FileError, Kind, escape};

/// Version of this layout; a higher one is refused, a lower one does not exist yet.
const VERSION: u32 = 1;
/// Bound of every file read here, in bytes.
const MAX_FILE: usize = 4 << 20;
/// Bounds of the peer cache: addresses, and bytes of one.
const MAX_PEERS: usize = 256;
const MAX_ADDRESS: usize = 512;
/// Nodes that are remembered because the user gave them as ways in.
const MAX_BOOTSTRAP: usize = 64;
/// Bound of what is kept for the DHT, in bytes.
const MAX_RECORDS: usize = tracker_less::net::MAX_SAVED;
/// Length of an Ed25519 seed.
const SEED: usize = 32;

/// State that cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Made by a newer murmir (exit 2).
    #[error("{path} was made by a newer murmir (version {found}, this one knows {VERSION})")]
    Newer {
        /// The state directory.
        path: String,
        /// Its version.
        found: u32,
    },
    /// A key of that name exists: it is never replaced.
    #[error("key {name} exists already")]
    KeyExists {
        /// The key's name.
        name: String,
    },
    /// A file that this program did not write like that.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A value that no file can hold, such as one that TOML has no form for.
    #[error("{name} cannot be written: {source}")]
    Unwritable {
        /// The file.
        name: String,
        /// Why.
        source: toml::ser::Error,
    },
    /// The disk's answer.
    #[error(transparent)]
    File(#[from] FileError),
}

impl StateError {
    fn damaged(dir: &Dir, name: &str, what: impl Display) -> Self {
        let path = escape(dir.path().join(name).as_os_str().as_bytes());
        Self::Damaged { path, what: what.to_string() }
    }
}

/// The last fetch into a directory that is not registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The reference as given.
    pub reference: String,
    /// CID of the root node.
    pub root: String,
    /// Nothing foreign stood there before, or the user said that it may go.
    #[serde(default)]
    pub ours: bool,
}

/// The key that signs heads in the root key's stead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeadKey {
    /// The publisher's root key, its public half.
    pub root: [u8; SEED],
    /// The head key.
    pub seed: [u8; SEED],
}

/// The state directory. Any number of runs may have it open: every write replaces one file whole.
#[derive(Clone, Debug)]
pub struct State {
    dir: Dir,
    keys: Dir,
    modules: Dir,
    dests: Dir,
}

impl State {
    /// Where the state is when nobody says: `/var/lib/murmir` for root, else `$XDG_STATE_HOME/murmir`, by default
    /// `~/.local/state/murmir` (XDG base directories: relative values are ignored). `None` without a home.
    pub fn default_dir(uid: u32, env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        if uid == 0 {
            return Some(PathBuf::from("/var/lib/murmir"));
        }
        let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
        Some(base.join("murmir"))
    }

    /// Opens the state at `path`, making it (0700, missing parents too) where there is none.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| FileError::new("make directory", path, e))?;
        let dir = Dir::open(path)?;
        check_version(&dir)?;
        let below = |name: &str| dir.child_or_make(name);
        let state = Self { keys: below("keys")?, modules: below("modules")?, dests: below("dests")?, dir };
        state.dir.sync()?;
        for dir in [&state.dir, &state.keys, &state.modules, &state.dests] {
            durable::sweep(dir)?;
        }
        for publisher in state.publishers()? {
            durable::sweep(&state.modules.child(&publisher)?)?;
        }
        Ok(state)
    }

    /// The directory, for the socket, the locks and the index in it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The seed of the publisher key `name`.
    pub fn key(&self, name: &str) -> Result<Option<[u8; SEED]>, StateError> {
        read_seed(&self.keys, &format!("{name}.key"))
    }

    /// Keeps a new publisher key; never replaces one.
    pub fn add_key(&self, name: &str, seed: &[u8; SEED]) -> Result<(), StateError> {
        add_seed(&self.keys, &format!("{name}.key"), name, seed)
    }

    /// The head key `name`, where one was made.
    pub fn head_key(&self, name: &str) -> Result<Option<HeadKey>, StateError> {
        let file = format!("{name}.head");
        let Some(content) = durable::read(&self.keys, &file, 2 * SEED)? else { return Ok(None) };
        let halves = content.split_at_checked(SEED);
        let halves = halves.and_then(|(root, seed)| Some((root.try_into().ok()?, seed.try_into().ok()?)));
        let wrong = || StateError::damaged(&self.keys, &file, format_args!("not {} bytes", 2 * SEED));
        halves.map(|(root, seed)| Some(HeadKey { root, seed })).ok_or_else(wrong)
    }

    /// Keeps a new head key in the place of the former one: what that one signed stands, it signs no more.
    pub fn set_head_key(&self, name: &str, root: &[u8; SEED], seed: &[u8; SEED]) -> Result<(), StateError> {
        durable::write(&self.keys, &format!("{name}.head"), &[root.as_slice(), seed.as_slice()].concat())
    }

    /// Names of the publisher keys, sorted; also of those whose root key is elsewhere.
    pub fn key_names(&self) -> Result<Vec<String>, StateError> {
        let mut all = names(&self.keys, ".key")?;
        all.extend(names(&self.keys, ".head")?);
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Names of the modules of a publisher of which a head was ever seen, sorted.
    pub fn modules_seen(&self, publisher: &str) -> Result<Vec<String>, StateError> {
        if self.knows_publisher(publisher)? { names(&self.modules.child(publisher)?, ".seen") } else { Ok(Vec::new()) }
    }

    /// The seed of the node's identity.
    pub fn node_key(&self) -> Result<Option<[u8; SEED]>, StateError> {
        read_seed(&self.dir, "node.key")
    }

    /// Keeps a new node identity; never replaces one.
    pub fn add_node_key(&self, seed: &[u8; SEED]) -> Result<(), StateError> {
        add_seed(&self.dir, "node.key", "node", seed)
    }

    /// The files of one module, by the texts of its publisher id and name; nothing need exist yet.
    pub fn module(&self, publisher: &str, module: &str) -> Result<Module, StateError> {
        let dir = match self.modules.child(publisher) {
            Err(error) if error.is_missing() => {
                let made = self.modules.child_or_make(publisher)?;
                self.modules.sync()?;
                made
            }
            opened => opened?,
        };
        Ok(Module { dir, name: module.to_owned() })
    }

    /// Publisher and name of all registered modules, sorted.
    pub fn registered(&self) -> Result<Vec<(String, String)>, StateError> {
        let mut found = Vec::new();
        for publisher in self.publishers()? {
            let modules = names(&self.modules.child(&publisher)?, ".toml")?;
            found.extend(modules.into_iter().map(|module| (publisher.clone(), module)));
        }
        Ok(found)
    }

    /// Whether anything of this publisher was ever kept here.
    pub fn knows_publisher(&self, publisher: &str) -> Result<bool, StateError> {
        match self.modules.child(publisher) {
            Err(error) if error.is_missing() => Ok(false),
            opened => Ok(opened.map(|_| true)?),
        }
    }

    /// What was last fetched into `dest` (absolute).
    pub fn fetched(&self, dest: &Path) -> Result<Option<Fetched>, StateError> {
        let [record, _] = dest_files(dest);
        module::read_toml(&self.dests, &record)
    }

    /// The bundle that the last fetch into `dest` (absolute) came with.
    pub fn fetched_bundle(&self, dest: &Path) -> Result<Option<Vec<u8>>, StateError> {
        let [_, bundle] = dest_files(dest);
        durable::read(&self.dests, &bundle, MAX_FILE)
    }

    /// The bundles of all last fetches.
    pub fn fetched_bundles(&self) -> Result<Vec<Vec<u8>>, StateError> {
        let read = |name: &String| durable::read(&self.dests, &format!("{name}.bundle"), MAX_FILE).transpose();
        names(&self.dests, ".bundle")?.iter().filter_map(read).collect()
    }

    /// Remembers what was fetched into `dest` (absolute).
    pub fn set_fetched(&self, dest: &Path, fetched: &Fetched, bundle: Option<&[u8]>) -> Result<(), StateError> {
        let [record, file] = dest_files(dest);
        // An old bundle beside a new record would vouch for another tree.
        durable::remove(&self.dests, &file)?;
        module::write_toml(&self.dests, &record, fetched)?;
        bundle.map_or(Ok(()), |bundle| durable::write(&self.dests, &file, bundle))
    }

    /// The references that origins are pinned to, by name of the origin.
    pub fn origins(&self) -> Result<BTreeMap<String, String>, StateError> {
        Ok(module::read_toml(&self.dir, "origins.toml")?.unwrap_or_default())
    }

    /// Pins an origin to a reference, or forgets it.
    pub fn set_origin(&self, name: &str, reference: Option<&str>) -> Result<(), StateError> {
        let mut origins = self.origins()?;
        match reference {
            Some(reference) => origins.insert(name.to_owned(), reference.to_owned()),
            None => origins.remove(name),
        };
        module::write_toml(&self.dir, "origins.toml", &origins)
    }

    /// Addresses of peers met before, the latest first.
    pub fn peers(&self) -> Result<Vec<String>, StateError> {
        self.addresses("peers")
    }

    /// Puts these before the peers met earlier; 256 of reasonable length are kept.
    pub fn add_peers(&self, addresses: &[String]) -> Result<(), StateError> {
        self.add_addresses("peers", addresses, MAX_PEERS)
    }

    /// Addresses that the user gave as ways in, the latest first.
    pub fn bootstrap(&self) -> Result<Vec<String>, StateError> {
        self.addresses("bootstrap")
    }

    /// Remembers ways in; the latest 64 are kept.
    pub fn add_bootstrap(&self, addresses: &[String]) -> Result<(), StateError> {
        self.add_addresses("bootstrap", addresses, MAX_BOOTSTRAP)
    }

    /// Where others were found in earlier runs, ways in of the user's first. What cannot be read is as good as none.
    pub fn ways_in(&self) -> Vec<String> {
        let read = |addresses: Result<Vec<String>, StateError>| {
            addresses.unwrap_or_else(|error| {
                tracing::warn!(%error, "ways in of earlier runs");
                Vec::new()
            })
        };
        let mut all = read(self.bootstrap());
        all.extend(read(self.peers()));
        all
    }

    fn addresses(&self, file: &str) -> Result<Vec<String>, StateError> {
        let content = durable::read(&self.dir, file, MAX_PEERS * (MAX_ADDRESS + 1))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).lines().map(str::to_owned).collect())
    }

    fn add_addresses(&self, file: &str, addresses: &[String], most: usize) -> Result<(), StateError> {
        let (mut seen, known) = (HashSet::new(), self.addresses(file)?);
        let fit = addresses.iter().chain(&known).filter(|one| one.len() <= MAX_ADDRESS && !one.contains('\n'));
        let kept: Vec<&String> = fit.filter(|one| seen.insert(*one)).take(most).collect();
        if kept.iter().copied().eq(&known) {
            return Ok(());
        }
        let text: String = kept.into_iter().flat_map(|address| [address, "\n"]).collect();
        durable::write(&self.dir, file, text.as_bytes())
    }

    /// What an earlier run kept for the DHT, as it was written.
    pub fn records(&self) -> Result<Option<Vec<u8>>, StateError> {
        durable::read(&self.dir, "records", MAX_RECORDS)
    }

    /// Replaces what is kept for the DHT.
    pub fn set_records(&self, bytes: &[u8]) -> Result<(), StateError> {
        durable::write(&self.dir, "records", bytes)
    }

    /// The publishers of whom anything was ever kept here, sorted.
    pub fn publishers(&self) -> Result<Vec<String>, StateError> {
        let dirs = self.modules.entries()?.into_iter().filter(|(_, kind)| *kind == Kind::Dir);
        let mut names: Vec<String> = dirs.filter_map(|(name, _)| String::from_utf8(name).ok()).collect();
        names.sort();
        Ok(names)
    }
}

fn check_version(dir: &Dir) -> Result<(), StateError> {
    let Some(content) = durable::read(dir, "version", MAX_FILE)? else {
        return durable::write(dir, "version", format!("{VERSION}\n").as_bytes());
    };
    let found = str::from_utf8(&content).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match found {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => {
            Err(StateError::Newer { path: escape(dir.path().as_os_str().as_bytes()), found })
        }
        _ => Err(StateError::damaged(dir, "version", "not a version number")),
    }
}

fn read_seed(dir: &Dir, file: &str) -> Result<Option<[u8; SEED]>, StateError> {
    let Some(content) = durable::read(dir, file, SEED)? else { return Ok(None) };
    content.try_into().map(Some).map_err(|_| StateError::damaged(dir, file, format_args!("not {SEED} bytes")))
}

fn add_seed(dir: &Dir, file: &str, name: &str, seed: &[u8; SEED]) -> Result<(), StateError> {
    match durable::create(dir, file, seed) {
        Err(StateError::File(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(StateError::KeyExists { name: name.to_owned() })
        }
        done => done,
    }
}

/// Names in `dir` that end in `suffix`, without it, sorted.
fn names(dir: &Dir, suffix: &str) -> Result<Vec<String>, StateError> {
    let all = dir.entries()?.into_iter().filter_map(|(name, _)| String::from_utf8(name).ok());
    let mut names: Vec<String> = all.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

fn dest_files(dest: &Path) -> [String; 2] {
    let hash = blake3::hash(dest.as_os_str().as_bytes()).to_hex();
    [format!("{hash}.toml"), format!("{hash}.bundle")]
}
