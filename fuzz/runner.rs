//! Runs a target over many inputs and holds it to its bounds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::MEMORY;
use super::mutate::mutate;
use super::random::{Random, first_seed};

/// Inputs of a short run.
const INPUTS: u64 = 4000;
/// Memory that every input may cost, bytes; and so many times its own length. serde sets 1 MiB aside for a list that announces
/// more than that.
const MEMORY_BASE: usize = (1 << 20) + (32 << 10);
const MEMORY_FACTOR: usize = 4;
/// Time for one input. The goal is 10 ms in release; a loaded machine is no fault, so the best of [`TRIES`] counts.
const TIME: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });
const TRIES: usize = 5;
/// Bytes of an input that are shown when it fails.
const SHOWN: usize = 4096;

/// One target at a time: memory is counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// What is fuzzed.
pub struct Target<'a> {
    /// Name in messages.
    pub name: &'static str,
    /// Valid inputs.
    pub corpus: Vec<Vec<u8>>,
    /// Tokens of the format.
    pub words: &'a [&'a [u8]],
    /// Memory it may take beyond the usual bound, bytes.
    pub spare: usize,
    /// So many times slower than others, by nature: fewer inputs, more time for each.
    pub slow: u32,
}

impl Target<'_> {
    /// Runs `check`, which says whether it accepted its input: the corpus must be, changed inputs may be refused.
    pub fn run(self, check: impl Fn(&[u8]) -> bool) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!self.corpus.is_empty());
        for input in &self.corpus {
            assert!(self.once(input, &check), "{}: a valid input is refused: {}", self.name, shown(input));
        }
        let (mut accepted, seed) = (0u64, first_seed());
        let inputs = std::env::var("MURMIR_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(INPUTS);
        let mut random = Random::new(seed);
        for _ in 0..inputs / u64::from(self.slow) {
            let input = mutate(&mut random, &self.corpus, self.words);
            accepted += u64::from(self.once(&input, &check));
        }
        eprintln!("{}: {inputs} inputs from seed {seed}, {accepted} accepted", self.name);
    }

    fn once(&self, input: &[u8], check: &impl Fn(&[u8]) -> bool) -> bool {
        let allowed = MEMORY_FACTOR * input.len() + MEMORY_BASE + self.spare;
        let start = Instant::now();
        let (accepted, peak) = self.measured(input, check);
        let took = start.elapsed();
        if peak > allowed {
            // The test harness takes memory of its own meanwhile: the least of some tries counts.
            let best = (0..TRIES).map(|_| self.measured(input, check).1).min().unwrap_or(peak);
            assert!(best <= allowed, "{}: {best} bytes of memory, {allowed} allowed: {}", self.name, shown(input));
        }
        let time = TIME * self.slow;
        if took > time {
            let again = (0..TRIES).map(|_| {
                let start = Instant::now();
                self.caught(input, check);
                start.elapsed()
            });
            let best = again.min().unwrap_or(took);
            assert!(best <= time, "{}: {best:?}: {}", self.name, shown(input));
        }
        accepted
    }

    /// Whether the input is accepted, and the most memory that was taken meanwhile, bytes.
    fn measured(&self, input: &[u8], check: &impl Fn(&[u8]) -> bool) -> (bool, usize) {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let accepted = self.caught(input, check);
        (accepted, MEMORY.peak_usage().saturating_sub(before))
    }

    fn caught(&self, input: &[u8], check: &impl Fn(&[u8]) -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(|| check(input))).unwrap_or_else(|panic| {
            eprintln!("{}: panic over {}", self.name, shown(input));
            resume_unwind(panic)
        })
    }
}

/// As hex, and as text where it may be some.
fn shown(input: &[u8]) -> String {
    let hex: String = input.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    let text = String::from_utf8_lossy(&input[..input.len().min(SHOWN)]);
    format!("{} bytes, {hex} {text:?}", input.len())
}

#[test]
fn planted_faults_are_found() {
    let target = || Target { name: "planted", corpus: vec![b"valid".to_vec()], words: &[], spare: 0, slow: 1 };
    let found = |check: fn(&[u8]) -> bool| catch_unwind(|| target().run(check)).is_err();
    assert!(!found(|_| true));
    assert!(found(|input| input[0] != b'V'), "an index out of bounds, by an empty input");
    assert!(found(|input| input == b"valid" || { !vec![0u8; 2 << 20].is_empty() }), "memory");
    assert!(found(|_| false), "a corpus that is no longer valid");
}
