//! Small files that are either old or new, never half, also after a power cut.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::StateError;
use crate::store::files::{Dir, FileError};

/// How often a write begins again because another run swept its temporary file or holds that name.
const TRIES: u32 = 8;
/// First byte of temporary names; no name of ours starts with it.
const TEMPORARY: u8 = b'~';

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The content of the file `name`, `None` if there is no such file, an error if it is over `max` bytes.
pub(super) fn read(dir: &Dir, name: &str, max: usize) -> Result<Option<Vec<u8>>, StateError> {
    let file = match dir.open_file(name) {
        Ok(file) => file,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(|e| failed("read", dir, name, e))?;
    if content.len() > max {
        return Err(StateError::damaged(dir, name, format_args!("over {max} bytes")));
    }
    Ok(Some(content))
}

/// Replaces or makes the file `name`: written aside, synced, renamed, the directory synced.
pub(super) fn write(dir: &Dir, name: &str, content: &[u8]) -> Result<(), StateError> {
    let placed = |temporary: &str| dir.rename(temporary, dir, name);
    write_aside(dir, name, content, placed)
}

/// Makes the file `name`, whole at once; an existing one is left as it is and is an error of kind `AlreadyExists`.
pub(super) fn create(dir: &Dir, name: &str, content: &[u8]) -> Result<(), StateError> {
    let placed = |temporary: &str| {
        dir.link(temporary, dir, name)?;
        // It stands; a sweep takes the second name if this does not.
        let _ = dir.unlink(temporary);
        Ok(())
    };
    write_aside(dir, name, content, placed)
}

/// Removes the file `name`; none there is fine.
pub(super) fn remove(dir: &Dir, name: &str) -> Result<(), StateError> {
    match dir.unlink(name) {
        Ok(()) => Ok(dir.sync()?),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what killed runs left: temporary files that nobody holds locked.
pub(super) fn sweep(dir: &Dir) -> Result<(), StateError> {
    for (name, _) in dir.entries()? {
        if name.first() == Some(&TEMPORARY) && dir.open_file(&name).is_ok_and(|file| lock(&file)) {
            match dir.unlink(&name) {
                Err(error) if !error.is_missing() => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Marks a temporary file as in use for as long as it is open; `false` if another run has.
fn lock(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn write_aside(
    dir: &Dir,
    name: &str,
    content: &[u8],
    place: impl Fn(&str) -> Result<(), FileError>,
) -> Result<(), StateError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let temporary = format!("~{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let file = match dir.create_new(&temporary) {
            Err(error) if tries < TRIES && error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        };
        // Between its making and this lock a sweep of another run may have taken the file.
        if tries < TRIES && !lock(&file) {
            continue;
        }
        let filled = fill(&file, content).map_err(|e| failed("write", dir, name, e));
        let result = filled.and_then(|()| Ok(place(&temporary)?));
        match result {
            Ok(()) => return Ok(dir.sync()?),
            Err(StateError::File(error)) if tries < TRIES && error.is_missing() => {}
            Err(error) => {
                // The write's own error is the one to tell; the sweep takes what stays.
                let _ = dir.unlink(&temporary);
                return Err(error);
            }
        }
    }
}

fn fill(mut file: &File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()
}

fn failed(action: &'static str, dir: &Dir, name: &str, error: io::Error) -> StateError {
    FileError::new(action, &dir.path().join(name), error).into()
}
