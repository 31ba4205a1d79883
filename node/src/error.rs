//! Failures as the user sees them: kind, message, hint, exit code. The one place where library errors become that.

use serde::{Deserialize, Serialize};

use crate::control::ControlError;
use crate::service::StartError;
use crate::store::state::StateError;
use crate::sync::SyncError;

/// Exit codes: rsync's own with the same meaning, and ours from 40 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// Wrong usage, or refused before anything was done.
    Usage = 1,
    /// Versions that do not fit together.
    Protocol = 2,
    /// Not supported, or not built yet.
    Unsupported = 4,
    /// Nobody answered.
    Nobody = 10,
    /// A local file operation failed.
    FileIo = 11,
    /// The protocol stream broke a rule.
    Stream = 12,
    /// Ended by a signal.
    Signal = 20,
    /// Out of memory or threads.
    Memory = 22,
    /// Some files are incomplete.
    Partial = 23,
    /// Content that no reachable source holds, or files that changed while publishing.
    Vanished = 24,
    /// A guard against deletion.
    MaxDelete = 25,
    /// Somebody answered, but had no acceptable head.
    NoHead = 40,
    /// A rollback or a fork.
    Rollback = 43,
    /// Verifying found damage.
    Damage = 44,
    /// Done, but stale.
    Stale = 45,
    /// Another run holds the lock.
    Locked = 46,
    /// Stopped by a limit.
    Limit = 47,
    /// Nothing changed, where that was asked for.
    Unchanged = 48,
}

/// One clear failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Exit code.
    pub code: Exit,
    /// A word for programs.
    pub kind: String,
    /// One line: the object and what is wrong.
    pub message: String,
    /// What the user may do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Exit, kind: &str, message: impl Into<String>) -> Self {
        Self { code, kind: kind.to_owned(), message: message.into(), hint: None }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn list(tried: &[String]) -> String {
    if tried.is_empty() {
        return "no way in was given: use --peer, ?peer= or --bootstrap".to_owned();
    }
    format!("tried: {}", tried.join("; "))
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let text = error.to_string();
        let plain = |code, kind| Self::new(code, kind, text.clone());
        match &error {
            SyncError::NobodyAnswered { tried, .. } => plain(Exit::Nobody, "nobody").hint(list(tried)),
            SyncError::NoHead { tried, .. } => plain(Exit::NoHead, "no-head").hint(list(tried)),
            SyncError::NoSource { tried, .. } => plain(Exit::Vanished, "no-source").hint(list(tried)),
            SyncError::Rollback { .. } => plain(Exit::Rollback, "rollback").hint("--allow-downgrade goes back on purpose"),
            SyncError::Forked { .. } => {
                plain(Exit::Rollback, "fork").hint("only a new epoch (murmir rotate) leads out of a fork")
            }
            SyncError::BadTree { unsupported: true, .. } => plain(Exit::Unsupported, "unsupported"),
            SyncError::BadTree { .. } => plain(Exit::Stream, "bad-tree"),
            SyncError::UnknownPath { .. } => plain(Exit::Partial, "unknown-path"),
            SyncError::NotOurs { .. } => plain(Exit::Usage, "not-ours").hint("--adopt makes it a replica all the same"),
            SyncError::BadDest { .. } => plain(Exit::Usage, "bad-dest"),
            SyncError::Guarded { .. } => {
                plain(Exit::MaxDelete, "guard").hint("--force-delete, --max-delete=N or --allow-shrink says that it is meant")
            }
            SyncError::MaxDelete { .. } => plain(Exit::MaxDelete, "max-delete"),
            SyncError::Limit { .. } => plain(Exit::Limit, "limit"),
            SyncError::NoKey { .. } => plain(Exit::Usage, "no-key").hint("murmir keygen NAME makes one"),
            SyncError::NoHistory { .. } => plain(Exit::Usage, "no-history")
                .hint("--first if there is no earlier generation, --seq N to continue after N-1, or --peer to ask somebody"),
            SyncError::Unreadable { vanished: true, .. } => plain(Exit::Vanished, "vanished"),
            SyncError::Unreadable { .. } => plain(Exit::Partial, "unreadable").hint("--ignore-errors publishes without them"),
            SyncError::Locked { .. } => plain(Exit::Locked, "locked"),
            SyncError::State(StateError::Newer { .. }) => plain(Exit::Protocol, "state-version"),
            SyncError::State(StateError::KeyExists { .. }) => plain(Exit::Usage, "key-exists"),
            SyncError::Worker { .. } => plain(Exit::Memory, "worker"),
            SyncError::Record(_) | SyncError::Tree(_) => plain(Exit::Usage, "record"),
            SyncError::BadState { .. }
            | SyncError::File(_)
            | SyncError::Stage(_)
            | SyncError::State(_)
            | SyncError::Index(_) => plain(Exit::FileIo, "file"),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        SyncError::from(error).into()
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Sync(error) => error.into(),
            StartError::Running { .. } => Self::new(Exit::Locked, "locked", error.to_string()),
            StartError::Net(_) => Self::new(Exit::Nobody, "listen", error.to_string()),
            StartError::Random { .. } => Self::new(Exit::FileIo, "random", error.to_string()),
            StartError::Control(error) => error.into(),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Version { .. } => {
                Self::new(Exit::Protocol, "control-version", error.to_string()).hint("restart the node")
            }
            ControlError::Io { .. } | ControlError::Closed => Self::new(Exit::FileIo, "control", error.to_string()),
        }
    }
}
