//! Who has what, with no tracker.
//!
//! A publisher signs generations of a named thing ([`record`]); nodes say what they hold ([`nominate`], [`book`]); everybody
//! keeps the newest verified head ([`heads`]); nodes that the publisher names try what is claimed and sign rosters of what
//! passed ([`tracker`]), which everybody keeps and tells on ([`rosters`]). These decisions compose into one pure [`machine`]:
//! events and the time go in, a judgement and actions come out. Only the `net` folder knows libp2p's swarm, a clock or a socket:
//! without the feature of that name this crate does no I/O at all, and any transport can drive it.
//!
//! Nothing here vouches for bytes: the head names a root by its hash, and what is fetched is checked against that. What the root
//! is of does not matter: a tree of files, a list of words, a map.
//!
//! ```
//! use tracker_less::machine::{Action, Event, Limits, Machine, Verified};
//! use tracker_less::record::{Charter, CheckedBundle, Coverage, Head, ModuleId, SecretKey, cid_of};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A publisher signs the first generation of a list of words. In earnest seeds are random, and kept in files.
//! let (publisher, words) = (SecretKey::from_seed([1; 32]), b"aardvark abacus abandon");
//! let name = "words".parse()?;
//! let module = ModuleId::new(&publisher.public().publisher(), &name);
//! let charter = Charter {
//!     epoch: 0,
//!     heads: vec![publisher.public()],
//!     fresh: Vec::new(),
//!     trackers: Vec::new(),
//!     fresh_for: 14 * 24 * 3600,
//!     nomination_for: 24 * 3600,
//!     accepted: Vec::new(),
//!     successor: None,
//! };
//! let head = Head { module, epoch: 0, seq: 1, previous: None, root: cid_of(words), entries: 1, bytes: 23, created: 0 };
//! let bundle = CheckedBundle::sign(&publisher, &publisher, &name, &charter, head, None)?;
//!
//! // One node holds it, and says so; another watches for it. Each has a key of its own, and the time is told to it.
//! let (now, key) = (1_700_000_000, SecretKey::from_seed([2; 32]));
//! let holder_id = key.public().peer_id().ok_or("a key of libp2p's")?;
//! let mut holder = Machine::new(key, Limits::default());
//! let mut seeker = Machine::new(SecretKey::from_seed([3; 32]), Limits::default());
//! seeker.handle(Event::Watch { module }, now);
//! let (_, actions) = holder.handle(Event::Hold { bundle, coverage: Coverage::WHOLE, http: Vec::new() }, now);
//!
//! // Whatever carries messages carries these: each is verified before anything is done with it.
//! for action in actions {
//!     if let Action::Gossip { payload, .. } = action {
//!         let record = Verified::of_gossip(&payload)?;
//!         seeker.handle(Event::Verified { record, from: holder_id }, now);
//!     }
//! }
//!
//! // It knows the newest head, and who has it; what it then fetches is right or it is not.
//! let newest = seeker.newest(&module).ok_or("nothing heard")?;
//! assert_eq!(seeker.mirrors(&module, now)[0].peer(), holder_id);
//! assert_eq!(cid_of(words), *newest.root());
//! # Ok(())
//! # }
//! ```
//!
//! `examples/words.rs` does the same with two real nodes.

pub mod book;
pub mod heads;
pub mod machine;
#[cfg(feature = "net")]
pub mod net;
pub mod network;
pub mod nominate;
pub mod record;
pub mod rosters;
#[cfg(test)]
mod sim;
pub mod tracker;
