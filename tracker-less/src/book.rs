//! The mirror book: who says that it holds a module.
