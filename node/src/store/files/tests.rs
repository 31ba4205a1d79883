use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A directory with a file, a link to a file and a link to a directory outside of it.
fn planted() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let (inside, outside) = (temp.path().join("in"), temp.path().join("out"));
    fs::create_dir_all(&inside).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(inside.join("file"), "mine").unwrap();
    fs::write(outside.join("victim"), "theirs").unwrap();
    fs::set_permissions(outside.join("victim"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink(outside.join("victim"), inside.join("link")).unwrap();
    symlink(&outside, inside.join("dirlink")).unwrap();
    symlink(outside.join("new"), inside.join("dangling")).unwrap();
    let dir = Dir::open(&inside).unwrap();
    (temp, dir)
}

/// The outside is as [`planted`] left it.
fn untouched(temp: &tempfile::TempDir, before: &fs::Metadata) -> bool {
    let victim = temp.path().join("out/victim");
    let now = fs::symlink_metadata(&victim).unwrap();
    fs::read(&victim).unwrap() == b"theirs"
        && (now.mode(), now.mtime(), now.nlink()) == (before.mode(), before.mtime(), before.nlink())
        && fs::read_dir(temp.path().join("out")).unwrap().count() == 1
}

#[test]
fn no_operation_follows_a_planted_link() {
    let (temp, dir) = planted();
    let before = fs::metadata(temp.path().join("out/victim")).unwrap();

    assert!(dir.open_file("link").unwrap_err().is_other_kind());
    assert!(dir.open_rw("link").unwrap_err().is_other_kind());
    assert!(dir.child("dirlink").unwrap_err().is_other_kind());
    assert_eq!(dir.create_new("dangling").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(dir.make_dir("dangling").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(dir.child_or_make("dirlink").unwrap_err().is_other_kind());
    assert_eq!(dir.stat("link").unwrap().kind, Kind::Symlink);
    assert!(dir.set_mode("link", 0o777).unwrap_err().is_other_kind());
    dir.set_mtime("link", 5_000_000_007).unwrap();
    assert_eq!(dir.stat("link").unwrap().stamp.mtime, 5_000_000_007);
    assert!(dir.remove_dir("dirlink").unwrap_err().is_other_kind());
    assert_eq!(dir.link("file", &dir, "dangling").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    dir.link("link", &dir, "second").unwrap();
    assert_eq!(dir.stat("second").unwrap().kind, Kind::Symlink);
    dir.rename("file", &dir, "link").unwrap();
    assert_eq!(dir.stat("link").unwrap().kind, Kind::File);
    dir.unlink("second").unwrap();
    dir.unlink("dirlink").unwrap();

    assert!(untouched(&temp, &before));
}

#[test]
fn only_single_names() {
    let (_temp, dir) = planted();
    let refused = |result: Result<(), FileError>| matches!(result, Err(FileError::NotAName { .. }));
    for name in ["", ".", "..", "a/b", "/", "dirlink/victim", "a\0b"] {
        assert!(refused(dir.open_file(name).map(drop)), "{name:?}");
        assert!(refused(dir.create_new(name).map(drop)));
        assert!(refused(dir.make_dir(name).map(drop)));
        assert!(refused(dir.unlink(name)));
        assert!(refused(dir.rename("file", &dir, name)));
        assert!(refused(dir.rename(name, &dir, "file")));
        assert!(refused(dir.link("file", &dir, name)));
        assert!(refused(dir.set_mode(name, 0o600)));
        assert!(refused(dir.set_mtime(name, 0)));
    }
}

#[test]
fn the_top_may_be_a_link_and_stays_the_same_directory() {
    let (temp, _) = planted();
    symlink(temp.path().join("in"), temp.path().join("top")).unwrap();
    let dir = Dir::open(&temp.path().join("top")).unwrap();
    fs::remove_file(temp.path().join("top")).unwrap();
    symlink(temp.path().join("out"), temp.path().join("top")).unwrap();
    assert!(dir.stat("file").is_ok());
    assert!(dir.stat("victim").unwrap_err().is_missing());
}

#[test]
fn a_fifo_neither_blocks_nor_opens() {
    let (_temp, dir) = planted();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
    assert!(made.success());
    assert!(matches!(dir.open_file("fifo"), Err(FileError::NotRegular { .. })));
    assert!(matches!(dir.open_rw("fifo"), Err(FileError::NotRegular { .. })));
    assert_eq!(dir.stat("fifo").unwrap().kind, Kind::Special);
}

#[test]
fn a_directory_is_no_file() {
    let (_temp, dir) = planted();
    dir.make_dir("sub").unwrap();
    assert!(matches!(dir.open_file("sub"), Err(FileError::NotRegular { .. })));
    assert!(dir.open_rw("sub").unwrap_err().is_other_kind());
    assert!(dir.child("file").unwrap_err().is_other_kind());
}

#[test]
fn made_private_and_then_as_told() {
    let (_temp, dir) = planted();
    let sub = dir.make_dir("sub").unwrap();
    dir.create_new("new").unwrap();
    assert_eq!((dir.stat("sub").unwrap().mode, dir.stat("new").unwrap().mode), (0o700, 0o600));
    dir.set_mode("new", 0o444).unwrap();
    dir.set_mtime("new", -1).unwrap();
    sub.set_own_mode(0o1755).unwrap();
    sub.set_own_mtime(1_000_000_001).unwrap();
    let (file, sub) = (dir.stat("new").unwrap(), sub.own_stat().unwrap());
    assert_eq!((file.mode, file.stamp.mtime), (0o444, -1));
    assert_eq!((sub.mode, sub.stamp.mtime, sub.kind), (0o1755, 1_000_000_001, Kind::Dir));
}

#[test]
fn names_need_not_be_utf8() {
    let (_temp, dir) = planted();
    let name: &[u8] = b"\xff\n";
    dir.create_new(name).unwrap();
    assert!(dir.entries().unwrap().contains(&(name.to_vec(), Kind::File)));
    let error = dir.make_dir(name).unwrap_err().to_string();
    assert!(error.contains("\\#377\\#012") && !error.contains('\n'), "{error}");
}

#[test]
fn entries_tell_kinds() {
    let (_temp, dir) = planted();
    dir.make_dir("sub").unwrap();
    let mut entries = dir.entries().unwrap();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let kinds = [Kind::Symlink, Kind::Symlink, Kind::File, Kind::Symlink, Kind::Dir];
    assert_eq!(entries.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), kinds);
    assert_eq!(dir.entries().unwrap().len(), 5, "a second reading starts at the beginning");
}

#[test]
fn symlinks_keep_any_target() {
    let (_temp, dir) = planted();
    let target = [b'x'; 4000];
    dir.symlink(&target, "long").unwrap();
    assert_eq!(dir.read_link("long").unwrap(), target);
    assert!(dir.read_link("file").is_err());
}

#[test]
fn a_copy_is_whole_and_apart() {
    let (_temp, dir) = planted();
    let mut from = dir.open_file("file").unwrap();
    from.read_exact(&mut [0; 2]).unwrap();
    let mut to = dir.create_new("copy").unwrap();
    clone_file(&from, &to).unwrap();
    assert_eq!(fs::read(dir.path().join("copy")).unwrap(), b"mine");
    to.rewind().unwrap();
    to.write_all(b"else").unwrap();
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"mine");
}

#[test]
fn errors_tell_their_kind() {
    let error = |errno: Errno| FileError::new("write", Path::new("/x"), errno);
    assert!(error(Errno::NOSPC).is_full() && error(Errno::DQUOT).is_full() && !error(Errno::IO).is_full());
    assert!(error(Errno::ROFS).is_read_only() && error(Errno::NOENT).is_missing());
    assert_eq!(error(Errno::NOSPC).kind(), io::ErrorKind::StorageFull);
}
