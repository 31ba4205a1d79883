//! Wire: server.
