//! Files by (directory descriptor, one name): no operation here follows a symlink or walks a path text, so nothing
//! that others plant in a tree can lead out of it (safety.md, invariant 10).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{self as sys, AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::{Errno, read};

#[cfg(test)]
pub(crate) mod fault;

/// Permissions of what is made here, until the caller sets others: nobody sees half a file.
const PRIVATE_FILE: u16 = 0o600;
const PRIVATE_DIR: u32 = 0o700;
/// The bits of `st_mode` that are permissions: rwx three times, set-id, sticky.
const PERMISSIONS: u32 = 0o7777;
const NANOS: i64 = 1_000_000_000;

/// A file operation that failed; every path in it is escaped for display.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A regular file was wanted; here is something else.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// Where.
        path: String,
    },
    /// Not one name: empty, `.`, `..`, or with a slash or NUL in it.
    #[error("{path} does not end in a single file name")]
    NotAName {
        /// The directory and the refused name.
        path: String,
    },
}

impl FileError {
    /// The kind of the system's answer, `InvalidInput` where the system was not asked.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::NotRegular { .. } | Self::NotAName { .. } => io::ErrorKind::InvalidInput,
        }
    }

    /// The disk or the quota is full (ENOSPC, EDQUOT).
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// The file system is read-only (EROFS).
    pub fn is_read_only(&self) -> bool {
        self.errno() == Some(Errno::ROFS)
    }

    /// No further name for this file here: no hard links, or too many, or none for us (EPERM, EMLINK, EOPNOTSUPP, EXDEV).
    pub fn is_no_link(&self) -> bool {
        matches!(self.errno(), Some(Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::XDEV))
    }

    /// There is no such name (ENOENT).
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(Errno::NOENT)
    }

    /// Something of another kind stands there: a link or file for a directory, a directory for a file.
    pub fn is_other_kind(&self) -> bool {
        matches!(self, Self::NotRegular { .. })
            || matches!(self.errno(), Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR))
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            Self::NotRegular { .. } | Self::NotAName { .. } => None,
        }
    }

    pub(super) fn not_a_name(path: &Path) -> Self {
        Self::NotAName { path: escape(path.as_os_str().as_bytes()) }
    }

    /// An error of `action` on `path`.
    pub(crate) fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: escape(path.as_os_str().as_bytes()), source: source.into() }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device: never opened.
    Special,
}

impl From<sys::FileType> for Kind {
    fn from(kind: sys::FileType) -> Self {
        match kind {
            sys::FileType::RegularFile => Self::File,
            sys::FileType::Directory => Self::Dir,
            sys::FileType::Symlink => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// Status of a name or an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky (12 bits).
    pub mode: u16,
    /// Number of names of the inode.
    pub links: u64,
    /// What tells one state of a file from another.
    pub stamp: Stamp,
}

/// As long as it is equal, a file is taken as unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// Time of the last change of the inode in nanoseconds since the epoch; no user can set it.
    pub ctime: i64,
    /// Inode number.
    pub ino: u64,
    /// Device number.
    pub dev: u64,
}

impl Stamp {
    /// The same file with the same bytes, though perhaps under more or fewer names: these move the time of the inode.
    pub fn is_same_file(&self, other: &Self) -> bool {
        Self { ctime: 0, ..*self } == Self { ctime: 0, ..*other }
    }
}

impl Stat {
    /// Status of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(sys::fstat(file)?.into())
    }
}

impl From<sys::Stat> for Stat {
    #[allow(clippy::unnecessary_cast, reason = "the field types differ by architecture")]
    fn from(raw: sys::Stat) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(NANOS).saturating_add(nanos);
        Self {
            kind: sys::FileType::from_raw_mode(raw.st_mode).into(),
            mode: u16::try_from(raw.st_mode & PERMISSIONS).unwrap_or_default(),
            links: raw.st_nlink as u64,
            stamp: Stamp {
                size: u64::try_from(raw.st_size).unwrap_or_default(),
                mtime: nanos(raw.st_mtime as i64, raw.st_mtime_nsec as i64),
                ctime: nanos(raw.st_ctime as i64, raw.st_ctime_nsec as i64),
                ino: raw.st_ino as u64,
                dev: raw.st_dev as u64,
            },
        }
    }
}

/// Permission bits, and the modification time in nanoseconds since the epoch where one is to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// 12 bits.
    pub mode: u16,
    /// None: as it comes.
    pub mtime: Option<i64>,
}

impl Default for Attributes {
    /// Those of a file that was just made.
    fn default() -> Self {
        Self { mode: PRIVATE_FILE, mtime: None }
    }
}

impl Attributes {
    /// Gives them to a file that was just made, and written.
    pub fn give(self, file: &File) -> io::Result<()> {
        if self.mode != Self::default().mode {
            sys::fchmod(file, Mode::from_raw_mode(self.mode.into()))?;
        }
        Ok(self.mtime.map_or(Ok(()), |mtime| sys::futimens(file, &times(mtime)))?)
    }
}

/// An open directory. Names are single path components, checked at every call. A clone shares the descriptor.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: Arc<Path>,
}

impl Dir {
    /// Opens the directory at `path`, which may itself be a symlink or lead through some: once, here and never below.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let fd = sys::open(path, dir_flags(), Mode::empty()).map_err(|e| FileError::new("open", path, e))?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
    }

    /// Where it was when it was opened; for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `name`.
    pub fn child(&self, name: impl AsRef<[u8]>) -> Result<Self, FileError> {
        let fd = self
            .call("open", name.as_ref(), |n| sys::openat(&self.fd, n, dir_flags() | OFlags::NOFOLLOW, Mode::empty()))?;
        Ok(Self { fd: Arc::new(fd), path: self.join(name.as_ref()).into() })
    }

    /// Makes the directory `name` (0700) and opens it; a name in use is an error.
    pub fn make_dir(&self, name: impl AsRef<[u8]>) -> Result<Self, FileError> {
        self.call("make directory", name.as_ref(), |n| sys::mkdirat(&self.fd, n, Mode::from_raw_mode(PRIVATE_DIR)))?;
        self.child(name.as_ref())
    }

    /// Opens the directory `name`, making it (0700) where nothing has that name.
    pub fn child_or_make(&self, name: impl AsRef<[u8]>) -> Result<Self, FileError> {
        match self.make_dir(name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.child(name.as_ref()),
            made => made,
        }
    }

    /// All names but `.` and `..`, in no order, with their kinds.
    pub fn entries(&self) -> Result<Vec<(Vec<u8>, Kind)>, FileError> {
        let failed = |e: Errno| FileError::new("read directory", &self.path, e);
        let mut found = Vec::new();
        for entry in sys::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                sys::FileType::Unknown => match self.stat(name) {
                    Ok(stat) => stat.kind,
                    Err(error) if error.is_missing() => continue,
                    Err(error) => return Err(error),
                },
                known => known.into(),
            };
            found.push((name.to_vec(), kind));
        }
        Ok(found)
    }

    /// Status of the directory itself.
    pub fn own_stat(&self) -> Result<Stat, FileError> {
        self.own("stat", || sys::fstat(&self.fd)).map(Stat::from)
    }

    /// Status of `name`, of the link itself if it is one.
    pub fn stat(&self, name: impl AsRef<[u8]>) -> Result<Stat, FileError> {
        self.call("stat", name.as_ref(), |n| sys::statat(&self.fd, n, AtFlags::SYMLINK_NOFOLLOW)).map(Stat::from)
    }

    /// Opens the regular file `name` to read; never waits for the other end of a FIFO.
    pub fn open_file(&self, name: impl AsRef<[u8]>) -> Result<File, FileError> {
        self.open_regular(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens the regular file `name` to read and write, as it is.
    pub fn open_rw(&self, name: impl AsRef<[u8]>) -> Result<File, FileError> {
        self.open_regular(name.as_ref(), OFlags::RDWR)
    }

    /// Makes the file `name` (0600), to read and write; a name in use is an error, also a dangling link.
    pub fn create_new(&self, name: impl AsRef<[u8]>) -> Result<File, FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(PRIVATE_FILE.into());
        self.call("create", name.as_ref(), |n| sys::openat(&self.fd, n, flags, mode)).map(File::from)
    }

    /// Renames `name` to `new` in `to`, replacing a file or link (or an empty directory by a directory) there.
    pub fn rename(&self, name: impl AsRef<[u8]>, to: &Self, new: impl AsRef<[u8]>) -> Result<(), FileError> {
        let target = to.checked(new.as_ref())?;
        self.call("rename", name.as_ref(), |n| sys::renameat(&self.fd, n, &to.fd, target))
    }

    /// Gives the file or symlink `name` a second name `new` in `to`; a name in use is an error.
    pub fn link(&self, name: impl AsRef<[u8]>, to: &Self, new: impl AsRef<[u8]>) -> Result<(), FileError> {
        let target = to.checked(new.as_ref())?;
        self.call("link", name.as_ref(), |n| sys::linkat(&self.fd, n, &to.fd, target, AtFlags::empty()))
    }

    /// Removes the name of a file, symlink or special.
    pub fn unlink(&self, name: impl AsRef<[u8]>) -> Result<(), FileError> {
        self.call("remove", name.as_ref(), |n| sys::unlinkat(&self.fd, n, AtFlags::empty()))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: impl AsRef<[u8]>) -> Result<(), FileError> {
        self.call("remove directory", name.as_ref(), |n| sys::unlinkat(&self.fd, n, AtFlags::REMOVEDIR))
    }

    /// Makes the symlink `name`; `target` is not looked at. A name in use is an error.
    pub fn symlink(&self, target: &[u8], name: impl AsRef<[u8]>) -> Result<(), FileError> {
        self.call("make symlink", name.as_ref(), |n| sys::symlinkat(OsStr::from_bytes(target), &self.fd, n))
    }

    /// The target of the symlink `name`.
    pub fn read_link(&self, name: impl AsRef<[u8]>) -> Result<Vec<u8>, FileError> {
        self.call("read link", name.as_ref(), |n| sys::readlinkat(&self.fd, n, Vec::new()))
            .map(std::ffi::CString::into_bytes)
    }

    /// Sets the permission bits of the file or directory `name`; a symlink is refused.
    pub fn set_mode(&self, name: impl AsRef<[u8]>, mode: u16) -> Result<(), FileError> {
        // chmod knows no "nofollow" before Linux 6.6: pin the inode first, which needs no permission on it.
        let pin = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.call("open", name.as_ref(), |n| sys::openat(&self.fd, n, pin, Mode::empty()))?;
        self.call("set mode of", name.as_ref(), |_| {
            if Kind::from(sys::FileType::from_raw_mode(sys::fstat(&fd)?.st_mode)) == Kind::Symlink {
                return Err(Errno::LOOP);
            }
            sys::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode.into()))
        })
    }

    /// Sets the permission bits of the directory itself.
    pub fn set_own_mode(&self, mode: u16) -> Result<(), FileError> {
        self.own("set mode of", || sys::fchmod(&self.fd, Mode::from_raw_mode(mode.into())))
    }

    /// Sets the modification time of `name`, of the link itself if it is one; nanoseconds since the epoch.
    pub fn set_mtime(&self, name: impl AsRef<[u8]>, mtime: i64) -> Result<(), FileError> {
        let times = times(mtime);
        self.call("set time of", name.as_ref(), |n| sys::utimensat(&self.fd, n, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Sets the modification time of the directory itself; nanoseconds since the epoch.
    pub fn set_own_mtime(&self, mtime: i64) -> Result<(), FileError> {
        self.own("set time of", || sys::futimens(&self.fd, &times(mtime)))
    }

    /// Makes everything written so far to the file system of this directory durable.
    pub fn sync_fs(&self) -> Result<(), FileError> {
        self.own("sync", || sys::syncfs(&self.fd))
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> Result<(), FileError> {
        self.own("sync", || sys::fsync(&self.fd))
    }

    fn open_regular(&self, name: &[u8], access: OFlags) -> Result<File, FileError> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(self.call("open", name, |n| sys::openat(&self.fd, n, flags, Mode::empty()))?);
        match self.call("stat", name, |_| sys::fstat(&file)).map(Stat::from)?.kind {
            Kind::File => Ok(file),
            _ => Err(FileError::NotRegular { path: escape(self.join(name).as_os_str().as_bytes()) }),
        }
    }

    /// An operation on the directory itself.
    fn own<T>(&self, action: &'static str, operation: impl FnOnce() -> rustix::io::Result<T>) -> Result<T, FileError> {
        #[cfg(test)]
        fault::point().map_err(|e| FileError::new(action, &self.path, e))?;
        operation().map_err(|e| FileError::new(action, &self.path, e))
    }

    /// An operation on one name.
    fn call<T>(
        &self,
        action: &'static str,
        name: &[u8],
        operation: impl FnOnce(&OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, FileError> {
        let checked = self.checked(name)?;
        #[cfg(test)]
        fault::point().map_err(|e| FileError::new(action, &self.join(name), e))?;
        operation(checked).map_err(|e| FileError::new(action, &self.join(name), e))
    }

    /// `name`, if it is one: the kernel would walk anything else.
    fn checked<'a>(&self, name: &'a [u8]) -> Result<&'a OsStr, FileError> {
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(FileError::not_a_name(&self.join(name)));
        }
        Ok(OsStr::from_bytes(name))
    }

    fn join(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }
}

/// All of a file that should have `size` bytes, or more than that many if it has more: one call to the system for most.
pub fn read_small(file: &File, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size.saturating_add(1));
    while bytes.len() <= size {
        let room = bytes.capacity() - bytes.len();
        match read(file, spare_capacity(&mut bytes)) {
            // A regular file gives less only at its end.
            Ok(count) if count < room => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// Copies all of `from` to the empty file `to`, sharing the blocks where the file system can.
pub fn clone_file(mut from: &File, mut to: &File) -> io::Result<()> {
    if sys::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    from.rewind()?;
    to.rewind()?;
    io::copy(&mut from, &mut to).map(drop)
}

/// A path for people: control characters and what is not UTF-8 as `\#ooo` (octal), as rsync does.
pub fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    text.extend(c.encode_utf8(&mut buffer).bytes().map(octal));
                }
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(octal));
    }
    text
}

fn octal(byte: u8) -> String {
    format!("\\#{byte:03o}")
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.div_euclid(NANOS), tv_nsec: mtime.rem_euclid(NANOS) },
    }
}

#[cfg(test)]
mod tests;
