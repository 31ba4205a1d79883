//! Failures as the user sees them: an exit code, one line, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gateway::rsyncd::GatewayError;
use crate::service::StartError;
use crate::store::state::StateError;
use crate::sync::SyncError;
use crate::web::copy::CopyError;

/// How a run ends. Up to 35 the numbers and meanings are rsync's (rsync(1), EXIT VALUES), from 40 on our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The command line or the configuration makes no sense.
    Usage = 1,
    /// The other side, or the state, speaks another version.
    Protocol = 2,
    /// The selection of files cannot be used.
    Selection = 3,
    /// Asked for something that is not there (yet).
    Unsupported = 4,
    /// The origin refused, or something could not be started.
    Start = 5,
    /// Nobody answered.
    Nobody = 10,
    /// rsync could not write its log.
    Log = 6,
    /// A local file operation failed.
    Files = 11,
    /// A peer broke the byte protocol, or a tree its format.
    Stream = 12,
    /// rsync failed in its diagnostics.
    Diagnostics = 13,
    /// rsync's processes lost each other.
    Ipc = 14,
    /// rsync was told to end.
    Ended = 19,
    /// Ended by a signal.
    Signal = 20,
    /// rsync failed to wait for a process of its own.
    Wait = 21,
    /// Out of memory.
    Memory = 22,
    /// Some files could not be brought or read.
    Partial = 23,
    /// Content that no reachable source holds, or files that changed or vanished while publishing.
    Missing = 24,
    /// A guard against deletion stopped the run.
    Guarded = 25,
    /// Silence for too long.
    Timeout = 30,
    /// No connection within `--contimeout`.
    ConnectTimeout = 35,
    /// Somebody answered, but nobody with an acceptable head.
    NoHead = 40,
    /// A publisher that nothing is known of, and nobody to ask.
    Unknown = 41,
    /// Not the pinned key, or a bad signature.
    KeyChanged = 42,
    /// Older than what is placed, or a fork.
    Rollback = 43,
    /// Damage was found and not healed.
    Damaged = 44,
    /// Done, but not fresh.
    Stale = 45,
    /// Another run holds the lock.
    Locked = 46,
    /// A limit of the user stopped the run.
    Limit = 47,
    /// Nothing changed (only where this was asked for).
    Unchanged = 48,
}

/// All exits with the names that `--json` gives them.
const KINDS: [(Exit, &str); 30] = [
    (Exit::Ok, "ok"),
    (Exit::Usage, "usage"),
    (Exit::Protocol, "protocol"),
    (Exit::Selection, "selection"),
    (Exit::Unsupported, "unsupported"),
    (Exit::Start, "start"),
    (Exit::Nobody, "nobody"),
    (Exit::Log, "log"),
    (Exit::Files, "files"),
    (Exit::Diagnostics, "diagnostics"),
    (Exit::Ipc, "ipc"),
    (Exit::Ended, "ended"),
    (Exit::Wait, "wait"),
    (Exit::Stream, "stream"),
    (Exit::Signal, "signal"),
    (Exit::Memory, "memory"),
    (Exit::Partial, "partial"),
    (Exit::Missing, "missing"),
    (Exit::Guarded, "guarded"),
    (Exit::Timeout, "timeout"),
    (Exit::ConnectTimeout, "connect-timeout"),
    (Exit::NoHead, "no-head"),
    (Exit::Unknown, "unknown-publisher"),
    (Exit::KeyChanged, "key-changed"),
    (Exit::Rollback, "rollback"),
    (Exit::Damaged, "damaged"),
    (Exit::Stale, "stale"),
    (Exit::Locked, "locked"),
    (Exit::Limit, "limit"),
    (Exit::Unchanged, "unchanged"),
];

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name of the kind of failure, for programs.
    pub fn kind(self) -> &'static str {
        KINDS.iter().find(|(exit, _)| *exit == self).map_or("", |(_, kind)| kind)
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.code()
    }
}

impl TryFrom<u8> for Exit {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        let known = KINDS.iter().find(|(exit, _)| exit.code() == code);
        known.map(|(exit, _)| *exit).ok_or_else(|| format!("no exit code {code}"))
    }
}

/// Why a run ends: what the last line on stderr says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code; its kind follows from it.
    pub code: Exit,
    /// One line. Names from disk and network in it are escaped.
    pub message: String,
    /// What the user may do, in any number of lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Exit, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (code {})", self.message, self.code.code())
    }
}

impl std::error::Error for Failure {}

fn list(tried: &[String]) -> String {
    if tried.is_empty() {
        return "no way in was given: use --peer, ?peer= or --bootstrap".to_owned();
    }
    format!("tried: {}", tried.join("; "))
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let text = error.to_string();
        let plain = |code| Self::new(code, &text);
        match &error {
            SyncError::NobodyAnswered { tried, .. } => plain(Exit::Nobody).hint(list(tried)),
            SyncError::NoHead { tried, .. } => plain(Exit::NoHead).hint(list(tried)),
            // Somebody was found: only what failed is worth a word.
            SyncError::NoSource { tried, .. } if tried.is_empty() => plain(Exit::Missing),
            SyncError::NoSource { tried, .. } => plain(Exit::Missing).hint(list(tried)),
            SyncError::Rollback { .. } => plain(Exit::Rollback).hint("--allow-downgrade goes back on purpose"),
            SyncError::Forked { .. } => {
                plain(Exit::Rollback).hint("only a new epoch (murmir rotate) leads out of a fork")
            }
            SyncError::BadTree { unsupported: true, .. } => plain(Exit::Unsupported),
            SyncError::BadTree { .. } => plain(Exit::Stream),
            SyncError::UnknownPath { .. } => plain(Exit::Partial),
            SyncError::NotOurs { .. } => plain(Exit::Usage).hint("--adopt makes it a replica all the same"),
            SyncError::BadDest { .. } => plain(Exit::Usage),
            SyncError::Guarded { unless, .. } => plain(Exit::Guarded).hint(format!("{unless} says that it is meant")),
            SyncError::MaxDelete { .. } => plain(Exit::Guarded),
            SyncError::Limit { .. } => plain(Exit::Limit),
            SyncError::ConnectTimeout { .. } => plain(Exit::ConnectTimeout),
            SyncError::Silent { .. } => plain(Exit::Timeout),
            SyncError::NoKey { .. } => plain(Exit::Usage).hint("murmir keygen NAME makes one"),
            SyncError::NotASigner { .. } => plain(Exit::Usage).hint("murmir rotate makes a new one, by the root key"),
            SyncError::NoRoot { .. } => {
                plain(Exit::Usage).hint("--root FILE, or murmir sign on the machine that has it")
            }
            SyncError::NoHistory { .. } => plain(Exit::Usage).hint(
                "--first if there is no earlier generation, --seq N to continue after N-1, or --peer to ask somebody",
            ),
            SyncError::TreeChanged { .. } => plain(Exit::Missing).hint("make and sign another request"),
            SyncError::Unreadable { vanished: true, .. } => plain(Exit::Missing),
            SyncError::Unreadable { .. } => plain(Exit::Partial).hint("--ignore-errors publishes without them"),
            SyncError::Locked { .. } => plain(Exit::Locked),
            SyncError::State(StateError::Newer { .. }) => plain(Exit::Protocol),
            SyncError::State(StateError::KeyExists { .. }) => plain(Exit::Usage),
            SyncError::Worker { .. } => plain(Exit::Memory),
            SyncError::Record(_) | SyncError::Tree(_) => plain(Exit::Usage),
            SyncError::BadState { .. }
            | SyncError::Web { .. }
            | SyncError::File(_)
            | SyncError::Stage(_)
            | SyncError::State(_)
            | SyncError::Index(_) => plain(Exit::Files),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        SyncError::from(error).into()
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::NoRsync { .. } => Self::new(Exit::Start, error).hint("install rsync"),
            GatewayError::Listen { .. } => Self::new(Exit::Nobody, error),
        }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Web { .. } => Self::new(Exit::Nobody, error).hint("nothing was deleted or published"),
            CopyError::NoListing { .. } => Self::new(Exit::Start, error),
            CopyError::TooMuch { .. } => Self::new(Exit::Limit, error),
            CopyError::Shrunk { .. } => Self::new(Exit::Guarded, error).hint("--allow-shrink says that it is meant"),
            CopyError::File(error) => SyncError::from(error).into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Sync(error) => error.into(),
            StartError::Running { .. } => Self::new(Exit::Locked, error),
            StartError::Net(_) => Self::new(Exit::Nobody, error),
            StartError::Random { .. } => Self::new(Exit::Files, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_kinds_are_distinct_and_survive_json() {
        for (at, (exit, kind)) in KINDS.iter().enumerate() {
            assert!(KINDS[..at].iter().all(|(other, word)| other != exit && word != kind), "{kind} twice");
            assert_eq!(Exit::try_from(exit.code()), Ok(*exit));
            assert_eq!(exit.kind(), *kind);
        }
        let failure = Failure::new(Exit::Stale, "old").hint("wait");
        let json = serde_json::to_string(&failure).unwrap();
        assert_eq!(json, r#"{"code":45,"message":"old","hint":"wait"}"#);
        assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
        assert!(serde_json::from_str::<Failure>(r#"{"code":99,"message":""}"#).is_err());
    }
}
