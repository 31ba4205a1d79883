//! Wire: msg.
