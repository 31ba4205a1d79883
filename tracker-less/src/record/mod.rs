//! Signed records: canonical dag-cbor in an envelope of payload, key and signature. docs/FORMAT.md has the layouts.
//!
//! A record exists as a checked value only through verification: whoever holds a [`CheckedBundle`] or a
//! [`CheckedNomination`] need not ask again.

pub mod bundle;
pub mod charter;
pub mod envelope;
#[cfg(test)]
pub mod fixtures;
pub mod fresh;
pub mod head;
pub mod id;
pub mod key;
pub mod nomination;
pub mod roster;
#[cfg(test)]
mod tests;

pub use bundle::CheckedBundle;
pub use charter::{Accepted, Charter};
pub use envelope::{Envelope, Hash32, RecordError, cid_of};
pub use fresh::Fresh;
pub use head::Head;
pub use id::{Generation, IdError, ModuleId, ModuleName, PublisherId};
pub use key::{PublicKey, SecretKey};
pub use nomination::{CheckedNomination, Coverage, Nomination};
pub use roster::{CheckedRoster, Listed, Roster, RosterList};
