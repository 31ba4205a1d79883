//! The libp2p swarm behind a handle.

pub mod address;
pub mod behaviour;
pub mod run;
pub mod store;
pub mod streams;
