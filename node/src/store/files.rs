//! Store: files.
