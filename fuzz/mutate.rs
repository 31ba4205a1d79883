//! Changes that turn valid inputs into hostile ones.

use super::random::Random;

/// Longest input that mutation makes, bytes.
const MAX_INPUT: usize = 256 << 10;
/// Numbers at which parsers break.
const EDGES: [u64; 12] = [0, 1, 23, 24, 127, 255, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, i64::MAX as u64, u64::MAX];
/// Heads of dag-cbor items that announce more than there is, long forms, and what dag-cbor does not allow.
const CBOR: [&[u8]; 10] = [
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0x7f, 0xff, 0xff, 0xff],
    &[0x5a, 0x7f, 0xff, 0xff, 0xff],
    &[0xbb, 0, 0, 0, 1, 0, 0, 0, 0],
    &[0x18, 0x01],
    &[0x9f],
    &[0xf9, 0x7e, 0x00],
    &[0xd8, 0x2a],
    &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x81; 64],
];

/// An input made from the corpus: one entry, changed in one to six ways. `words` are tokens of the format.
pub fn mutate(random: &mut Random, corpus: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut input = random.pick(corpus).clone();
    for _ in 0..=random.below(6) {
        change(random, &mut input, corpus, words);
    }
    input.truncate(MAX_INPUT);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]]) {
    let at = random.below(input.len() + 1);
    let length = 1 + random.below(16);
    let end = (at + length).min(input.len());
    match random.below(10) {
        0 => flip(random, input),
        1 => drop(input.drain(at..end)),
        2 => input.truncate(at),
        3 => insert(input, at, &(0..length).map(|_| random.next() as u8).collect::<Vec<_>>()),
        4 => number(random, input, at),
        5 => insert(input, at, &input[at..end].repeat(1 + random.below(300))),
        6 => insert(input, at, CBOR[random.below(CBOR.len())]),
        7 if !words.is_empty() => insert(input, at, &random.pick(words).repeat(1 + random.below(4))),
        8 if !words.is_empty() && random.once_in(20) => insert(input, at, &random.pick(words).repeat(2000)),
        9 => splice(random, input, at, corpus),
        _ => flip(random, input),
    }
}

fn flip(random: &mut Random, input: &mut [u8]) {
    if !input.is_empty() {
        let at = random.below(input.len());
        input[at] ^= 1 << random.below(8);
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

/// Writes an edge over what is there, in one of the widths of the formats.
fn number(random: &mut Random, input: &mut [u8], at: usize) {
    let edge = random.pick(&EDGES).wrapping_sub(random.below(2) as u64).to_be_bytes();
    let width = *random.pick(&[1, 2, 4, 8]);
    for (byte, edge) in input.iter_mut().skip(at).zip(&edge[8 - width..]) {
        *byte = *edge;
    }
}

/// The rest from a place in another valid input.
fn splice(random: &mut Random, input: &mut Vec<u8>, at: usize, corpus: &[Vec<u8>]) {
    let other = random.pick(corpus);
    input.truncate(at);
    input.extend_from_slice(&other[random.below(other.len() + 1)..]);
}
