use std::fs;
use std::os::unix::fs::FileExt;

use multihash::Multihash;
use proptest::prelude::*;

use super::disk::{SCHEMA, SET_ASIDE, VERSION};
use super::*;

fn cid(bytes: &[u8]) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x1e, blake3::hash(bytes).as_bytes()).unwrap())
}

fn put(index: &Index, pages: &[&[u8]]) {
    let cids: Vec<Cid> = pages.iter().map(|page| cid(page)).collect();
    index.put_pages(cids.iter().zip(pages.iter().copied())).unwrap();
}

fn known(size: u64) -> (Stamp, ContentId) {
    (Stamp { size, mtime: -5, ctime: i64::MAX, ino: u64::MAX, dev: 1 }, ContentId([9; 32]))
}

fn both() -> (tempfile::TempDir, [Index; 2]) {
    let home = tempfile::tempdir().unwrap();
    let disk = Index::open(home.path()).unwrap();
    (home, [disk, Index::memory()])
}

#[test]
fn pages_come_back() {
    let (_home, indexes) = both();
    for index in indexes {
        put(&index, &[b"one", b"two"]);
        assert_eq!(index.page(&cid(b"two")).unwrap(), Some(b"two".to_vec()));
        assert_eq!(index.page(&cid(b"three")).unwrap(), None);
        let start = |bytes: &[u8]| <[u8; 8]>::try_from(&cid(bytes).hash().digest()[..8]).unwrap();
        assert_eq!(index.page_like(&start(b"two")).unwrap(), Some(b"two".to_vec()));
        assert_eq!(index.page_like(&start(b"three")).unwrap(), None);
    }
}

#[test]
fn pages_that_nobody_touches_between_two_sweeps_are_forgotten() {
    let (_home, indexes) = both();
    for index in indexes {
        index.put_content(&ContentId([1; 32]), b"rules").unwrap();
        put(&index, &[b"needed", b"idle"]);
        assert_eq!(index.sweep_pages().unwrap(), 0, "the first time nothing goes");
        put(&index, &[b"new"]);
        index.page(&cid(b"needed")).unwrap();
        assert_eq!(index.sweep_pages().unwrap(), 1);
        let left = [&b"needed"[..], b"idle", b"new"].map(|page| index.page(&cid(page)).unwrap().is_some());
        assert_eq!(left, [true, false, true]);
        put(&index, &[b"idle"]);
        assert_eq!(index.sweep_pages().unwrap(), 0, "all were touched");
        assert_eq!(index.sweep_pages().unwrap(), 3);
        assert!(index.content(&ContentId([1; 32])).unwrap().is_some(), "only pages are swept");
    }
}

#[test]
fn directories_are_replaced_and_forgotten() {
    let (_home, indexes) = both();
    let path = TreePath::root();
    for index in indexes {
        let first = Directory::from([(Name::new(b"a").unwrap(), known(1)), (Name::new(b"\xff").unwrap(), known(2))]);
        index.put_directories(b"tree", [(&path, &first)]).unwrap();
        assert_eq!(index.directory(b"tree", &path).unwrap(), first);
        assert_eq!(index.directory(b"another", &path).unwrap(), Directory::new());
        index.put_directories(b"tree", [(&path, &Directory::new())]).unwrap();
        assert_eq!(index.get(&stats_key(b"tree", &path)).unwrap(), None);
    }
}

#[test]
fn what_was_flushed_is_there_after_reopening() {
    let home = tempfile::tempdir().unwrap();
    let index = Index::open(home.path()).unwrap();
    put(&index, &[b"page"]);
    index.flush().unwrap();
    drop(index);
    fs::write(home.path().join("index/snap.0000.generating"), b"torn").unwrap();
    let index = Index::open(home.path()).unwrap();
    assert!(!home.path().join("index/snap.0000.generating").exists());
    assert_eq!(index.page(&cid(b"page")).unwrap(), Some(b"page".to_vec()));
}

#[test]
fn a_second_run_has_one_in_memory() {
    let home = tempfile::tempdir().unwrap();
    let first = Index::open(home.path()).unwrap();
    assert!(!first.is_memory());
    assert!(Index::open(home.path()).unwrap().is_memory());
}

#[test]
fn another_schema_is_emptied() {
    let home = tempfile::tempdir().unwrap();
    let index = Index::open(home.path()).unwrap();
    put(&index, &[b"page"]);
    index.put([(VERSION.to_vec(), b"new!".to_vec())]).unwrap();
    index.flush().unwrap();
    drop(index);
    let index = Index::open(home.path()).unwrap();
    assert_eq!(index.page(&cid(b"page")).unwrap(), None);
    assert_eq!(index.get(VERSION).unwrap().unwrap(), SCHEMA);
}

#[test]
fn a_damaged_database_is_set_aside_and_replaced_in_bounds() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..SET_ASIDE + 2 {
        let index = Index::open(home.path()).unwrap();
        put(&index, &[b"page"]);
        drop(index);
        fs::remove_dir_all(home.path().join("index")).unwrap();
        fs::write(home.path().join("index"), b"garbage").unwrap();
    }
    let index = Index::open(home.path()).unwrap();
    assert_eq!(index.page(&cid(b"page")).unwrap(), None);
    let aside = fs::read_dir(home.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("index.damaged-"));
    assert_eq!(aside.count(), SET_ASIDE as usize);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_damage_leaves_a_usable_index(which in any::<prop::sample::Index>(), at in any::<u64>(), cut in any::<bool>()) {
        let home = tempfile::tempdir().unwrap();
        let index = Index::open(home.path()).unwrap();
        let pages: Vec<Vec<u8>> = (0..40u8).map(|byte| vec![byte; 2000]).collect();
        put(&index, &pages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        index.flush().unwrap();
        drop(index);
        let entries = fs::read_dir(home.path().join("index")).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        let file = fs::OpenOptions::new().write(true).open(which.get(&files)).unwrap();
        let at = at % file.metadata().unwrap().len().max(1);
        match cut {
            true => file.set_len(at).unwrap(),
            false => file.write_all_at(&[0xa5; 64], at).unwrap(),
        }
        let index = Index::open(home.path()).unwrap();
        // What is read may be an error or lost; the reader checks it by its CID. What is written anew holds.
        for page in &pages {
            let _ = index.page(&cid(page));
        }
        put(&index, &[b"new"]);
        index.flush().unwrap();
        prop_assert_eq!(index.page(&cid(b"new")).unwrap(), Some(b"new".to_vec()));
    }
}

#[test]
fn a_database_that_is_damaged_while_in_use_is_set_aside_and_replaced() {
    let home = tempfile::tempdir().unwrap();
    let index = Index::open(home.path()).unwrap();
    // More than the cache holds, so that most must be read again.
    let page = |number: u32| number.to_be_bytes().repeat(2500);
    let pages = 0..6000;
    for number in pages.clone() {
        put(&index, &[&page(number)]);
    }
    index.flush().unwrap();
    for entry in fs::read_dir(home.path().join("index")).unwrap().flatten().filter(|one| one.path().is_file()) {
        let file = fs::File::options().write(true).open(entry.path()).unwrap();
        file.write_all_at(&vec![0xa5; usize::try_from(entry.metadata().unwrap().len()).unwrap()], 0).unwrap();
    }
    let mut lost = 0;
    for number in pages {
        match index.page(&cid(&page(number))).unwrap() {
            Some(bytes) => assert_eq!(bytes, page(number), "no wrong page"),
            None => lost += 1,
        }
    }
    assert!(lost > 0 && home.path().join("index.damaged-1").exists(), "{lost} pages lost");
    put(&index, &[b"new"]);
    index.flush().unwrap();
    drop(index);
    let index = Index::open(home.path()).unwrap();
    assert_eq!(index.page(&cid(b"new")).unwrap(), Some(b"new".to_vec()), "the new one lasts");
}
