//! Proofs, outboards, and everything that makes new files from old ones.

use std::io::Write;

use murmir::delta::blocks::{self, Form, Search};
use murmir::delta::pack;
use murmir::delta::patch::{self, Effort};
use murmir::store::outboard::Outboard;
use murmir::store::proof::{self, MAX_RANGE};

use super::runner::Target;

/// Bytes that no compression makes smaller.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn proofs_of_ranges() {
    let data = noise(1, 1_000_000);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&data).unwrap();
    let (size, hashed) = (data.len() as u64, proof::hash_file(&file).unwrap());
    let ranges = [0..16_384, 16_384 * 30..16_384 * 33, 16_384 * 60..size];
    let corpus = ranges
        .iter()
        .map(|range| proof::encode_range(&file, &hashed.id, size, hashed.outboard.as_ref(), range.clone()).unwrap())
        .collect();
    Target { name: "proofs", corpus, words: &[], spare: MAX_RANGE as usize, slow: 1 }.run(|input| {
        let mut held = false;
        for range in &ranges {
            let Ok(verified) = proof::decode_range(&hashed.id, size, range.clone(), input) else { continue };
            let (start, end) = (range.start as usize, range.end as usize);
            assert_eq!(verified.data(), &data[start..end], "a proof of other bytes");
            held = true;
        }
        // Sizes that nobody has.
        let absurd = [1, 1 << 40, i64::MAX as u64, u64::MAX];
        assert!(absurd.iter().all(|size| proof::decode_range(&hashed.id, *size, 0..1, input).is_err()));
        held
    });
    let outboard = hashed.outboard.unwrap();
    Target { name: "outboards", corpus: vec![outboard.encode()], words: &[], spare: 0, slow: 1 }.run(|input| {
        let absurd = [1 << 40, u64::MAX];
        assert!(absurd.iter().all(|size| Outboard::decode(&hashed.id, *size, input).is_none()));
        Outboard::decode(&hashed.id, size, input).is_some_and(|found| found == outboard)
    });
    Target { name: "group hashes", corpus: vec![outboard.values(0, usize::MAX)], words: &[], spare: 0, slow: 1 }.run(
        |input| {
            let absurd = [1 << 40, u64::MAX];
            assert!(absurd.iter().all(|size| Outboard::from_values(&hashed.id, *size, input).is_none()));
            Outboard::from_values(&hashed.id, size, input).is_some_and(|found| found == outboard)
        },
    );
}

#[test]
fn patches_and_packed_bulk() {
    let old = noise(2, 40_000);
    let new = [&old[20_000..], b"something new", &old[..20_000]].concat();
    let patched = patch::make(&old, &new, Effort::Brisk).unwrap();
    // A bomb is announced in its size, and no more than that is made.
    let bomb = patch::make(&old, &vec![0; new.len()], Effort::Brisk).unwrap();
    let spare = 4 * new.len();
    Target { name: "patches", corpus: vec![patched, bomb], words: &[], spare, slow: 1 }.run(|input| {
        let made = patch::apply(&old, input, new.len());
        assert!(made.as_ref().is_none_or(|made| made.len() == new.len()));
        made.is_some()
    });
    let plain = b"again and again, ".repeat(3000);
    let spare = 4 * plain.len();
    Target { name: "packed bulk", corpus: vec![pack::pack(&plain).unwrap()], words: &[], spare, slow: 1 }.run(
        |input| {
            let made = pack::unpack(input, plain.len());
            assert!(made.as_ref().is_none_or(|made| made.len() == plain.len()));
            made.is_some()
        },
    );
}

/// Sums are looked for in an old file of long runs, where one sum fits every offset: the worst that a giver can aim at.
#[test]
fn sums_and_slices() {
    let form = Form { block: 512, width: 5 };
    let old = [vec![0; 20_000], noise(3, 20_000), b"ab".repeat(10_000)].concat();
    let new = [&old[30_000..], b"something new", &old[..25_000]].concat();
    let size = new.len() as u64;
    let honest = form.sums(&new);
    // Every block pretends to be zeros.
    let aimed = form.sums(&vec![0; new.len()]);
    let find = |sums: &[u8]| {
        let mut search = Search::new(form, sums);
        search.look(&old, 0);
        search.look_at_end(&old, new.len() % 512, old.len() as u64);
        search.end()
    };
    let spare = 8 * (new.len() + old.len());
    Target { name: "sums", corpus: vec![honest.clone(), aimed], words: &[], spare, slow: 1 }.run(|input| {
        // Others are no answer to what was asked.
        if input.len() as u64 != form.sums_length(size) {
            return false;
        }
        let found = find(input);
        let runs = blocks::runs(&found, 0, size, form.block);
        assert!(runs.iter().all(|run| run.old + run.length <= old.len() as u64 && run.new + run.length <= size));
        let missing = blocks::missing(&found, size, form.block);
        assert!(missing.iter().all(|range| range.start < range.end && range.end <= size));
        true
    });
    let missing = blocks::missing(&find(&honest), size, form.block);
    let cut = |ranges: &[std::ops::Range<u64>]| -> Vec<u8> {
        ranges.iter().flat_map(|range| new[range.start as usize..range.end as usize].iter().copied()).collect()
    };
    let (known, literal) = (cut(&blocks::between(&missing, size)), cut(&missing));
    Target { name: "slices", corpus: vec![literal], words: &[], spare: 2 * new.len(), slow: 1 }
        .run(|input| blocks::assemble(&known, input, &missing, size).is_some());
}
