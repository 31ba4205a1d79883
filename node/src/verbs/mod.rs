//! What the verbs do on a node, whether it runs in this process or answers on the control socket. The requests are plain
//! values, so that they can cross the socket.

pub mod compare;
mod figures;
pub mod format;
mod glob;
pub mod inspect;
mod itemize;
pub mod keys;
pub mod levels;
pub mod list;
mod mirrors;
pub mod nominate;
pub mod pass;
pub mod progress;
pub mod publish;
pub mod resolve;
pub mod seed;
pub mod show;
pub mod transfers;
pub mod upkeep;
pub mod verify;
pub mod watch;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::Failure;
use crate::service::Service;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Verb {
    /// Publish a directory.
    Publish(publish::Publish),
    /// Fetch or mirror.
    Pass(Box<pass::Pass>),
    /// Check a destination against what was placed there.
    Verify(verify::Verify),
    /// List a module or a directory in it.
    Ls(list::Ls),
    /// List what matches in a module.
    Find(list::Find),
    /// What differs between two trees.
    Diff(compare::Compare),
    /// Generations within reach.
    Log(inspect::Target),
    /// Write one file to stdout.
    Cat(inspect::Target),
    /// The newest head that can be found.
    Resolve(resolve::Resolve),
    /// Who says that it holds a module.
    Mirrors(inspect::Target),
    /// End a registration.
    Forget(upkeep::Forget),
    /// Take back a publication or nomination.
    Withdraw(upkeep::Forget),
    /// Hold what is published here under bundles that were signed elsewhere.
    Take(keys::Take),
    /// The node's identity and addresses.
    Id,
    /// What the node holds.
    Status(upkeep::Status),
    /// Whom the node is connected to.
    Peers,
    /// What the node brings and serves now.
    Transfers,
    /// Lines that lead others here.
    Motd(inspect::Motd),
    /// This node's own word on a module.
    OwnNomination(inspect::Target),
    /// A mirror's word that came by a stock rsync daemon.
    TakeNomination(nominate::HandedIn),
}

impl Verb {
    /// The reference that the verb is about, as the user wrote it.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Pass(pass) => Some(&pass.reference),
            Self::Ls(ls) => Some(&ls.reference),
            Self::Find(find) => Some(&find.reference),
            Self::Motd(motd) => motd.reference.as_deref(),
            Self::Resolve(wish) => Some(&wish.reference),
            Self::Cat(target) | Self::Mirrors(target) | Self::Log(target) => Some(&target.reference),
            _ => None,
        }
    }

    /// The same verb about what an origin's name leads to.
    pub fn set_reference(&mut self, reference: String) {
        match self {
            Self::Pass(pass) => pass.reference = reference,
            Self::Ls(ls) => ls.reference = reference,
            Self::Find(find) => find.reference = reference,
            Self::Resolve(wish) => wish.reference = reference,
            Self::Cat(target) | Self::Mirrors(target) | Self::Log(target) => target.reference = reference,
            _ => {}
        }
    }
}

/// What a verb says while it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A line for people, on stdout.
    Line(String),
    /// A row for programs, on stdout with `--json`.
    Row(Value),
    /// A line on stderr.
    Note(String),
    /// A line for the log file.
    Log(String),
    /// Bytes of a file, on stdout.
    Raw(Vec<u8>),
    /// How far a download is.
    Progress {
        /// Bytes that arrived.
        done: u64,
        /// Bytes to fetch.
        total: u64,
    },
}

/// Where a verb says it. Bounded: a slow reader slows the verb.
#[derive(Debug, Clone)]
pub struct Output(mpsc::Sender<Event>);

/// Events on their way to the reader.
const QUEUE: usize = 256;

impl Output {
    /// An output and its reader.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(QUEUE);
        (Self(sender), events)
    }

    /// Says something; a reader that went away is no failure.
    pub async fn say(&self, event: Event) {
        let _ = self.0.send(event).await;
    }

    /// A line for people.
    pub async fn line(&self, line: impl Into<String>) {
        self.say(Event::Line(line.into())).await;
    }

    /// A line on stderr.
    pub async fn note(&self, line: impl Into<String>) {
        self.say(Event::Note(line.into())).await;
    }
}

/// Does one thing. The value is what `--json` prints at the end.
///
/// # Errors
/// One clear [`Failure`].
pub async fn perform(service: &Service, verb: Verb, out: &Output) -> Result<Value, Failure> {
    match verb {
        Verb::Publish(request) => publish::publish(service, request, out).await,
        Verb::Pass(request) => pass::pass(service, *request, out).await,
        Verb::Verify(request) => verify::verify(service, request, out).await,
        Verb::Ls(request) => list::ls(service, request, out).await,
        Verb::Find(request) => list::find(service, request, out).await,
        Verb::Diff(request) => compare::diff(service, request, out).await,
        Verb::Log(request) => compare::log(service, &request, out).await,
        Verb::Cat(request) => inspect::cat(service, &request, out).await,
        Verb::Resolve(request) => resolve::resolve(service, &request, out).await,
        Verb::Mirrors(request) => mirrors::mirrors(service, &request, out).await,
        Verb::Forget(request) => upkeep::forget(service, &request).await,
        Verb::Withdraw(request) => upkeep::withdraw(service, &request).await,
        Verb::Take(request) => keys::take(service, &request, out).await,
        Verb::Id => upkeep::id(service, out).await,
        Verb::Status(request) => upkeep::status(service, &request, out).await,
        Verb::Peers => upkeep::peers(service, out).await,
        Verb::Transfers => transfers::transfers(service, out).await,
        Verb::Motd(request) => inspect::motd(service, &request, out).await,
        Verb::OwnNomination(request) => nominate::own(service, &request, out).await,
        Verb::TakeNomination(request) => nominate::take(service, request).await,
    }
}
