//! Net: streams.
