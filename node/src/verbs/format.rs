//! Lines that look exactly as rsync's: tools that watch mirrors read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Width of the size column of a listing.
const SIZE_WIDTH: usize = 14;
/// ... where numbers have no commas.
const PLAIN_WIDTH: usize = 11;
/// What file systems commonly say of a directory's size, bytes.
pub const DIR_SIZE: u64 = 4096;
/// Prefixes of human-readable sizes.
const PREFIXES: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

/// How numbers are written: rsync's levels of `-h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Numbers {
    /// `--no-h`: digits.
    Plain,
    /// Digits in groups of three.
    #[default]
    Commas,
    /// `-h`: units of 1000.
    Thousands,
    /// `-hh`: units of 1024.
    Binary,
}

impl Numbers {
    /// A whole number.
    #[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
    pub fn show(self, value: u64) -> String {
        let unit = match self {
            Self::Plain => return value.to_string(),
            Self::Commas => return commas(value),
            Self::Thousands => 1000.0,
            Self::Binary => 1024.0,
        };
        let mut scaled = value as f64;
        let mut prefix = None;
        for next in PREFIXES {
            if scaled < unit {
                break;
            }
            scaled /= unit;
            prefix = Some(next);
        }
        prefix.map_or_else(|| value.to_string(), |prefix| format!("{scaled:.2}{prefix}"))
    }

    /// A count, which never gets a unit.
    pub fn count(self, value: u64) -> String {
        if self == Self::Plain { value.to_string() } else { commas(value) }
    }

    /// A number with two decimals.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
    fn decimals(self, value: f64) -> String {
        match self {
            Self::Thousands | Self::Binary if value >= 1000.0 => self.show(value as u64),
            _ => {
                let hundredths = (value * 100.0).round() as u64;
                format!("{}.{:02}", self.count(hundredths / 100), hundredths % 100)
            }
        }
    }
}

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
    /// `T`: the time is not kept, and becomes that of the transfer.
    pub now: bool,
    /// `p`: permissions.
    pub perms: bool,
}

/// The eleven letters of an entry: `>f.st......`. `changes` is none for what is new.
pub fn item(update: Update, kind: Kind, changes: Option<Changes>) -> String {
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
        // Nothing to tell of what is not transferred: blank.
        Some(changes) if changes == Changes::default() && update != '>' => " ".repeat(9),
        Some(Changes { content, size, time, now, perms }) => {
            let time = if now { (true, 'T') } else { (time, 't') };
            let marks = [(content, 'c'), (size, 's'), time, (perms, 'p')];
            marks.iter().map(|(set, letter)| if *set { *letter } else { '.' }).chain(".....".chars()).collect()
        }
    };
    format!("{update}{kind}{attributes}")
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
    pub fn line(&self, numbers: Numbers, zone: &TimeZone) -> String {
        let letter = match self.kind {
            Kind::File => '-',
            Kind::Dir => 'd',
            Kind::Symlink => 'l',
        };
        let (permissions, size) = (permissions(self.mode), numbers.show(self.size));
        let (width, time) =
            (if numbers == Numbers::Plain { PLAIN_WIDTH } else { SIZE_WIDTH }, local_time(self.mtime, zone));
        let arrow = self.target.map(|target| format!(" -> {target}")).unwrap_or_default();
        format!("{letter}{permissions} {size:>width$} {time} {}{arrow}", self.path)
    }
}

/// `rwxr-xr-x`.
pub fn permissions(mode: u16) -> String {
    let bit = |at: usize| if mode & (0o400 >> at) == 0 { '-' } else { ['r', 'w', 'x'][at % 3] };
    let mut text: String = (0..9).map(bit).collect();
    if mode & 0o1000 != 0 {
        text.replace_range(8.., if mode & 1 == 0 { "T" } else { "t" });
    }
    text
}

/// `2026/11/23 02:52:03`.
pub fn local_time(mtime: i64, zone: &TimeZone) -> String {
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
    /// How numbers are written.
    pub numbers: Numbers,
}

impl Summary {
    /// `sent N bytes  received N bytes  N bytes/sec`, `total size is N  speedup is N.NN`.
    #[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
    pub fn lines(&self) -> [String; 2] {
        let moved = self.sent.saturating_add(self.received);
        // rsync adds half a second, so that short runs do not boast.
        let rate = moved as f64 / (0.5 + self.seconds.max(0.0));
        let speedup = self.total as f64 / moved.max(1) as f64;
        let numbers = self.numbers;
        let (sent, received, rate) = (numbers.show(self.sent), numbers.show(self.received), numbers.decimals(rate));
        // The speedup is no amount: it never gets a unit.
        let speedup = if numbers == Numbers::Plain { numbers } else { Numbers::Commas }.decimals(speedup);
        [
            format!("sent {sent} bytes  received {received} bytes  {rate} bytes/sec"),
            format!("total size is {}  speedup is {speedup}", numbers.show(self.total)),
        ]
    }
}

/// Digits in groups of three: `307,541`.
fn commas(value: u64) -> String {
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
