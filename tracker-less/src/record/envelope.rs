//! Record: envelope.
