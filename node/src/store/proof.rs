//! Store: proof.
