//! Store: stage.
