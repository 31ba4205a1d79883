//! Buffers that were used up, to be filled again: what a fresh one costs is to be zeroed.

use std::sync::{Mutex, PoisonError};

/// Most buffers that wait.
const MAX_SPARES: usize = 4;
/// Buffers below this many bytes are not worth keeping.
const LEAST: usize = 64 << 10;

/// The buffers of one stream.
#[derive(Debug, Default)]
pub struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// A buffer of `length` bytes, whatever they are.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let spare = if length < LEAST { None } else { self.0.lock().unwrap_or_else(PoisonError::into_inner).pop() };
        let mut buffer = spare.unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Takes back a buffer that nobody reads any more.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() >= LEAST && spares.len() < MAX_SPARES {
            spares.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_it_was_asked_for_and_few_wait() {
        let spares = Spares::default();
        for length in [LEAST, 3 * LEAST, LEAST + 1, 10] {
            let buffer = spares.take(length);
            assert_eq!(buffer.len(), length);
            spares.give(buffer);
        }
        (0..2 * MAX_SPARES).for_each(|_| spares.give(vec![0; LEAST]));
        spares.give(vec![0; LEAST - 1]);
        let waiting = spares.0.into_inner().unwrap();
        assert!(waiting.len() == MAX_SPARES && waiting.iter().all(|buffer| buffer.len() >= LEAST));
    }
}
