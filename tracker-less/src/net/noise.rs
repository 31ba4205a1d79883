//! Who is at the other end, and the keys of what follows: the Noise protocol (revision 34), pattern XX, done by snow.
//!
//! libp2p's own noise is fixed to ChaCha20-Poly1305, which was a third of the processor time of a download (docs/DESIGN.md).
//! This is the same handshake with AES-256-GCM, which processors compute themselves: each side proves by a signature that the
//! Noise key belongs to its node key.

use std::{future::Future, io, iter, pin::Pin};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::{Keypair, PublicKey, ed25519},
};
use snow::HandshakeState;

use super::{cipher::Cipher, sealed::Sealed};

/// Name of the protocol, and prologue of the handshake.
const PROTOCOL: &str = "/murmir/noise/1";
/// The primitives, as Noise names them.
const PARAMETERS: &str = "Noise_XX_25519_AESGCM_SHA256";
/// What a node key signs comes after this.
const DOMAIN: &[u8] = b"murmir noise static key v1";
/// A node's public key and its signature of the Noise key.
const PROOF: usize = 32 + 64;
/// Longest handshake message: two keys, two tags, a proof, and room.
const MAX_HANDSHAKE: usize = 256;

/// The upgrade that makes a secure channel of a connection.
#[derive(Clone)]
pub(super) struct Upgrade {
    key: Keypair,
}

impl Upgrade {
    /// The channel of the node with this key.
    pub(super) fn new(key: Keypair) -> Self {
        Self { key }
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

/// A handshake under way.
type Shaking<C> = Pin<Box<dyn Future<Output = io::Result<(PeerId, Sealed<C>)>> + Send>>;

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Upgrade {
    type Output = (PeerId, Sealed<C>);
    type Error = io::Error;
    type Future = Shaking<C>;

    fn upgrade_inbound(self, connection: C, _: Self::Info) -> Self::Future {
        Box::pin(respond(connection, self.key))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = (PeerId, Sealed<C>);
    type Error = io::Error;
    type Future = Shaking<C>;

    fn upgrade_outbound(self, connection: C, _: Self::Info) -> Self::Future {
        Box::pin(initiate(connection, self.key))
    }
}

async fn initiate<C: AsyncRead + AsyncWrite + Unpin>(mut stream: C, key: Keypair) -> io::Result<(PeerId, Sealed<C>)> {
    let (mut state, proof) = begin(&key, true)?;
    send(&mut stream, &mut state, &[]).await?;
    let theirs = receive(&mut stream, &mut state).await?;
    send(&mut stream, &mut state, &proof).await?;
    finish(stream, state, &theirs)
}

async fn respond<C: AsyncRead + AsyncWrite + Unpin>(mut stream: C, key: Keypair) -> io::Result<(PeerId, Sealed<C>)> {
    let (mut state, proof) = begin(&key, false)?;
    receive(&mut stream, &mut state).await?;
    send(&mut stream, &mut state, &proof).await?;
    let theirs = receive(&mut stream, &mut state).await?;
    finish(stream, state, &theirs)
}

/// A handshake with a Noise key of its own, and the proof that this key is ours.
fn begin(key: &Keypair, initiates: bool) -> io::Result<(HandshakeState, Vec<u8>)> {
    let builder = snow::Builder::new(PARAMETERS.parse().map_err(wrong)?);
    let pair = builder.generate_keypair().map_err(wrong)?;
    let builder = builder.prologue(PROTOCOL.as_bytes()).and_then(|builder| builder.local_private_key(&pair.private));
    let builder = builder.map_err(wrong)?;
    let state = if initiates { builder.build_initiator() } else { builder.build_responder() };
    let public = key.public().try_into_ed25519().map_err(wrong)?.to_bytes();
    let signature = key.sign(&[DOMAIN, &pair.public].concat()).map_err(wrong)?;
    Ok((state.map_err(wrong)?, [&public[..], &signature].concat()))
}

/// The peer that `proof` names, if it signed the Noise key that this handshake was made with.
fn finish<C>(stream: C, mut state: HandshakeState, proof: &[u8]) -> io::Result<(PeerId, Sealed<C>)> {
    let unproven = || io::Error::new(io::ErrorKind::InvalidData, "the peer does not prove who it is");
    let (public, signature) = proof.split_at_checked(32).filter(|_| proof.len() == PROOF).ok_or_else(unproven)?;
    let public = PublicKey::from(ed25519::PublicKey::try_from_bytes(public).map_err(wrong)?);
    let noise_key = state.get_remote_static().ok_or_else(unproven)?;
    if !public.verify(&[DOMAIN, noise_key].concat(), signature) {
        return Err(unproven());
    }
    // The first key is that of the messages of whoever began (section 5.2, Split).
    let (there, back) = state.dangerously_get_raw_split();
    let (opens, seals) = if state.is_initiator() { (back, there) } else { (there, back) };
    Ok((public.to_peer_id(), Sealed::new(stream, Cipher::new(&opens)?, Cipher::new(&seals)?)))
}

/// Sends one handshake message, its length (u16 BE) in front.
async fn send<C: AsyncWrite + Unpin>(stream: &mut C, state: &mut HandshakeState, payload: &[u8]) -> io::Result<()> {
    let mut message = [0; 2 + MAX_HANDSHAKE];
    let length = state.write_message(payload, &mut message[2..]).map_err(wrong)?;
    message[..2].copy_from_slice(&u16::try_from(length).map_err(wrong)?.to_be_bytes());
    stream.write_all(&message[..2 + length]).await?;
    stream.flush().await
}

/// Receives one, and returns its payload.
async fn receive<C: AsyncRead + Unpin>(stream: &mut C, state: &mut HandshakeState) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_HANDSHAKE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake message over the size cap"));
    }
    let (mut message, mut payload) = (vec![0; length], vec![0; MAX_HANDSHAKE]);
    stream.read_exact(&mut message).await?;
    let length = state.read_message(&message, &mut payload).map_err(wrong)?;
    payload.truncate(length);
    Ok(payload)
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, future::join};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    fn pipe() -> (impl AsyncRead + AsyncWrite + Unpin, impl AsyncRead + AsyncWrite + Unpin) {
        let (near, far) = tokio::io::duplex(1 << 16);
        (near.compat(), far.compat())
    }

    #[test]
    fn both_sides_learn_who_the_other_is() {
        let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (near, far) = pipe();
        let (near, far) = block_on(join(initiate(near, one.clone()), respond(far, two.clone())));
        assert_eq!(near.unwrap().0, two.public().to_peer_id());
        assert_eq!(far.unwrap().0, one.public().to_peer_id());
    }

    #[test]
    fn a_proof_of_another_noise_key_is_none() {
        let (own, (near, mut far)) = (Keypair::generate_ed25519(), pipe());
        let cheat = async {
            // The proof was heard in another handshake.
            let (_, proof) = begin(&own, false).unwrap();
            let (mut state, _) = begin(&own, false).unwrap();
            receive(&mut far, &mut state).await.unwrap();
            send(&mut far, &mut state, &proof).await.unwrap();
        };
        let (shaken, ()) = block_on(join(initiate(near, Keypair::generate_ed25519()), cheat));
        assert_eq!(shaken.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        for noise in [&[0, 3, 1, 2, 3][..], &[0xff, 0xff, 0, 0], &[0, 0], &[1, 0]] {
            let (near, mut far) = pipe();
            let other = async move { far.write_all(noise).await.unwrap() };
            let (shaken, ()) = block_on(join(respond(near, Keypair::generate_ed25519()), other));
            assert!(shaken.is_err(), "{noise:?}");
        }
    }
}
