//! One direction of a channel after the handshake: Noise's `CipherState` (revision 34, section 5.1) with AES-256-GCM, computed
//! by ring where the bytes stand.

use std::io;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// What sealing adds, in bytes.
pub(super) const TAG: usize = 16;
/// Messages under one key: 16 GiB at most, far below what wears out AES-GCM (RFC 8446, section 5.5).
pub(super) const MESSAGES_PER_KEY: u64 = 1 << 18;

/// A key and the number of the next message under it.
pub(super) struct Cipher {
    key: LessSafeKey,
    next: u64,
}

impl Cipher {
    /// Begins with message 0 under `key`.
    pub(super) fn new(key: &[u8; 32]) -> io::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| broken())?;
        Ok(Self { key: LessSafeKey::new(key), next: 0 })
    }

    /// Seals the next message, whose last [`TAG`] bytes are room for the tag.
    pub(super) fn seal(&mut self, message: &mut [u8]) -> io::Result<()> {
        let length = message.len().checked_sub(TAG).ok_or_else(broken)?;
        let (plain, room) = message.split_at_mut(length);
        let tag = self.key.seal_in_place_separate_tag(nonce(self.next), Aad::empty(), plain).map_err(|_| broken())?;
        room.copy_from_slice(tag.as_ref());
        self.advance()
    }

    /// Opens the next message; its plain text stands in front then, and its length is returned.
    pub(super) fn open(&mut self, message: &mut [u8]) -> io::Result<usize> {
        let plain = self.key.open_in_place(nonce(self.next), Aad::empty(), message).map_err(|_| broken())?;
        let length = plain.len();
        self.advance()?;
        Ok(length)
    }

    /// On to the next message, and to the next key where it is time (section 11.3; REKEY of section 4.2).
    fn advance(&mut self) -> io::Result<()> {
        self.next += 1;
        if self.next.is_multiple_of(MESSAGES_PER_KEY) {
            let mut key = [0; 32];
            let sealed = self.key.seal_in_place_separate_tag(nonce(u64::MAX), Aad::empty(), &mut key);
            let _tag = sealed.map_err(|_| broken())?;
            self.key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(|_| broken())?);
        }
        Ok(())
    }
}

/// 32 zero bits and the number, big-endian (section 12.4).
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a message of this channel")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What snow, which made the handshake, would do with the same keys.
    #[test]
    fn messages_are_those_of_noise() {
        let parameters = || "Noise_NN_25519_AESGCM_SHA256".parse().unwrap();
        let mut one = snow::Builder::new(parameters()).build_initiator().unwrap();
        let mut two = snow::Builder::new(parameters()).build_responder().unwrap();
        let (mut message, mut payload) = ([0; 256], [0; 256]);
        let length = one.write_message(&[], &mut message).unwrap();
        two.read_message(&message[..length], &mut payload).unwrap();
        let length = two.write_message(&[], &mut message).unwrap();
        one.read_message(&message[..length], &mut payload).unwrap();
        let (there, back) = one.dangerously_get_raw_split();
        let (mut seals, mut opens) = (Cipher::new(&there).unwrap(), Cipher::new(&back).unwrap());
        let mut snow = two.into_transport_mode().unwrap();
        for number in 0..MESSAGES_PER_KEY + 2 {
            let plain = number.to_le_bytes();
            let mut sealed = [&plain[..], &[0; TAG]].concat();
            seals.seal(&mut sealed).unwrap();
            let length = snow.read_message(&sealed, &mut payload).unwrap();
            assert_eq!(&payload[..length], plain);
            let length = snow.write_message(&plain, &mut message).unwrap();
            let length = opens.open(&mut message[..length]).unwrap();
            assert_eq!(&message[..length], plain);
            if snow.receiving_nonce().is_multiple_of(MESSAGES_PER_KEY) {
                snow.rekey_incoming();
                snow.rekey_outgoing();
            }
        }
    }

    #[test]
    fn too_short_or_changed_is_refused() {
        let mut cipher = Cipher::new(&[1; 32]).unwrap();
        assert!(cipher.open(&mut [0; TAG - 1]).is_err());
        assert!(cipher.seal(&mut [0; TAG - 1]).is_err());
        let mut message = [7; TAG + 5];
        Cipher::new(&[1; 32]).unwrap().seal(&mut message).unwrap();
        message[3] ^= 1;
        assert!(cipher.open(&mut message).is_err());
    }
}
