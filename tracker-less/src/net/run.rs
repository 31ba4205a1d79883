//! Net: run.
