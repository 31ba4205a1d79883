//! Store: lock.
