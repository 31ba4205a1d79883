//! Ed25519 keys (RFC 8032), verified strictly: one signature has one encoding and small-order keys are refused.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use libp2p_identity::PeerId;

use super::id::PublisherId;

/// A private key: a publisher's root or head key, or a node's identity.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key of a 32-byte seed (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be kept in a file.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// 32 bytes that nobody without the key can foretell: the source of all that looks random in the pure machine.
    pub fn secret_number(&self, of: &[u8]) -> [u8; 32] {
        let key = blake3::derive_key("murmir secret number v1", &self.seed());
        *blake3::keyed_hash(&key, of).as_bytes()
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SecretKey(of {:?})", self.public())
    }
}

/// A public key that is a valid point and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// None for bytes that are no key, or a weak one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The publisher whose root key this is.
    pub fn publisher(&self) -> PublisherId {
        PublisherId::new(*self)
    }

    /// The libp2p node whose identity this is; none only if libp2p refuses the key.
    pub fn peer_id(&self) -> Option<PeerId> {
        let key = libp2p_identity::ed25519::PublicKey::try_from_bytes(self.as_bytes()).ok()?;
        Some(libp2p_identity::PublicKey::from(key).to_peer_id())
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PublicKey({})", self.publisher())
    }
}
