//! Web seeds: plain HTTP servers of the same tree. They know nothing of it; every byte is checked here, by the hashes that peers or
//! the publisher's static export tell.

pub mod client;
pub mod copy;
mod listing;
mod seed;
pub mod status;

pub use seed::{Paths, WebSeed};
