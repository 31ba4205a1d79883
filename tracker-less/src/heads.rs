//! The newest verified head of a module, and forks.
