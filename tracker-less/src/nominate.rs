//! When a node says what it holds.
