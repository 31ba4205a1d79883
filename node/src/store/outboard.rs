//! Outboards: the inner hashes of a file's BLAKE3 tree, down to groups of 256 KiB (0.024 % of the file), so that a
//! range can be proven without reading the rest. Stored as pairs of chaining values in pre-order, without a header:
//! size and id give the shape and the root (the pre-order form of bao, Jack O'Connor's BLAKE3 tree encoding).

use std::io::{Read, Write};

use blake3::hazmat::{ChainingValue, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use super::files::{Dir, FileError};
use crate::manifest::ContentId;

/// Bytes under one leaf of a stored outboard.
pub const WIDE_GROUP: u64 = 256 * 1024;
/// Bytes under one leaf of a proof.
pub const GROUP: u64 = 16 * 1024;
/// Bytes of one chaining value.
pub const VALUE: usize = 32;
/// Bytes of one pair of chaining values.
pub const PAIR: usize = 2 * VALUE;

/// The chaining values of a node's two children.
pub type Pair = [ChainingValue; 2];

/// The outboard of one file; its pairs hash to the file's id, which is checked wherever one comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outboard {
    size: u64,
    pairs: Vec<Pair>,
}

impl Outboard {
    /// Builds it from the chaining values of all groups of a file of `size` > [`WIDE_GROUP`] bytes.
    pub(super) fn from_groups(size: u64, groups: &[ChainingValue]) -> (ContentId, Self) {
        let (root, pairs) = fold(size, WIDE_GROUP, groups, true);
        (ContentId(root), Self { size, pairs })
    }

    /// From the chaining values of all groups, one after the other; `None` unless they hash to the file `id` of `size` bytes.
    pub fn from_values(id: &ContentId, size: u64, bytes: &[u8]) -> Option<Self> {
        let (values, rest) = bytes.as_chunks::<VALUE>();
        if !rest.is_empty() || values.len() < 2 || values.len() as u64 != groups(size) {
            return None;
        }
        let (root, outboard) = Self::from_groups(size, values);
        (root == *id).then_some(outboard)
    }

    /// The chaining values of at most `count` groups from group `start` on, one after the other.
    pub fn values(&self, start: u64, count: usize) -> Vec<u8> {
        (start..).map_while(|number| self.group(number)).take(count).flatten().collect()
    }

    /// Takes every pair above 256 KiB from the pairs of a tree with 16 KiB groups; `fine` gives the pair of a
    /// pre-order number. `None` if they do not hash to `id`.
    pub(super) fn coarsen<E>(
        id: &ContentId,
        size: u64,
        mut fine: impl FnMut(u64) -> Result<Pair, E>,
    ) -> Result<Option<Self>, E> {
        let mut pairs = Vec::new();
        let mut open = vec![(size, 0)];
        while let Some((len, number)) = open.pop() {
            if len <= WIDE_GROUP {
                continue;
            }
            pairs.push(fine(number)?);
            let left = left_subtree_len(len);
            open.push((len - left, number + left / GROUP));
            open.push((left, number + 1));
        }
        let outboard = Self { size, pairs };
        Ok(outboard.verifies(id).then_some(outboard))
    }

    /// Reads one from its bytes; `None` unless length and root are those of the file `id` of `size` bytes.
    pub fn decode(id: &ContentId, size: u64, bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<PAIR>();
        if !rest.is_empty() || chunks.len() as u64 != parents(size, WIDE_GROUP) {
            return None;
        }
        let outboard = Self { size, pairs: chunks.iter().map(pair).collect() };
        outboard.verifies(id).then_some(outboard)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.pairs.as_flattened().as_flattened().to_vec()
    }

    /// How many these are.
    pub fn bytes(&self) -> u64 {
        (self.pairs.len() * PAIR) as u64
    }

    /// Size of its file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pair of a pre-order number.
    pub(super) fn pair(&self, number: usize) -> Option<&Pair> {
        self.pairs.get(number)
    }

    /// The chaining value of a group of 256 KiB, or of the shorter last one.
    pub fn group(&self, number: u64) -> Option<ChainingValue> {
        let wanted = number.checked_mul(WIDE_GROUP).filter(|start| *start < self.size)?;
        let (mut start, mut len, mut at) = (0, self.size, 0);
        loop {
            let [left_value, right_value] = self.pairs.get(at)?;
            let left = left_subtree_len(len);
            let value = if wanted < start + left {
                (len, at) = (left, at + 1);
                left_value
            } else {
                (start, len, at) = (start + left, len - left, at + usize::try_from(left / WIDE_GROUP).ok()?);
                right_value
            };
            if len <= WIDE_GROUP {
                return Some(*value);
            }
        }
    }

    /// Reads the stored outboard of `id` from `dir`. `None` if there is none or it is damaged: make it anew.
    pub fn load(dir: &Dir, id: &ContentId, size: u64) -> Result<Option<Self>, FileError> {
        let name = file_name(id);
        let file = match dir.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let expected = parents(size, WIDE_GROUP).saturating_mul(PAIR as u64);
        let mut bytes = Vec::new();
        file.take(expected.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|e| FileError::new("read", &dir.path().join(name), e))?;
        Ok(Self::decode(id, size, &bytes))
    }

    /// Stores it in `dir`, whole or not at all (a torn one after a power cut does not verify).
    pub fn store(&self, dir: &Dir, id: &ContentId) -> Result<(), FileError> {
        let name = file_name(id);
        let temporary = format!("{name}.tmp");
        match dir.unlink(&temporary) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        dir.create_new(&temporary)?
            .write_all(self.pairs.as_flattened().as_flattened())
            .map_err(|e| FileError::new("write", &dir.path().join(&temporary), e))?;
        dir.rename(&temporary, dir, &name)
    }

    /// Whether the pairs hash up to `id`.
    fn verifies(&self, id: &ContentId) -> bool {
        let mut open = vec![(self.size, id.0, true)];
        let mut pairs = self.pairs.iter();
        while let Some((len, expected, is_root)) = open.pop() {
            if len <= WIDE_GROUP {
                continue;
            }
            match pairs.next() {
                Some([left, right]) if merge(&[*left, *right], is_root) == expected => {
                    let left_len = left_subtree_len(len);
                    open.push((len - left_len, *right, false));
                    open.push((left_len, *left, false));
                }
                _ => return false,
            }
        }
        pairs.next().is_none()
    }
}

/// Name of the stored outboard of `id`.
pub fn file_name(id: &ContentId) -> String {
    format!("{}.obao", id.hex())
}

/// The content whose stored outboard has this name.
pub fn parse_name(name: &[u8]) -> Option<ContentId> {
    ContentId::from_hex(name.strip_suffix(b".obao")?)
}

/// Number of groups of 256 KiB in `size` bytes.
pub fn groups(size: u64) -> u64 {
    size.div_ceil(WIDE_GROUP)
}

/// Number of pairs over `size` bytes in groups of `group` bytes.
pub fn parents(size: u64, group: u64) -> u64 {
    size.div_ceil(group).saturating_sub(1)
}

/// Two chaining values from their bytes.
pub(super) fn pair(bytes: &[u8; PAIR]) -> Pair {
    let mut pair = Pair::default();
    pair.as_flattened_mut().copy_from_slice(bytes);
    pair
}

/// The hash over a pair: that of the whole file at the root, else a chaining value.
pub(super) fn merge([left, right]: &Pair, is_root: bool) -> [u8; 32] {
    match is_root {
        true => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
        false => merge_subtrees_non_root(left, right, Mode::Hash),
    }
}

/// Hash and pre-order pairs of the subtree over `len` bytes, from the values of its groups of `group` bytes.
/// A single group is its own hash.
pub(super) fn fold(len: u64, group: u64, values: &[ChainingValue], is_root: bool) -> (ChainingValue, Vec<Pair>) {
    let mut pairs = Vec::with_capacity(values.len().saturating_sub(1));
    let hash = fold_into(len, group, values, is_root, &mut pairs);
    (hash, pairs)
}

fn fold_into(len: u64, group: u64, values: &[ChainingValue], is_root: bool, pairs: &mut Vec<Pair>) -> ChainingValue {
    if let [single] = values {
        return *single;
    }
    let left_len = left_subtree_len(len);
    let split = usize::try_from(left_len / group).unwrap_or(usize::MAX).min(values.len());
    let (left, right) = values.split_at(split);
    let number = pairs.len();
    pairs.push(Pair::default());
    let pair = [fold_into(left_len, group, left, false, pairs), fold_into(len - left_len, group, right, false, pairs)];
    pairs[number] = pair;
    merge(&pair, is_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::proof::hash_file;

    fn hashed(size: usize) -> (ContentId, Outboard) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; size]).unwrap();
        let hashed = hash_file(&file).unwrap();
        (hashed.id, hashed.outboard.unwrap())
    }

    #[test]
    fn stored_and_loaded() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        let (id, outboard) = hashed(1_000_000);
        assert_eq!(Outboard::load(&dir, &id, 1_000_000).unwrap(), None);
        outboard.store(&dir, &id).unwrap();
        outboard.store(&dir, &id).unwrap();
        assert_eq!(Outboard::load(&dir, &id, 1_000_000).unwrap(), Some(outboard));
        assert_eq!(Outboard::load(&dir, &id, 1_300_000).unwrap(), None);
        assert_eq!(dir.entries().unwrap().len(), 1);
    }

    #[test]
    fn each_group_has_its_value() {
        let groups: Vec<ChainingValue> = (0u8..7).map(|number| [number; 32]).collect();
        let (_, outboard) = Outboard::from_groups(6 * WIDE_GROUP + 1, &groups);
        for (number, value) in (0..).zip(&groups) {
            assert_eq!(outboard.group(number), Some(*value));
        }
        assert_eq!(outboard.group(7), None);
    }

    #[test]
    fn the_values_of_all_groups_are_the_outboard_and_nothing_else_is() {
        let size = 1_500_000;
        let (id, outboard) = hashed(1_500_000);
        let values = [outboard.values(0, 2), outboard.values(2, 9)].concat();
        assert_eq!(values.len(), 6 * VALUE);
        assert_eq!(Outboard::from_values(&id, size, &values), Some(outboard));
        for at in 0..values.len() {
            let mut flipped = values.clone();
            flipped[at] ^= 1;
            assert_eq!(Outboard::from_values(&id, size, &flipped), None, "byte {at}");
        }
        for wrong in [&values[..values.len() - 1], &values[VALUE..], &[values.as_slice(), &[0; VALUE]].concat(), &[]] {
            assert_eq!(Outboard::from_values(&id, size, wrong), None);
        }
        assert_eq!(Outboard::from_values(&id, 32, &id.0), None, "what has no groups has no outboard");
    }

    #[test]
    fn every_flipped_byte_and_other_length_is_refused() {
        let (id, outboard) = hashed(1_500_000);
        let mut bytes = outboard.encode();
        assert_eq!(bytes.len(), 5 * PAIR);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x80;
            assert_eq!(Outboard::decode(&id, 1_500_000, &bytes), None, "byte {at}");
            bytes[at] ^= 0x80;
        }
        assert_eq!(Outboard::decode(&id, 1_500_000, &bytes), Some(outboard));
        for len in 0..bytes.len() {
            assert_eq!(Outboard::decode(&id, 1_500_000, &bytes[..len]), None);
        }
        bytes.extend([0; PAIR]);
        assert_eq!(Outboard::decode(&id, 1_500_000, &bytes), None);
    }
}
