//! A seeded simulator over the pure machine: many nodes, a network that delays, loses and parts, clocks that are wrong, and
//! those who lie. Scenarios are data; what they must show is asserted, and the figures are printed.
//!
//! `cargo test -p tracker-less --lib sim:: -- --nocapture` runs few seeds with 200 nodes. The sweep sets `MURMIR_SIM_SEEDS` and
//! `MURMIR_SIM_NODES`.

mod network;
mod node;
mod random;
mod scenario;
mod tests;
mod world;
