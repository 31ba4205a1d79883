//! Compression of what is sent, where it pays (zstd, RFC 8878).

/// Level that finds most for its time (docs/PERFORMANCE.md).
const LEVEL: i32 = 3;
/// Shorter bytes are sent as they are.
const LEAST: usize = 256;
/// Bytes looked at before all are compressed.
const SAMPLE: usize = 32 << 10;
/// Percent of the plain length up to which compression pays.
const PAYS: usize = 92;

/// The bytes compressed; none where that saves too little.
pub fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < LEAST {
        return None;
    }
    let pays = |packed: &[u8], plain: &[u8]| packed.len() * 100 <= plain.len() * PAYS;
    if plain.len() > 2 * SAMPLE {
        // From the middle: what is in front may be a proof or a header.
        let middle = plain.len() / 2;
        let sample = plain.get(middle..middle + SAMPLE)?;
        if !pays(&zstd::bulk::compress(sample, 1).ok()?, sample) {
            return None;
        }
    }
    zstd::bulk::compress(plain, LEVEL).ok().filter(|packed| pays(packed, plain))
}

/// The plain bytes, which are exactly `length`; none if they are not.
pub fn unpack(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(packed, length).ok().filter(|plain| plain.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pays_is_packed_and_comes_back() {
        let text = b"the same again and again, ".repeat(10_000);
        let packed = pack(&text).expect("it pays");
        assert!(packed.len() < text.len() / 50);
        assert_eq!(unpack(&packed, text.len()), Some(text.clone()));
        assert_eq!(unpack(&packed, text.len() - 1), None, "more than was announced");
        assert_eq!(unpack(&packed, text.len() + 1), None, "less than was announced");
        assert_eq!(unpack(b"no frame", 10), None);
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(pack(&noise), None);
    }
}
