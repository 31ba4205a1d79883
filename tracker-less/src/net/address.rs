//! Net: address.
