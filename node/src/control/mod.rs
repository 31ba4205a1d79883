//! The control socket of a running node.

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Versions differ.
    #[error("version {found}")]
    Version {
        /// theirs
        found: u32,
    },
    /// Io.
    #[error("{source}")]
    Io {
        /// why
        source: std::io::Error,
    },
    /// closed
    #[error("closed")]
    Closed,
}
