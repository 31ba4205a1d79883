//! Signed records: canonical dag-cbor in an envelope of payload, key and signature.

pub mod bundle;
pub mod charter;
pub mod envelope;
pub mod fresh;
pub mod head;
pub mod id;
pub mod key;
pub mod nomination;
pub mod roster;
