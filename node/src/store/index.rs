//! Store: index.
