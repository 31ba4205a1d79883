//! A payload that is not files, with `tracker_less` alone: one node announces a list of words, another finds it by its module,
//! fetches it over a protocol of its own, and checks it against the signature.
//!
//! `cargo run --example words`
#![allow(clippy::print_stdout, reason = "an example is a program")]

use std::error::Error;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::StreamProtocol;
use tracker_less::machine::Event;
use tracker_less::net::{self, DhtMode};
use tracker_less::nominate::Profile;
use tracker_less::record::{Charter, CheckedBundle, Coverage, Head, ModuleId, SecretKey, cid_of};

const WORDS: &[u8] = b"aardvark abacus abandon";
/// Nothing longer is read from a stranger, bytes.
const LONGEST: u64 = 1 << 20;

/// The signed head of the first generation: its root is the CID of the words.
fn signed() -> Result<CheckedBundle, Box<dyn Error>> {
    // In earnest a seed is random, and kept in a file.
    let publisher = SecretKey::from_seed([1; 32]);
    let name = "words".parse()?;
    let charter = Charter {
        epoch: 0,
        heads: vec![publisher.public()],
        fresh: Vec::new(),
        trackers: Vec::new(),
        fresh_for: 14 * 24 * 3600,
        nomination_for: 24 * 3600,
        accepted: Vec::new(),
        successor: None,
    };
    let head = Head {
        module: ModuleId::new(&publisher.public().publisher(), &name),
        epoch: 0,
        seq: 1,
        previous: None,
        root: cid_of(WORDS),
        entries: 1,
        bytes: u64::try_from(WORDS.len())?,
        created: 0,
    };
    Ok(CheckedBundle::sign(&publisher, &publisher, &name, &charter, head, None)?)
}

fn config(seed: u8, peers: Vec<libp2p::Multiaddr>) -> Result<net::Config, Box<dyn Error>> {
    Ok(net::Config {
        key: SecretKey::from_seed([seed; 32]),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        external: Vec::new(),
        profile: Profile::default(),
        peers,
        cached: Vec::new(),
        narrow: false,
        dht: DhtMode::Off,
        gossip: true,
        mdns: false,
        names: None,
        bulk: StreamProtocol::new("/words/1"),
        records: net::Saved::default(),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bundle = signed()?;
    let module = bundle.module();

    // Who has it says so, and gives it to whoever opens a stream.
    let (holder, _events, mut incoming) = net::start(config(2, Vec::new())?).await?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.recv().await {
            let _ = stream.write_all(WORDS).await;
            let _ = stream.close().await;
        }
    });
    holder.tell(Event::Hold { bundle, coverage: Coverage::WHOLE, http: Vec::new() }).await;
    let address = holder.listen_addresses().await.into_iter().next().ok_or("no address")?;

    // Who wants it knows one node and the module's id, and nothing else.
    let (seeker, mut events, _incoming) = net::start(config(3, vec![address])?).await?;
    seeker.tell(Event::Watch { module }).await;
    let (head, mirror) = loop {
        // Something was heard: perhaps it was the head, or who holds it.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), events.recv()).await;
        if let (Some(head), Some(mirror)) =
            (seeker.newest(module).await, seeker.mirrors(module).await.into_iter().next())
        {
            break (head, mirror.peer());
        }
    };
    let mut words = Vec::new();
    seeker.open(mirror).await?.take(LONGEST).read_to_end(&mut words).await?;
    if cid_of(&words) != *head.root() {
        return Err("other bytes than were signed".into());
    }
    println!("{} from {mirror}: {}", head.generation(), String::from_utf8_lossy(&words));
    Ok(())
}
