//! Lines that look exactly as rsync's: tools that watch mirrors read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

#[cfg(test)]
mod tests;

/// Width of the size column of a listing.
const SIZE_WIDTH: usize = 14;
/// Prefixes of human-readable sizes (powers of 1000, as `-h` of rsync 3).
const PREFIXES: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

/// What kind of entry a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink.
    Symlink,
}

/// What happens to an entry: the first letter of an itemized line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// `>`: its content is brought.
    Receive,
    /// `c`: a directory or symlink is made.
    Create,
    /// `h`: it becomes a hard link to another entry.
    HardLink,
    /// `.`: at most attributes change.
    Attributes,
}

/// Which properties differ from what stands there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// `c`: content of the same size, or a symlink's target.
    pub content: bool,
    /// `s`: size.
    pub size: bool,
    /// `t`: modification time.
    pub time: bool,
    /// `p`: permissions.
    pub perms: bool,
}

/// The itemized line of an entry: `>f.st...... name`. `changes` is none for what is new. `path` is escaped; `suffix` is what
/// follows it, such as `/` or ` -> target`.
pub fn item(update: Update, kind: Kind, changes: Option<Changes>, path: &str, suffix: &str) -> String {
    let update = match update {
        Update::Receive => '>',
        Update::Create => 'c',
        Update::HardLink => 'h',
        Update::Attributes => '.',
    };
    let kind = match kind {
        Kind::File => 'f',
        Kind::Dir => 'd',
        Kind::Symlink => 'L',
    };
    let attributes = match changes {
        None => "+".repeat(9),
        Some(changes) if changes == Changes::default() => " ".repeat(9),
        Some(Changes { content, size, time, perms }) => {
            let marks = [(content, 'c'), (size, 's'), (time, 't'), (perms, 'p')];
            marks.iter().map(|(set, letter)| if *set { *letter } else { '.' }).chain(".....".chars()).collect()
        }
    };
    format!("{update}{kind}{attributes} {path}{suffix}")
}

/// The itemized line of a deletion; `path` is escaped and ends with `/` for a directory.
pub fn deleting(path: &str) -> String {
    format!("*deleting   {path}")
}

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since the epoch.
    pub mtime: i64,
    /// Escaped path.
    pub path: &'a str,
    /// A symlink's target, escaped.
    pub target: Option<&'a str>,
}

impl Listed<'_> {
    /// `-rw-r--r--              6 2026/11/23 02:52:03 a.txt`, in the time of `zone`.
    pub fn line(&self, zone: &TimeZone) -> String {
        let letter = match self.kind {
            Kind::File => '-',
            Kind::Dir => 'd',
            Kind::Symlink => 'l',
        };
        let (permissions, size, time) = (permissions(self.mode), commas(self.size), local_time(self.mtime, zone));
        let arrow = self.target.map(|target| format!(" -> {target}")).unwrap_or_default();
        format!("{letter}{permissions} {size:>SIZE_WIDTH$} {time} {}{arrow}", self.path)
    }
}

fn permissions(mode: u16) -> String {
    let bit = |at: usize| if mode & (0o400 >> at) == 0 { '-' } else { ['r', 'w', 'x'][at % 3] };
    let mut text: String = (0..9).map(bit).collect();
    if mode & 0o1000 != 0 {
        text.replace_range(8.., if mode & 1 == 0 { "T" } else { "t" });
    }
    text
}

fn local_time(mtime: i64, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(i128::from(mtime)) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y/%m/%d %H:%M:%S").to_string(),
        Err(_) => "????/??/?? ??:??:??".to_owned(),
    }
}

/// The two lines at the end of `-v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Seconds of the run.
    pub seconds: f64,
    /// Bytes of the tree.
    pub total: u64,
    /// `-h`.
    pub human: bool,
}

impl Summary {
    /// `sent N bytes  received N bytes  N bytes/sec`, `total size is N  speedup is N.NN`.
    #[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative; saturates")]
    pub fn lines(&self) -> [String; 2] {
        let moved = self.sent.saturating_add(self.received);
        // rsync adds half a second, so that short runs do not boast.
        let rate = moved as f64 / (0.5 + self.seconds.max(0.0));
        let speedup = self.total as f64 / moved.max(1) as f64;
        let number = |value| if self.human { human(value) } else { commas(value) };
        let rate = if self.human { human(rate as u64) } else { decimals(rate) };
        [
            format!("sent {} bytes  received {} bytes  {rate} bytes/sec", number(self.sent), number(self.received)),
            format!("total size is {}  speedup is {}", number(self.total), decimals(speedup)),
        ]
    }
}

/// Digits in groups of three: `307,541`.
pub fn commas(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.23G`: two decimals and a prefix from 1000 on, as `-h`.
#[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
pub fn human(value: u64) -> String {
    let mut scaled = value as f64;
    let mut prefix = None;
    for next in PREFIXES {
        if scaled < 1000.0 {
            break;
        }
        scaled /= 1000.0;
        prefix = Some(next);
    }
    prefix.map_or_else(|| value.to_string(), |prefix| format!("{scaled:.2}{prefix}"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative; saturates")]
fn decimals(value: f64) -> String {
    let hundredths = (value * 100.0).round() as u64;
    format!("{}.{:02}", commas(hundredths / 100), hundredths % 100)
}
