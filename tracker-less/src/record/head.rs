//! Record: head.
