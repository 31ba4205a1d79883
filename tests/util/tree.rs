//! Trees to publish.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};

/// Bytes without any order that are the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A directory being filled.
#[derive(Debug, Clone)]
pub struct Tree(PathBuf);

impl Tree {
    /// An empty one.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("tree");
        Self(path)
    }

    /// Its root, or something in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A file, with the directories above it.
    pub fn file(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, bytes).expect("file");
        self
    }

    /// A file whose name is any bytes.
    pub fn odd(&self, name: &[u8], bytes: impl AsRef<[u8]>) -> &Self {
        self.file(std::ffi::OsStr::from_bytes(name), bytes)
    }

    /// A directory.
    pub fn dir(&self, name: &str) -> &Self {
        fs::create_dir_all(self.path(name)).expect("directory");
        self
    }

    /// A symlink.
    pub fn symlink(&self, name: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.path(name)).expect("symlink");
        self
    }

    /// Another name of a file.
    pub fn hard_link(&self, name: &str, of: &str) -> &Self {
        fs::hard_link(self.path(of), self.path(name)).expect("hard link");
        self
    }

    /// A FIFO.
    pub fn fifo(&self, name: &str) -> &Self {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, self.path(name), FileType::Fifo, mode, 0).expect("fifo");
        self
    }

    /// Permission bits.
    pub fn mode(&self, name: &str, mode: u32) -> &Self {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("mode");
        self
    }

    /// Modification time, also of a symlink itself.
    pub fn mtime(&self, name: &str, seconds: i64, nanoseconds: u32) -> &Self {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let times = Timestamps { last_access, last_modification };
        rustix::fs::utimensat(CWD, self.path(name), &times, AtFlags::SYMLINK_NOFOLLOW).expect("mtime");
        self
    }

    /// `count` files of `size` bytes of noise each, ten to a directory.
    pub fn many(&self, seed: u64, count: usize, size: usize) -> &Self {
        for number in 0..count {
            let name = format!("d{:03}/f{number:05}", number / 10);
            self.file(name, noise(seed << 32 | number as u64, size));
        }
        self
    }

    /// One of everything that a tree can hold.
    pub fn sampler(&self) -> &Self {
        self.file("a.txt", "hello\n").file("bin/tool", noise(1, 300_000)).file("deep/er/est/file", "deep").dir("empty");
        self.file("zero", "").odd(b"caf\xe9", "latin").file("sp ace@%?&=", "signs");
        self.symlink("link", "a.txt").symlink("dangling", "nowhere").hard_link("deep/twin", "bin/tool");
        self.mode("bin/tool", 0o755).mode("a.txt", 0o600).mode("empty", 0o711);
        self.mtime("a.txt", 1_000_000_000, 123_456_789).mtime("link", 1_100_000_000, 1).mtime("empty", -5, 7)
    }
}
