//! The control socket of a running node.
