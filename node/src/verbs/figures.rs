//! The block of rsync's `--stats`.

use super::format::{Numbers, Summary};

/// Regular files, directories and symlinks.
pub type Kinds = [u64; 3];

/// The figures of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Entries of the list.
    pub all: Kinds,
    /// Entries made.
    pub created: Kinds,
    /// Entries deleted.
    pub deleted: Kinds,
    /// Files brought or copied, and their bytes.
    pub moved: (u64, u64),
    /// Bytes of those that came from others.
    pub fetched: u64,
    /// Bytes of all files, and of the targets of symlinks.
    pub total: u64,
    /// Bytes of pages, and seconds until they were there.
    pub pages: (u64, f64),
    /// Bytes received and sent by all sockets.
    pub traffic: (u64, u64),
    /// Seconds of the run.
    pub seconds: f64,
}

impl Figures {
    /// The block.
    pub fn lines(&self, numbers: Numbers) -> Vec<String> {
        let (moved, bytes) = self.moved;
        let (received, sent) = self.traffic;
        vec![
            format!("Number of files: {}", kinds(numbers, self.all)),
            format!("Number of created files: {}", kinds(numbers, self.created)),
            format!("Number of deleted files: {}", kinds(numbers, self.deleted)),
            format!("Number of regular files transferred: {}", numbers.count(moved)),
            format!("Total file size: {} bytes", numbers.show(self.total)),
            format!("Total transferred file size: {} bytes", numbers.show(bytes)),
            format!("Literal data: {} bytes", numbers.show(self.fetched)),
            format!("Matched data: {} bytes", numbers.show(bytes.saturating_sub(self.fetched))),
            format!("File list size: {}", numbers.show(self.pages.0)),
            // Nobody generates a list: it was published.
            "File list generation time: 0.000 seconds".to_owned(),
            format!("File list transfer time: {:.3} seconds", self.pages.1),
            format!("Total bytes sent: {}", numbers.show(sent)),
            format!("Total bytes received: {}", numbers.show(received)),
        ]
    }

    /// The two lines at the end.
    pub fn sums(&self, numbers: Numbers) -> [String; 2] {
        let (received, sent) = self.traffic;
        Summary { sent, received, seconds: self.seconds, total: self.total, numbers }.lines()
    }
}

/// `6 (reg: 3, dir: 2, link: 1)`.
fn kinds(numbers: Numbers, [files, dirs, links]: Kinds) -> String {
    let named = [(files, "reg"), (dirs, "dir"), (links, "link")];
    let parts: Vec<String> = named
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{name}: {}", numbers.count(*count)))
        .collect();
    let total = numbers.count(files + dirs + links);
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}
