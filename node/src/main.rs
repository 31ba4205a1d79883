//! The murmir command.
fn main() {}
