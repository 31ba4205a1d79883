//! Wire: client.
