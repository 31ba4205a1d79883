//! Record: nomination.
