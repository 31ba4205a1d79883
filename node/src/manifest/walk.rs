//! Manifest: walk.
