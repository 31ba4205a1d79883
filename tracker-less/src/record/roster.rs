//! Record: roster.
