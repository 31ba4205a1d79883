//! Manifest: page.
