use std::io::Write;

use bao_tree::io::outboard::PreOrderMemOutboard;
use bao_tree::io::sync::encode_ranges_validated;
use proptest::prelude::*;

use super::*;

const KIB: u64 = 1024;

fn content(size: u64) -> Vec<u8> {
    let mut data = vec![0; index(size)];
    Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

fn file_of(data: &[u8]) -> (File, Hashed) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    let hashed = hash_file(&file).unwrap();
    (file, hashed)
}

fn encode(file: &File, hashed: &Hashed, range: Range<u64>) -> Result<Vec<u8>, ProofError> {
    encode_range(file, &hashed.id, hashed.size, hashed.outboard.as_ref(), range)
}

fn sizes() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 16, 32, 256, 512, 768, 1024, 1536, 3 * 1024].map(|k| k * KIB);
    prop_oneof![
        (proptest::sample::select(edges.to_vec()), -1i64..=1).prop_map(|(edge, by)| edge.saturating_add_signed(by)),
        0..3 * MAX_RANGE,
    ]
}

fn size_and_range() -> impl Strategy<Value = (u64, Range<u64>)> {
    (sizes(), any::<u64>(), any::<u64>()).prop_map(|(size, a, b)| {
        let groups = size.div_ceil(GROUP).max(1);
        let first = a % groups;
        let count = 1 + b % (groups - first).min(MAX_RANGE / GROUP);
        (size, first * GROUP..((first + count) * GROUP).min(size))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded((size, range) in size_and_range()) {
        let data = content(size);
        let (file, hashed) = file_of(&data);
        prop_assert!(verify_small(&hashed.id, &data));
        let encoded = encode(&file, &hashed, range.clone()).unwrap();
        prop_assert!(encoded.len() as u64 <= MAX_ENCODED);
        let verified = decode_range(&hashed.id, size, range.clone(), &encoded).unwrap();
        prop_assert_eq!(verified.offset(), range.start);
        prop_assert_eq!(verified.data(), &data[index(range.start)..index(range.end)]);
    }

    #[test]
    fn the_encoding_is_that_of_bao_tree((size, range) in size_and_range()) {
        let data = content(size);
        let (file, hashed) = file_of(&data);
        let theirs = PreOrderMemOutboard::create(&data, BLOCK);
        let mut expected = Vec::new();
        encode_ranges_validated(data.as_slice(), &theirs, &chunks(size, &range), &mut expected).unwrap();
        prop_assert_eq!(encode(&file, &hashed, range).unwrap(), expected);
    }

    #[test]
    fn damage_on_disk_is_found((size, range) in size_and_range(), at in any::<u64>()) {
        prop_assume!(size > 0);
        let (file, hashed) = file_of(&content(size));
        let at = range.start + at % (range.end - range.start);
        file.write_all_at(&[!content(size)[index(at)]], at).unwrap();
        let found = match encode(&file, &hashed, range) {
            Err(ProofError::Damaged { offset }) => offset..offset + WIDE_GROUP,
            other => panic!("{other:?}"),
        };
        prop_assert!(found.contains(&at));
    }

    #[test]
    fn another_size_is_never_proven_whole(size in sizes(), by in -40i64 * 1024..40 * 1024) {
        let claimed = size.saturating_add_signed(by);
        prop_assume!(claimed != size);
        // The best a liar can do: a true tree over other data of the claimed size, or the true one cut or padded.
        let (file, hashed) = file_of(&content(size));
        file.set_len(claimed).unwrap();
        let padded = hash_file(&file).unwrap();
        let last = claimed.saturating_sub(1) / GROUP * GROUP..claimed;
        let encoded = encode(&file, &padded, last.clone()).unwrap();
        prop_assert!(decode_range(&hashed.id, claimed, last.clone(), &encoded).is_err());
        file.set_len(size).unwrap();
        let true_last = size.saturating_sub(1) / GROUP * GROUP..size;
        if let Ok(encoded) = encode(&file, &hashed, true_last) {
            prop_assert!(decode_range(&hashed.id, claimed, last, &encoded).is_err());
        }
    }
}

#[test]
fn every_flipped_byte_is_rejected() {
    for size in [1, 16 * KIB + 1, 300 * KIB + 7] {
        let (file, hashed) = file_of(&content(size));
        let range = size.saturating_sub(1) / GROUP * GROUP..size;
        let mut encoded = encode(&file, &hashed, range.clone()).unwrap();
        for at in 0..encoded.len() {
            encoded[at] ^= 1;
            assert!(decode_range(&hashed.id, size, range.clone(), &encoded).is_err(), "byte {at} of {size}");
            encoded[at] ^= 1;
        }
        decode_range(&hashed.id, size, range, &encoded).unwrap();
    }
}

#[test]
fn missing_and_trailing_bytes_are_rejected() {
    let size = 600 * KIB;
    let (file, hashed) = file_of(&content(size));
    let mut encoded = encode(&file, &hashed, 0..32 * KIB).unwrap();
    for len in 0..encoded.len() {
        assert!(decode_range(&hashed.id, size, 0..32 * KIB, &encoded[..len]).is_err());
    }
    assert!(decode_range(&hashed.id, size, 0..16 * KIB, &encoded).is_err());
    encoded.push(0);
    assert!(decode_range(&hashed.id, size, 0..32 * KIB, &encoded).is_err());
}

#[test]
fn only_group_ranges_inside_the_file_are_provable() {
    let size = 3 * MAX_RANGE + 5;
    for range in [0..size, 1..GROUP, 0..GROUP - 1, GROUP..GROUP, 0..MAX_RANGE + GROUP, 3 * MAX_RANGE..size + 1] {
        assert!(check_range(size, &range).is_err(), "{range:?}");
    }
    assert!(check_range(size, &(3 * MAX_RANGE..size)).is_ok());
    assert!(check_range(0, &(0..0)).is_ok());
}

#[test]
fn a_big_file_needs_its_outboard() {
    let (file, hashed) = file_of(&content(WIDE_GROUP + 1));
    assert!(matches!(encode_range(&file, &hashed.id, hashed.size, None, 0..GROUP), Err(ProofError::NoOutboard)));
}

#[test]
fn a_monstrous_size_is_an_error_not_an_overflow() {
    let id = ContentId([1; 32]);
    for size in [MAX_SIZE, MAX_SIZE + 1, u64::MAX] {
        let last = (size - 1) / GROUP * GROUP..size;
        for range in [0..GROUP, last] {
            assert!(decode_range(&id, size, range, &[0; 8192]).is_err());
        }
    }
}

#[test]
fn bytes_from_anywhere_are_proven_by_the_outboard() {
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|number| number.to_le_bytes()).take(2_500_001).collect();
    let size = bytes.len() as u64;
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let hashed = hash_file(&file).unwrap();
    let outboard = outboard_of(&hashed.id, &bytes).unwrap();
    assert_eq!(Some(&outboard), hashed.outboard.as_ref());
    assert_eq!(outboard_of(&hashed.id, &bytes[1..]), None);
    for range in [0..16_384, 16_384..1_064_960, 1_048_576..2_097_152, 2_097_152..size, 2_490_368..size] {
        let wide = widened(&range, size);
        let mut part = bytes[index(wide.start)..index(wide.end)].to_vec();
        let encoded = encode_bytes((wide.start, &part), &hashed.id, &outboard, range.clone()).unwrap();
        assert_eq!(encoded, encode_range(&file, &hashed.id, size, Some(&outboard), range.clone()).unwrap());
        let at = index(range.start - wide.start);
        part[at] ^= 1;
        assert!(encode_bytes((wide.start, &part), &hashed.id, &outboard, range.clone()).is_err());
        part.truncate(at);
        assert!(encode_bytes((wide.start, &part), &hashed.id, &outboard, range).is_err());
    }
}
