//! Manifest: diff.
