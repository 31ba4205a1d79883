//! Dials under way, and who waits for them.

use std::{collections::HashMap, error::Error, io};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, DialError as SwarmDialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::oneshot;

use super::{DialError, address::peer_of, run::Run};

/// Addresses being dialled, and peers being waited for.
const MAX_DIALS: usize = 256;
/// Who may wait for one of them.
const MAX_WAITING: usize = 64;

/// Where the end of a dial is told.
pub(super) type DialReply = oneshot::Sender<Result<PeerId, DialError>>;

/// All dials that somebody asked for.
#[derive(Debug, Default)]
pub(super) struct Dials {
    /// Of one address.
    addresses: HashMap<ConnectionId, (Multiaddr, Vec<DialReply>)>,
    /// Of a peer, wherever it is.
    peers: HashMap<PeerId, Vec<DialReply>>,
}

impl Dials {
    /// A connection stands.
    pub(super) fn succeeded(&mut self, id: ConnectionId, peer: PeerId) {
        let dialled = self.addresses.remove(&id).map(|(_, replies)| replies);
        let replies = dialled.into_iter().chain(self.peers.remove(&peer)).flatten();
        for reply in replies {
            let _ = reply.send(Ok(peer));
        }
    }

    /// A dial led nowhere.
    pub(super) fn failed(&mut self, id: ConnectionId, peer: Option<PeerId>, error: &SwarmDialError) {
        if let Some((address, replies)) = self.addresses.remove(&id) {
            let failure = failure(address, error);
            tracing::debug!(error = %failure, "not connected");
            for reply in replies {
                let _ = reply.send(Err(failure.clone()));
            }
        }
        let Some(peer) = peer else { return };
        for reply in self.peers.remove(&peer).into_iter().flatten() {
            let _ = reply.send(Err(unreachable(peer, error)));
        }
    }

    /// Drops what nobody waits for any more.
    pub(super) fn forget_abandoned(&mut self) {
        self.peers.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
    }

    /// Waits for the dial of `address` that is already under way; gives the reply back if there is none.
    fn join(&mut self, address: &Multiaddr, reply: Option<DialReply>) -> Result<(), Option<DialReply>> {
        match self.addresses.values_mut().find(|(dialled, _)| dialled == address) {
            Some((_, replies)) if replies.len() < MAX_WAITING => {
                replies.extend(reply);
                Ok(())
            }
            _ => Err(reply),
        }
    }
}

impl Run {
    /// Dials an address that the user, their configuration or their own network gave.
    pub(super) fn dial(&mut self, address: Multiaddr, reply: Option<DialReply>) {
        self.gate.obey(&address);
        let there = self.connected.at(&address);
        if let Some(peer) = peer_of(&address).filter(|peer| self.swarm.is_connected(peer)).or(there) {
            answer(reply, Ok(peer));
            return;
        }
        let Err(reply) = self.dials.join(&address, reply) else { return };
        let options = match peer_of(&address) {
            Some(peer) => {
                DialOpts::peer_id(peer).addresses(vec![address.clone()]).condition(PeerCondition::Always).build()
            }
            None => DialOpts::unknown_peer_id().address(address.clone()).build(),
        };
        let id = options.connection_id();
        if self.dials.addresses.len() >= MAX_DIALS {
            answer(reply, Err(DialError::Failed { address, reason: "too many dials at once".to_owned() }));
        } else if let Err(error) = self.swarm.dial(options) {
            answer(reply, Err(failure(address, &error)));
        } else {
            self.dials.addresses.insert(id, (address, reply.into_iter().collect()));
        }
    }

    /// Connects to a peer wherever it is known to be, besides `addresses`.
    pub(super) fn connect(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: DialReply) {
        for address in addresses {
            self.book.add(peer, address);
        }
        if self.swarm.is_connected(&peer) {
            answer(Some(reply), Ok(peer));
            return;
        }
        match self.swarm.dial(self.book.dial(peer)) {
            // Either this dial or one that is already under way will tell.
            Ok(()) | Err(SwarmDialError::DialPeerConditionFalse(_)) => {
                let waiting = self.dials.peers.len();
                let replies = self.dials.peers.entry(peer).or_default();
                if waiting < MAX_DIALS && replies.len() < MAX_WAITING {
                    replies.push(reply);
                } else {
                    let reason = "too many dials at once".to_owned();
                    answer(Some(reply), Err(DialError::Unreachable { peer, reason }));
                }
            }
            Err(error) => answer(Some(reply), Err(unreachable(peer, &error))),
        }
    }
}

fn answer(reply: Option<DialReply>, result: Result<PeerId, DialError>) {
    if let Some(reply) = reply {
        let _ = reply.send(result);
    } else if let Err(error) = result {
        tracing::debug!(%error, "not connected");
    }
}

/// What a failed dial of one address is to the user.
fn failure(address: Multiaddr, error: &SwarmDialError) -> DialError {
    match error {
        SwarmDialError::WrongPeerId { obtained, .. } => DialError::WrongPeer { address, obtained: *obtained },
        SwarmDialError::Transport(tried) => {
            if !tried.is_empty() && tried.iter().all(|(_, error)| is_hang_up(root_cause(error))) {
                return DialError::HungUp { address };
            }
            let reasons: Vec<String> = tried.iter().map(|(_, error)| in_one_line(error)).collect();
            DialError::Failed { address, reason: reasons.join("; ") }
        }
        other => DialError::Failed { address, reason: other.to_string() },
    }
}

/// What a failed dial of a peer is to the user: each address with its reason.
fn unreachable(peer: PeerId, error: &SwarmDialError) -> DialError {
    let reason = match error {
        SwarmDialError::Transport(tried) => {
            let reasons: Vec<String> =
                tried.iter().map(|(address, error)| format!("{address}: {}", in_one_line(error))).collect();
            reasons.join("; ")
        }
        other => other.to_string(),
    };
    DialError::Unreachable { peer, reason }
}

/// The innermost error, which is what the system or the peer said.
fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner
}

/// What it said, of several lines (one a resolved address) the last.
fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let text = root_cause(error).to_string();
    text.lines().last().unwrap_or_default().trim_start_matches([' ', '-']).to_owned()
}

/// Whether a connection was made, and closed by the other side.
fn is_hang_up(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}
