//! The promises of the command line, kept from outside: the built binary, real directories, real sockets on loopback.
//! One file per theme; `util` is the lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests on 64-bit Linux that tell why they failed"
)]

mod attach;
mod chatter;
mod classic;
mod crash;
mod damage;
mod delta;
mod differed;
mod faults;
mod fetch;
mod filters;
mod generations;
mod guards;
mod habits;
mod hostile;
mod input;
mod keeping;
mod keys;
mod liars;
mod limits;
mod lockfile;
mod locks;
mod manual;
mod mirrors;
mod nominate;
mod output;
mod partial;
mod publish;
mod quic;
mod rsync;
mod sources;
mod swarm;
mod switches;
mod tidy;
mod truth;
mod unchanged;
mod upkeep;
mod util;
mod volunteer;
mod ways;
mod web;
