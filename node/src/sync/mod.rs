//! Publish and fetch.
