//! Store: scan.
