//! Manifest: select.
