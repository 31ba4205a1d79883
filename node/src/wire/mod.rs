//! The byte protocol on one stream.

pub mod client;
pub mod frame;
pub mod limit;
pub mod msg;
pub mod server;
