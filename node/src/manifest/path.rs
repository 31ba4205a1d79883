//! Manifest: path.
