//! What is said over the control socket: one JSON line each.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Failure;
pub use crate::verbs::{Event, Verb};

/// Raised with every change of these messages: the two ends must be of one version.
pub const VERSION: u32 = 2;

/// What the node answers: events in any number, then one of the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// Something on the way: progress, a line, a warning.
    Event(Event),
    /// The end: what the verb prints or ends with.
    Done(Value),
    /// The end: it failed.
    Failed(Failure),
}
