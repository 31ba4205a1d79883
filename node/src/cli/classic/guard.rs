//! What rsync would delete or replace of a replica, before it does: an origin that is empty or broken takes nothing away.

use std::path::Path;
use std::process::Stdio;

use tokio::io::BufReader;
use tokio::process::Command;

use super::{Classic, RSYNC};
use crate::error::{Exit, Failure};
use crate::sync::SyncError;
use crate::sync::dest::OWN_DIR;
use crate::sync::pass::UNLESS;
use crate::sync::plan::is_much;

impl Classic {
    /// Refuses a run that would delete or replace much of what stands there, as every pass does.
    ///
    /// # Errors
    /// It would (25), or rsync cannot be run (10).
    pub async fn guard(&self) -> Result<(), Failure> {
        let Some(dest) = self.dest.clone().filter(|_| self.watched) else { return Ok(()) };
        let counting = tokio::task::spawn_blocking(move || count(Path::new(&dest)));
        let before = counting.await.map_err(|error| Failure::new(Exit::Memory, error))?;
        if !is_much(before, before) {
            return Ok(());
        }
        let lost = self.would_lose().await?;
        if is_much(lost, before) {
            let reason = format!("{lost} of {before} entries would be deleted or replaced");
            return Err(SyncError::Guarded { reason, unless: UNLESS }.into());
        }
        Ok(())
    }

    /// Asks rsync. What it has to complain of it says when it really runs.
    async fn would_lose(&self) -> Result<u64, Failure> {
        let mut words = self.with(&["--dry-run", "--out-format=%i"]);
        // Its lines are for us alone.
        words.retain(|word| {
            let word = word.as_encoded_bytes();
            !(word == b"--quiet" || word == b"-q" || word.starts_with(b"--log-file"))
        });
        let mut command = Command::new(RSYNC);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| super::missing(&error))?;
        let Some(stdout) = child.stdout.take() else { return Ok(0) };
        let (mut lines, mut lost) = (BufReader::new(stdout), 0);
        while let Some(line) = super::next_line(&mut lines).await {
            lost += u64::from(is_loss(&line));
        }
        let _ = child.wait().await;
        Ok(lost)
    }
}

/// An itemized line of something that stands there and goes, or gets other content.
fn is_loss(line: &[u8]) -> bool {
    line.starts_with(b"*deleting") || (line.starts_with(b">f") && !line.contains(&b'+'))
}

/// Entries below a directory, ours apart.
fn count(root: &Path) -> u64 {
    let (mut count, mut open) = (0, vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if dir == root && entry.file_name() == OWN_DIR {
                continue;
            }
            count += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_told_from_what_comes() {
        for (line, expected) in [
            ("*deleting   ", true),
            (">f.st...... ", true),
            (">f+++++++++ ", false),
            ("cd+++++++++ ", false),
            (".f..t...... ", false),
            ("receiving incremental file list", false),
        ] {
            assert_eq!(is_loss(line.as_bytes()), expected, "{line}");
        }
    }
}
