//! Store: outboard.
