//! The tree: pages, entries, paths. Pure.

pub mod diff;
pub mod entry;
pub mod page;
pub mod path;
pub mod select;
pub mod tree;
pub mod walk;
