//! All discovery decisions as one pure state machine.
