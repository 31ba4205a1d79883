//! Manifest: entry.
