//! Record: fresh.
