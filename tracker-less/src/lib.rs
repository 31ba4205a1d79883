//! Who has what, with no tracker.
//!
//! A publisher signs generations of a named tree ([`record`]); nodes say what they hold ([`nominate`], [`book`]); everybody
//! keeps the newest verified head ([`heads`]). These decisions compose into one pure [`machine`]: events and the time go in,
//! actions come out. Only the `net` folder knows libp2p's swarm, a clock or a socket.

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
