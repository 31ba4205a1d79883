//! Prints the mirrors of a module as they come and go: `cargo run --example watch_mirrors -- STATE REFERENCE [PEER]...`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use murmir::reference::Reference;
use murmir::service::{Service, Settings};
use murmir::sync::source::Finder;

/// How often the mirror book is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(state), Some(reference)) = (words.next(), words.next()) else {
        return Err("usage: watch_mirrors STATE REFERENCE [PEER]...".into());
    };
    let reference = Reference::parse(&reference)?;
    let settings = Settings {
        state: PathBuf::from(state),
        listen: vec!["/ip4/0.0.0.0/tcp/0".parse()?],
        peers: words.map(|word| word.parse()).collect::<Result<_, _>>()?,
        dht: true,
        ..Settings::default()
    };
    let service = Service::start(settings).await?;
    let node = Arc::clone(&service.node);
    // It follows the module's topic, and asks whoever it finds.
    let hints = service.hints_with(&reference.peers);
    let _finder = Finder::start(Arc::clone(&node), reference.module.clone(), hints);
    let mut known = BTreeMap::new();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        let mirrors = node.swarm.mirrors(reference.module.id).await;
        let now: BTreeMap<_, _> = mirrors.iter().map(|one| (one.peer(), one.nomination().generation())).collect();
        for (peer, generation) in now.iter().filter(|(peer, held)| known.get(*peer) != Some(*held)) {
            println!("+ {peer} {generation}");
        }
        for peer in known.keys().filter(|peer| !now.contains_key(*peer)) {
            println!("- {peer}");
        }
        known = now;
    }
    service.stop().await;
    Ok(())
}
