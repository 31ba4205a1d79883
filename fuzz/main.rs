//! Fuzzing of everything that reads bytes from outside, on the stable toolchain: valid inputs made by the code itself, changed
//! by a seeded mutator. Each input may end in a refusal, never in a panic, and has bounds on time and memory (docs/SAFETY.md).
//! A short run is part of `cargo test`; `.ci/sweep` sets MURMIR_FUZZ_INPUTS to a million, MURMIR_SEED begins elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests on 64-bit Linux that tell what they did"
)]

mod bytes;
mod mutate;
#[path = "../tests/util/random.rs"]
#[allow(dead_code, reason = "shared with tests/")]
mod random;
mod records;
mod runner;
mod text;
mod tree;
mod wire;

/// Counts what Rust code allocates; zstd's own memory is bounded by its window instead.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
