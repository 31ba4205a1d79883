//! The lab: machines with homes of their own, nodes as child processes, trees to publish, ways to compare them.

mod compare;
mod daemon;
mod dns;
mod lab;
mod peer;
mod process;
mod proxy;
mod random;
mod servers;
mod tree;
mod web;

use std::time::{Duration, Instant};

pub use compare::{Fact, assert_same, facts};
pub use daemon::{Daemon, connect_proxy, free_port, speaker};
pub use dns::name_server;
pub use lab::{Args, Lab, Machine, Published, receiver};
pub use peer::{loopback, serve};
pub use process::{Node, Run, Running};
pub use proxy::Proxy;
pub use random::{Random, cases, first_seed};
pub use servers::Server;
pub use tree::{Tree, noise};
pub use web::{Manner, Web};

/// How long anything may take before a test gives up. No test depends on how fast things are.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `condition` gives something.
///
/// # Panics
/// At the deadline.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        std::thread::sleep(LOOK);
    }
}

/// How much larger than usual the trees are (`MURMIR_TEST_SCALE`, set by `.ci/sweep`).
pub fn scale() -> usize {
    std::env::var("MURMIR_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
