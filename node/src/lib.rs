//! murmir: rsync's agility with a swarm behind it.
//!
//! Left may use right: cli -> control, verbs, gateway -> service, attach -> sync -> web -> wire -> store -> delta, manifest -> `tracker_less`.

pub mod attach;
pub mod cli;
pub mod config;
pub mod control;
pub mod delta;
pub mod error;
pub mod gateway;
pub mod manifest;
pub mod options;
pub mod reference;
pub mod service;
pub mod store;
pub mod sync;
pub mod ui;
pub mod verbs;
pub mod web;
pub mod wire;
