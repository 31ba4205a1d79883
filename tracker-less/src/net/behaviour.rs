//! Net: behaviour.
