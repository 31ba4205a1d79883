//! Nominations by way of a stock rsync daemon: a mirror's own word, and what strangers hand in at the origin.

use std::net::IpAddr;

use cid::multibase::{Base, encode};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::machine::{Event as MachineEvent, Judgement};
use tracker_less::net::believable;
use tracker_less::record::{CheckedNomination, Coverage, Nomination};

use super::inspect::Target;
use super::pass::reference;
use super::{Event, Output};
use crate::error::{Exit, Failure};
use crate::service::Service;
use crate::sync::unix_now;

/// How far ahead of ours a mirror's clock may be, seconds.
const CLOCK_SLACK: u64 = 600;

/// What a daemon's client handed in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandedIn {
    /// Unchecked.
    pub record: Vec<u8>,
    /// The client, by the daemon's word; those without an address share one.
    pub client: Option<IpAddr>,
    /// The daemon's module.
    pub module: Option<String>,
}

/// What this node says of a module it holds, on stdout as it travels.
///
/// # Errors
/// The module is not held here.
pub async fn own(service: &Service, wish: &Target, out: &Output) -> Result<Value, Failure> {
    let module = reference(&wish.reference)?.module;
    let (own, known) = (service.node.swarm.peer_id(), service.node.swarm.mirrors(module.id).await);
    let word = known.iter().find(|word| word.peer() == own && word.nomination().coverage != Coverage::NONE);
    let word = word.filter(|_| service.serves());
    let word = word.ok_or_else(|| Failure::new(Exit::Nobody, format!("no running node here holds {module}")))?;
    out.say(Event::Raw(word.bytes().to_vec())).await;
    Ok(json!({ "nomination": encode(Base::Base64Pad, word.bytes()) }))
}

/// Takes a mirror into the list, if its word is sound and its client has not come too often.
///
/// # Errors
/// One line: why not.
pub async fn take(service: &Service, wish: HandedIn) -> Result<Value, Failure> {
    let (now, client) = (unix_now(), wish.client.unwrap_or(IpAddr::from([0; 4])));
    if !service.admits(client, now) {
        return Err(Failure::new(Exit::Limit, format!("too many nominations from {client} and around it")));
    }
    let checked =
        CheckedNomination::verify(&wish.record).map_err(|error| Failure::new(Exit::KeyChanged, error.to_string()))?;
    let holding = service.node.shelf.holding(&checked.nomination().module);
    let name = holding.map(|holding| holding.bundle.name().to_string());
    if name.is_none() || wish.module.is_some_and(|module| name != Some(module)) {
        return Err(Failure::new(Exit::NoHead, "a nomination for another module"));
    }
    check(checked.nomination(), &Multiaddr::from(client), now).map_err(Failure::usage)?;
    let peer = checked.peer();
    match service.node.swarm.tell(MachineEvent::Nomination { bytes: wish.record, from: peer }).await {
        Judgement::Accept => Ok(json!({ "peer_id": peer.to_string() })),
        Judgement::Ignore => Err(Failure::new(Exit::Unchanged, "known already, or its network has enough mirrors")),
        Judgement::Reject => Err(Failure::new(Exit::KeyChanged, "no sound nomination")),
    }
}

/// Times, and addresses that a client there may speak of.
fn check(said: &Nomination, client: &Multiaddr, now: u64) -> Result<(), &'static str> {
    if said.issued > now.saturating_add(CLOCK_SLACK) {
        return Err("a nomination from the future: check the clock");
    }
    if said.until <= now {
        return Err("an expired nomination");
    }
    let is_reached = said.addresses.iter().any(|address| believable(Some(client), address));
    if is_reached || !said.http.is_empty() || said.coverage == Coverage::NONE {
        Ok(())
    } else {
        Err("a mirror that nobody can reach")
    }
}

#[cfg(test)]
mod tests {
    use tracker_less::record::{ModuleId, SecretKey};

    use super::*;

    #[test]
    fn times_and_addresses_count() {
        let publisher = SecretKey::from_seed([1; 32]).public().publisher();
        let root = "bafyr4icv5ougepzgucos3ya2yl4giuupm6zphnp6iutsszwofaqn6qwhzq".parse().unwrap();
        let address = |text: &str| vec![text.parse().unwrap()];
        let good = Nomination {
            module: ModuleId::new(&publisher, &"m".parse().unwrap()),
            epoch: 0,
            seq: 1,
            root,
            coverage: Coverage::WHOLE,
            addresses: address("/ip4/192.0.2.1/tcp/4741"),
            http: Vec::new(),
            rsync: Vec::new(),
            region: String::new(),
            contact: String::new(),
            issued: 1000,
            until: 2000,
        };
        let client: Multiaddr = "/ip4/198.51.100.9".parse().unwrap();
        let verdict = |said: &Nomination, now| check(said, &client, now).is_ok();
        assert!(verdict(&good, 1000) && verdict(&good, 1000 - CLOCK_SLACK));
        assert!(!verdict(&good, 999 - CLOCK_SLACK) && !verdict(&good, 2000));
        let near = Nomination { addresses: address("/ip4/10.0.0.1/tcp/4741"), ..good.clone() };
        assert!(!verdict(&near, 1000), "a stranger far away speaks of a neighbour of ours");
        assert!(check(&near, &"/ip4/10.9.9.9".parse().unwrap(), 1000).is_ok());
        assert!(!verdict(&Nomination { addresses: Vec::new(), ..good.clone() }, 1000));
        assert!(verdict(&Nomination { addresses: Vec::new(), coverage: Coverage::NONE, ..good }, 1000));
    }
}
