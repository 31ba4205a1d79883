//! Record: bundle.
