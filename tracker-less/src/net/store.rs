//! Net: store.
