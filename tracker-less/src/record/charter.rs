//! Record: charter.
