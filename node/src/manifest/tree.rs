//! Manifest: tree.
