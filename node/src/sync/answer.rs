//! What everybody said who was asked for a module: for `resolve -v`.

use tracker_less::record::CheckedBundle;

use super::source::Offer;

/// By which way an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A node, on a stream of its own.
    Hello,
    /// A value of the DHT.
    Dht,
    /// A static export on a web server.
    Web,
    /// What this machine remembers.
    Cache,
}

impl Way {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Dht => "dht",
            Self::Web => "web",
            Self::Cache => "cache",
        }
    }
}

/// How a node was found that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The user named it.
    Given,
    /// It was met in an earlier run.
    Remembered,
    /// It was connected.
    Connected,
    /// It, or another, says that it holds the module.
    Nominated,
    /// The DHT has it as a provider.
    Provider,
}

impl Found {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Remembered => "remembered",
            Self::Connected => "connected",
            Self::Nominated => "nominated",
            Self::Provider => "dht",
        }
    }
}

/// What somebody said who was asked.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Peer id, address, or URL.
    pub who: String,
    /// Which way.
    pub way: Way,
    /// How it was found.
    pub found: Option<Found>,
    /// The newest head that it showed, verified.
    pub head: Option<CheckedBundle>,
    /// What it holds.
    pub holds: Vec<Offer>,
    /// Why it gave no answer.
    pub error: Option<String>,
}

impl Answer {
    /// Nothing yet.
    pub fn from(who: &str, way: Way) -> Self {
        Self { who: who.to_owned(), way, found: None, head: None, holds: Vec::new(), error: None }
    }
}
