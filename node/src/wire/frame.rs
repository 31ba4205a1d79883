//! Wire: frame.
