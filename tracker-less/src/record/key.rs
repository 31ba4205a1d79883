//! Record: key.
