//! One run at a time: a lock that dies with its holder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// A lock that was not got.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it (exit 46).
    #[error("{} is locked by another run", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be made or locked.
    #[error("lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// An exclusive lock (flock) on a file, released on drop and by the kernel when the process ends, however it ends.
/// The file itself stays: removing it would let two runs hold locks on two inodes of one name.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on `path`, making the file (0600) if it is absent; never waits.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.into(), source };
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockError::Busy { path: path.into() }),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_second_is_told_the_path_and_drop_frees() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert!(matches!(error, LockError::Busy { .. }));
        assert!(error.to_string().contains(path.to_str().unwrap()));
        drop(held);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn kill_frees() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = std::fs::File::create(&path).unwrap();
        // The child holds the lock by an inherited descriptor, its standard input.
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::from(file)).spawn().unwrap();
        assert!(matches!(Lock::acquire(&path), Err(LockError::Busy { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("lock")).unwrap();
        assert!(matches!(Lock::acquire(&dir.path().join("lock")), Err(LockError::Io { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }
}
