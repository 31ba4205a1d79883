//! The disk: files, outboards, index, scan, state.

pub mod files;
pub mod glance;
pub mod index;
pub mod locate;
pub mod lock;
pub mod outboard;
pub mod proof;
pub mod scan;
pub mod stage;
pub mod state;
