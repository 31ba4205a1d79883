//! What rsync did, for a program that reads along.

use std::ffi::OsString;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::{RSYNC, ended, missing, next_line};
use crate::error::Failure;

/// The lines of `--stats`, and what they are called in the report.
const FIGURES: [(&str, &str); 5] = [
    ("Number of files: ", "files"),
    ("Number of regular files transferred: ", "transferred"),
    ("Number of deleted files: ", "deleted"),
    ("Total bytes received: ", "received"),
    ("Total bytes sent: ", "sent"),
];

/// Runs rsync to its end, its lines on stderr, and gives the `done` event.
///
/// # Errors
/// rsync's own code, and 10 where it is not installed.
pub(super) async fn reported(words: &[OsString]) -> Result<Value, Failure> {
    let mut command = Command::new(RSYNC);
    command.args(words).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| missing(&error))?;
    let mut done = json!({ "event": "done" });
    if let Some(stdout) = child.stdout.take() {
        let (mut lines, mut stderr) = (BufReader::new(stdout), tokio::io::stderr());
        while let Some(line) = next_line(&mut lines).await {
            if let Some((name, figure)) = figure(&String::from_utf8_lossy(&line)) {
                done[name] = figure.into();
            }
            // Nobody may be left to read it.
            let _ = stderr.write_all(&line).await;
        }
    }
    ended(child.wait().await.map_err(|error| missing(&error))?)?;
    done["from"] = json!({ "origin": 0, "peers": 0, "web_seeds": 0, "classic": done["received"] });
    Ok(done)
}

fn figure(line: &str) -> Option<(&'static str, u64)> {
    let (name, rest) = FIGURES.iter().find_map(|(start, name)| Some((*name, line.strip_prefix(start)?)))?;
    let digits = rest.chars().take_while(|char| char.is_ascii_digit() || *char == ',').filter(char::is_ascii_digit);
    Some((name, digits.collect::<String>().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_rsync() {
        assert_eq!(figure("Number of files: 1,302 (reg: 1,300, dir: 2)"), Some(("files", 1302)));
        assert_eq!(figure("Number of deleted files: 0"), Some(("deleted", 0)));
        assert_eq!(figure("Total bytes received: 4,005,006"), Some(("received", 4_005_006)));
        assert_eq!(figure("Total file size: 9 bytes"), None);
        assert_eq!(figure("Number of files: many"), None);
    }
}
