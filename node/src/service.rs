//! What a running node is.
