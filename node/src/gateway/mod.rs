//! Ways in for those who do not speak our protocol.

pub mod rsyncd;
