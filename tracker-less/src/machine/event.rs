//! What the machine takes in and gives out.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::book::Outcome;
use crate::heads::Fork;
use crate::record::{CheckedBundle, CheckedNomination, CheckedRoster, Coverage, ModuleId, RecordError, RosterList};
use crate::tracker::Probe;

/// First byte of a gossip message that carries a bundle.
pub const BUNDLE: u8 = 0;
/// First byte of a gossip message that carries a nomination.
pub const NOMINATION: u8 = 1;
/// First byte of a gossip message that carries a roster.
pub const ROSTER: u8 = 2;

/// Bounds of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Modules watched or held.
    pub modules: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { modules: 1024 }
    }
}

/// What happened.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and most carry a bundle")]
pub enum Event {
    /// Somebody here wants to hear of a module.
    Watch {
        /// The module.
        module: ModuleId,
    },
    /// Nobody here wants to hear of it any more.
    Unwatch {
        /// The module.
        module: ModuleId,
    },
    /// This node holds a generation, whole or in part. Replaces what it held of that module.
    Hold {
        /// The head of the generation.
        bundle: CheckedBundle,
        /// How much of it.
        coverage: Coverage,
        /// Web addresses where the same tree stands.
        http: Vec<String>,
    },
    /// The same for the time of one run, a part that grows: others are told, the DHT is not. Whoever holds a generation lastingly
    /// goes on doing so.
    Passing {
        /// The head of the generation.
        bundle: CheckedBundle,
        /// How much of it is here.
        coverage: Coverage,
    },
    /// This node holds nothing of a module any more.
    Release {
        /// The module.
        module: ModuleId,
    },
    /// A bundle from anywhere.
    Bundle {
        /// Unchecked.
        bytes: Vec<u8>,
    },
    /// A nomination from anywhere.
    Nomination {
        /// Unchecked.
        bytes: Vec<u8>,
        /// Who passed it on.
        from: PeerId,
    },
    /// A roster from anywhere, its list as well where that is here.
    Roster {
        /// Unchecked.
        bytes: Vec<u8>,
        /// Unchecked.
        list: Option<Vec<u8>>,
    },
    /// A record that was verified before.
    Verified {
        /// Which.
        record: Verified,
        /// Who passed it on.
        from: PeerId,
    },
    /// How a mirror did when this node had bytes from it, or tried to.
    Measured {
        /// The module.
        module: ModuleId,
        /// The mirror.
        peer: PeerId,
        /// How it did.
        outcome: Outcome,
    },
    /// What came of [`Action::Probe`].
    Probed {
        /// The module.
        module: ModuleId,
        /// The mirror.
        peer: PeerId,
        /// How it did.
        outcome: Outcome,
    },
    /// Where this node is reached has changed.
    Addresses(Vec<Multiaddr>),
    /// A connection to a node.
    Connected {
        /// Which.
        peer: PeerId,
    },
    /// Time went by.
    Tick,
}

/// A record as it exists after verification.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and most are bundles")]
pub enum Verified {
    /// A head with all that belongs to it.
    Bundle(CheckedBundle),
    /// A mirror's own word.
    Nomination(CheckedNomination),
    /// A tracker's word, its list as well where that is here.
    Roster(CheckedRoster, Option<RosterList>),
}

impl Verified {
    /// Verifies a gossip message: a tag byte, and the record.
    ///
    /// # Errors
    /// An unknown tag counts as malformed; else whatever is wrong with the record.
    pub fn of_gossip(message: &[u8]) -> Result<Self, RecordError> {
        match message.split_first() {
            Some((&BUNDLE, bytes)) => CheckedBundle::verify(bytes).map(Self::Bundle),
            Some((&NOMINATION, bytes)) => CheckedNomination::verify(bytes).map(Self::Nomination),
            Some((&ROSTER, bytes)) => CheckedRoster::verify(bytes).map(|roster| Self::Roster(roster, None)),
            _ => Err(RecordError::Malformed { what: "message" }),
        }
    }

    /// The module that it is about.
    pub fn module(&self) -> ModuleId {
        match self {
            Self::Bundle(bundle) => bundle.module(),
            Self::Nomination(nomination) => nomination.nomination().module,
            Self::Roster(roster, _) => roster.roster().module,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Join the module's gossip topic.
    Subscribe(ModuleId),
    /// Leave it.
    Unsubscribe(ModuleId),
    /// Tell the topic.
    Gossip {
        /// The module.
        module: ModuleId,
        /// Tag byte and record.
        payload: Vec<u8>,
    },
    /// Announce this node as a provider in the DHT.
    Provide(ModuleId),
    /// Do so no longer.
    StopProviding(ModuleId),
    /// Put a bundle into the DHT.
    PutBundle(CheckedBundle),
    /// The newest head changed, or got a later Fresh record.
    Head {
        /// The newest.
        bundle: CheckedBundle,
        /// A higher generation, not only fresher.
        newer: bool,
    },
    /// Two heads contradict each other.
    Forked {
        /// The module.
        module: ModuleId,
        /// The proof.
        fork: Box<Fork>,
    },
    /// A mirror and where it is reached.
    Learned {
        /// The module.
        module: ModuleId,
        /// The mirror.
        peer: PeerId,
        /// Its addresses, by its own word.
        addresses: Vec<Multiaddr>,
    },
    /// Fetch random proven ranges of a mirror, and tell what came of it ([`Event::Probed`]).
    Probe(Probe),
    /// Ask others for the list of a roster, and tell it with the roster ([`Event::Roster`]).
    WantList {
        /// The roster whose list is lacking.
        roster: CheckedRoster,
    },
    /// The rosters of a module changed: keep these, in the place of those kept before, and pass them on.
    KeepRosters {
        /// The module.
        module: ModuleId,
        /// Complete ones, the latest first.
        rosters: Vec<(CheckedRoster, RosterList)>,
    },
}

/// What to do with the message an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Valid news: pass it on.
    Accept,
    /// Valid but old, or of no interest: do not pass it on.
    Ignore,
    /// Invalid: blame the sender.
    Reject,
}
