//! Wire: limit.
