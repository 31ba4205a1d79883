//! Chance that can be repeated: a test names its seed when it fails.

/// A small generator (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// How many generated cases: `MURMIR_CASES` (set by `.ci/sweep`), or what CI has time for.
pub fn cases(usual: usize) -> usize {
    std::env::var("MURMIR_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The first seed: `MURMIR_SEED`, or 1.
pub fn first_seed() -> u64 {
    std::env::var("MURMIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
