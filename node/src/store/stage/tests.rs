use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;
use crate::store::outboard::GROUP;
use crate::store::proof::{decode_range, encode_range};

struct Place {
    _dir: tempfile::TempDir,
    root: Dir,
    murmir: Dir,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = Dir::open(dir.path()).unwrap();
    let murmir = root.make_dir(".murmir").unwrap();
    Place { _dir: dir, root, murmir }
}

struct Source {
    file: File,
    data: Vec<u8>,
    id: ContentId,
    outboard: Option<Outboard>,
}

fn source(size: usize) -> Source {
    let mut data = vec![0; size];
    blake3::Hasher::new().update(b"source").finalize_xof().fill(&mut data);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&data).unwrap();
    let hashed = hash_file(&file).unwrap();
    Source { file, data, id: hashed.id, outboard: hashed.outboard }
}

impl Source {
    fn send(&self, group: u64, partial: &Partial) {
        let size = self.data.len() as u64;
        let range = group * GROUP..((group + 1) * GROUP).min(size);
        let bytes = encode_range(&self.file, &self.id, size, self.outboard.as_ref(), range.clone()).unwrap();
        partial.write(&decode_range(&self.id, size, range, &bytes).unwrap()).unwrap();
    }
}

fn read_all(mut file: File) -> Vec<u8> {
    let mut data = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut data).unwrap();
    data
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_partial_file_resumes(
        size in prop_oneof![1..40_000usize, 250_000..900_000usize],
        order in any::<u64>(),
        drops in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let (place, source) = (place(), source(size));
        let mut groups: Vec<u64> = (0..(size as u64).div_ceil(GROUP)).collect();
        groups.sort_by_key(|group| blake3::hash(&[group.to_le_bytes(), order.to_le_bytes()].concat()).to_hex());
        let mut stage = Stage::open(&place.murmir).unwrap();
        let mut partial = stage.partial(&source.id, size as u64).unwrap();
        let mut left = size as u64;
        for (group, drop_here) in groups.iter().zip(drops.iter().cycle()) {
            prop_assert!(stage.finish(&partial).is_err());
            source.send(*group, &partial);
            left -= GROUP.min(size as u64 - group * GROUP);
            if *drop_here {
                drop(partial);
                stage = Stage::open(&place.murmir).unwrap();
                partial = stage.partial(&source.id, size as u64).unwrap();
            }
            prop_assert_eq!(partial.missing().iter().map(|r| r.end - r.start).sum::<u64>(), left);
        }
        prop_assert_eq!(&stage.finish(&partial).unwrap(), &source.outboard);
        let stage = Stage::open(&place.murmir).unwrap();
        prop_assert!(stage.complete(&source.id));
        prop_assert_eq!(&Outboard::load(stage.outboards(), &source.id, size as u64).unwrap(), &source.outboard);
        stage.dir().rename(source.id.hex(), &place.root, "placed").unwrap();
        prop_assert!(!stage.complete(&source.id));
        prop_assert_eq!(read_all(place.root.open_file("placed").unwrap()), source.data);
    }
}

#[test]
fn damage_to_a_partial_file_is_missing_again() {
    let (place, source) = (place(), source(100_000));
    let stage = Stage::open(&place.murmir).unwrap();
    let partial = stage.partial(&source.id, 100_000).unwrap();
    (0..7).for_each(|group| source.send(group, &partial));
    assert_eq!(partial.missing(), []);
    partial_file(&stage, &source.id).write_all_at(&[!source.data[20_000]], 20_000).unwrap();
    let partial = stage.partial(&source.id, 100_000).unwrap();
    assert_eq!(partial.missing(), vec![GROUP..2 * GROUP]);
    assert!(partial.encode_range(GROUP..2 * GROUP).is_err());
    let bytes = partial.encode_range(0..GROUP).unwrap();
    assert_eq!(decode_range(&source.id, 100_000, 0..GROUP, &bytes).unwrap().data(), &source.data[..16384]);
}

fn partial_file(stage: &Stage, id: &ContentId) -> File {
    stage.dir().open_rw(format!("{}{PART}", id.hex())).unwrap()
}

#[test]
fn many_threads_write_one_partial_file() {
    let size = 3 * 256 * 1024 + 1;
    let (place, source) = (place(), source(size));
    let stage = Stage::open(&place.murmir).unwrap();
    let partial = stage.partial(&source.id, size as u64).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (source, partial) = (&source, &partial);
            scope.spawn(move || (0..49).filter(|g| g % 3 != thread).for_each(|g| source.send(g, partial)));
        }
    });
    assert_eq!(stage.finish(&partial).unwrap(), source.outboard);
}

#[test]
fn a_range_of_another_file_is_not_written() {
    let (place, source) = (place(), source(50_000));
    let stage = Stage::open(&place.murmir).unwrap();
    let other = stage.partial(&ContentId([1; 32]), 50_000).unwrap();
    let bytes = encode_range(&source.file, &source.id, 50_000, None, 0..GROUP).unwrap();
    let verified = decode_range(&source.id, 50_000, 0..GROUP, &bytes).unwrap();
    assert!(matches!(other.write(&verified), Err(StageError::False { .. })));
    assert!(stage.partial(&source.id, 0).is_err());
}

#[test]
fn opening_removes_garbage() {
    let place = place();
    let good = ContentId(*blake3::hash(b"good").as_bytes());
    let stage = Stage::open(&place.murmir).unwrap();
    stage.put_small(&good, b"good", Attributes::default()).unwrap();
    assert!(matches!(stage.put_small(&good, b"bad", Attributes::default()), Err(StageError::False { .. })));
    let lone = format!("{}{PART}", "ab".repeat(32));
    for name in ["junk", &"cd".repeat(32), &lone] {
        stage.dir().create_new(name).unwrap();
    }
    let stage = Stage::open(&place.murmir).unwrap();
    assert_eq!(stage.dir().entries().unwrap(), [(good.hex().into_bytes(), Kind::File)]);
    stage.remove(&good).unwrap();
    assert!(!stage.complete(&good));
}

#[test]
fn superseded_files_go_after_grace_and_over_budget() {
    let place = place();
    let stage = Stage::open(&place.murmir).unwrap();
    let id = |byte| ContentId([byte; 32]);
    for (byte, since) in [(1, 100), (2, 200), (3, 200)] {
        place.root.create_new([byte]).unwrap().write_all(&[byte; 10]).unwrap();
        stage.keep(&id(byte), &place.root, [byte], since).unwrap();
        place.root.unlink([byte]).unwrap();
    }
    let kept = |stage: &Stage| [1, 2, 3].map(|byte| stage.kept(&id(byte)).map(read_all) == Some(vec![byte; 10]));
    let stage = Stage::open(&place.murmir).unwrap();
    assert_eq!(stage.sweep(150, 50, 30).unwrap(), 0);
    assert_eq!(kept(&stage), [true; 3]);
    assert_eq!(stage.sweep(151, 50, 30).unwrap(), 1);
    assert_eq!(kept(&stage), [false, true, true]);
    assert_eq!(stage.sweep(200, 50, 19).unwrap(), 1);
    assert_eq!(kept(&stage), [false, false, true]);
    assert_eq!(stage.sweep(251, 50, 30).unwrap(), 1);
    assert_eq!(Stage::open(&place.murmir).unwrap().old.entries().unwrap(), []);
}
