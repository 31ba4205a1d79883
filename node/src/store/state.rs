//! Store: state.
