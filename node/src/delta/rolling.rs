//! A hash of a run of bytes that rolls (R. Karp and M. Rabin, 1987): the polynomial of the bytes, modulo 2^64.

/// The base of the polynomial: any odd number with no pattern.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Brings every bit of the polynomial into the upper ones.
const MIX: u64 = 0xd6e8_feb8_6659_fd93;

/// The hash of `length` bytes on their way through others.
#[derive(Debug, Clone, Copy)]
pub struct Rolling {
    sum: u64,
    /// What the byte that goes out has grown to.
    out: u64,
}

impl Rolling {
    /// The hash of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let sum = bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(BASE).wrapping_add(term(*byte)));
        let out = bytes.iter().fold(1u64, |power, _| power.wrapping_mul(BASE));
        Self { sum, out }
    }

    /// One byte on.
    #[inline]
    pub fn roll(&mut self, out: u8, next: u8) {
        let grown = self.sum.wrapping_mul(BASE).wrapping_add(term(next));
        self.sum = grown.wrapping_sub(self.out.wrapping_mul(term(out)));
    }

    /// The hash; its upper bits are as good as all.
    #[inline]
    pub fn hash(self) -> u64 {
        (self.sum ^ (self.sum >> 32)).wrapping_mul(MIX)
    }
}

/// Zeros count too.
fn term(byte: u8) -> u64 {
    u64::from(byte) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolled_is_as_new_and_one_byte_changes_the_upper_bits() {
        let mut bytes = vec![0; 3000];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for length in [1, 64, 700] {
            let mut rolling = Rolling::new(&bytes[..length]);
            for at in 0..bytes.len() - length {
                assert_eq!(rolling.hash(), Rolling::new(&bytes[at..at + length]).hash());
                rolling.roll(bytes[at], bytes[at + length]);
            }
        }
        let upper = |bytes: &[u8]| Rolling::new(bytes).hash() >> 32;
        let before = upper(&bytes);
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_ne!(upper(&bytes), before, "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
