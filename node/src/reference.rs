//! murmir:// references.
