//! murmir: rsync's agility with a swarm behind it.
//!
//! Left may use right: cli -> service, control -> sync -> wire -> store -> manifest -> `tracker_less`.




pub mod manifest;


pub mod store;
pub mod sync;
pub mod wire;
