//! The tree: content ids, paths, entries, pages, walks. Pure: no I/O.

pub mod content;
pub mod diff;
pub mod entry;
pub mod filter;
pub mod follow;
pub mod former;
pub mod frontier;
pub mod page;
pub mod path;
pub mod rank;
pub mod regex;
pub mod select;
pub mod selection;
pub mod text;
pub mod tree;
pub mod walk;

#[cfg(test)]
mod tests;

pub use content::ContentId;
