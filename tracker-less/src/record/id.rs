//! Record: id.
