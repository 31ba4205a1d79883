//! What a pass prints: rsync's lines, from the plan and the figures.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::format::{Numbers, Summary, local_time, permissions};
use super::itemize::{letters, name, suffix};
use crate::sync::pass::Report;
use crate::sync::plan::{Change, Estimate, LocalKind, Origin, Plan, Rules, Step};

/// Widest column of a format.
const MAX_WIDTH: usize = 200;

/// What is to be printed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// A line per change, in rsync's `--out-format`.
    pub format: Option<String>,
    /// Also what stays as it is.
    pub unchanged: bool,
    /// What is left out or kept against expectation.
    pub remarks: bool,
    /// `receiving incremental file list` before it, and the two lines of sums after it.
    pub frame: bool,
    /// `--stats`.
    pub stats: bool,
    /// How numbers are written.
    pub numbers: Numbers,
    /// `--log-file-format`, for the log file.
    pub log: Option<String>,
}

/// Bytes received and sent by all sockets.
pub type Traffic = (u64, u64);

impl Show {
    /// The lines of a pass, in order. `new_dest` is the destination's name if the pass makes it.
    pub fn lines(
        &self,
        report: &Report,
        rules: &Rules,
        traffic: Traffic,
        new_dest: Option<&str>,
        dry: bool,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if self.frame {
            lines.push("receiving incremental file list".to_owned());
        }
        if let (Some(dest), true) = (new_dest, self.frame || self.format.is_some()) {
            lines.push(format!("created directory {dest}"));
        }
        if self.remarks {
            let skipped = report.plan.skipped.iter().map(|path| format!("skipping non-regular file \"{path}\""));
            let kept = report
                .plan
                .kept_dirs
                .iter()
                .chain(&report.plan.blocked)
                .map(|path| format!("cannot delete non-empty directory: {path}"));
            lines.extend(skipped.chain(kept));
        }
        if let Some(format) = &self.format {
            lines.extend(self.changes(&report.plan, rules, format));
        }
        if self.stats {
            lines.push(String::new());
            lines.extend(self.stats(report, traffic));
        }
        if self.frame || self.stats {
            let (received, sent) = traffic;
            let (seconds, total, numbers) = (report.seconds, report.plan.bytes, self.numbers);
            let [moved, size] = Summary { sent, received, seconds, total, numbers }.lines();
            let dry = if dry { " (DRY RUN)" } else { "" };
            lines.extend([String::new(), moved, format!("{size}{dry}")]);
        }
        lines
    }

    /// A line per change, deletions first.
    pub fn changes(&self, plan: &Plan, rules: &Rules, format: &str) -> Vec<String> {
        let tells_what = format.contains("%i") || format.contains("%o");
        let told = plan.in_rsync_order().filter(|step| self.unchanged || !is_silent(step));
        told.map(|step| match step.change {
            Change::Delete if !tells_what => format!("deleting {}", name(step)),
            Change::Keep if !tells_what => format!("{} is uptodate", name(step)),
            _ => line(step, rules, format, &TimeZone::system()),
        })
        .collect()
    }

    fn stats(&self, report: &Report, (received, sent): Traffic) -> Vec<String> {
        let (plan, numbers) = (&report.plan, self.numbers);
        let (dirs, links) = plan.others;
        let all = kinds(numbers, [plan.files, dirs, links]);
        let created = kinds(numbers, count(plan, is_new));
        let deleted = kinds(numbers, count(plan, |step| step.change == Change::Delete));
        let moved = plan.steps.iter().filter_map(transferred);
        let (files, bytes) = moved.fold((0u64, 0u64), |(files, bytes), size| (files + 1, bytes.saturating_add(size)));
        let fetched: u64 = plan.wants().iter().map(|want| want.size).sum();
        let estimate = report.estimate.iter().flat_map(|estimate| estimated(estimate, numbers));
        let lines = vec![
            format!("Number of files: {all}"),
            format!("Number of created files: {created}"),
            format!("Number of deleted files: {deleted}"),
            format!("Number of regular files transferred: {}", numbers.count(files)),
            format!("Total file size: {} bytes", numbers.show(plan.bytes)),
            format!("Total transferred file size: {} bytes", numbers.show(bytes)),
            format!("Literal data: {} bytes", numbers.show(fetched)),
            format!("Matched data: {} bytes", numbers.show(bytes.saturating_sub(fetched))),
            format!("File list size: {}", numbers.show(report.page_bytes)),
            // Nobody generates a list: it was published.
            "File list generation time: 0.000 seconds".to_owned(),
            format!("File list transfer time: {:.3} seconds", report.page_seconds),
            format!("Total bytes sent: {}", numbers.show(sent)),
            format!("Total bytes received: {}", numbers.show(received)),
        ];
        lines.into_iter().chain(estimate).collect()
    }
}

/// What a dry run says of the bytes to come.
fn estimated(estimate: &Estimate, numbers: Numbers) -> [String; 3] {
    let (deltas, wholes) = (numbers.count(estimate.deltas), numbers.count(estimate.wholes));
    let total = |deltas: u64| numbers.show(deltas.saturating_add(estimate.whole));
    let (both, new) = (total(estimate.patched), total(estimate.matched));
    [
        format!("Files to bring as deltas: {deltas} (new versions: {} bytes)", numbers.show(estimate.delta_size)),
        format!("Files to bring whole: {wholes} ({} bytes)", numbers.show(estimate.whole)),
        format!(
            "Estimated bytes: {both} from sources that have the old versions, {new} from others; {} round trips",
            numbers.count(estimate.round_trips)
        ),
    ]
}

fn is_new(step: &Step) -> bool {
    let old = step.replaces.as_ref().map(|old| &old.kind);
    match &step.change {
        Change::MakeDir => true,
        Change::File { .. } | Change::Link(_) => !matches!(old, Some(LocalKind::File { .. })),
        Change::Symlink(_) => !matches!(old, Some(LocalKind::Symlink(_))),
        _ => false,
    }
}

/// What is told of with `-ii` only: what stays, and what becomes a link into `--link-dest`.
fn is_silent(step: &Step) -> bool {
    let linked = matches!(step.change, Change::File { origin: Origin::Basis { link: true, .. }, .. });
    linked || step.change == Change::Keep
}

/// Size of a file that rsync would count as transferred.
fn transferred(step: &Step) -> Option<u64> {
    match &step.change {
        Change::File { size, origin: Origin::Fetch | Origin::Copy(_) | Origin::Move(_), .. } => Some(*size),
        _ => None,
    }
}

/// Regular files, directories and symlinks among the steps.
fn count(plan: &Plan, counts: impl Fn(&Step) -> bool) -> [u64; 3] {
    let mut sums = [0; 3];
    for step in plan.steps.iter().filter(|step| counts(step)) {
        let at = match (&step.change, step.replaces.as_ref().map(|old| &old.kind)) {
            (Change::MakeDir, _) | (Change::Delete, Some(LocalKind::Dir)) => 1,
            (Change::Symlink(_), _) | (Change::Delete, Some(LocalKind::Symlink(_))) => 2,
            _ => 0,
        };
        sums[at] += 1;
    }
    sums
}

/// `6 (reg: 3, dir: 2, link: 1)`.
fn kinds(numbers: Numbers, [files, dirs, links]: [u64; 3]) -> String {
    let named = [(files, "reg"), (dirs, "dir"), (links, "link")];
    let parts: Vec<String> = named
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{name}: {}", numbers.count(*count)))
        .collect();
    let total = numbers.count(files + dirs + links);
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}

/// One line in rsync's format language (rsyncd.conf(5), "log format").
fn line(step: &Step, rules: &Rules, format: &str, zone: &TimeZone) -> String {
    let mut text = String::new();
    let mut rest = format.chars().peekable();
    while let Some(char) = rest.next() {
        if char != '%' {
            text.push(char);
            continue;
        }
        let mut width = String::new();
        while let Some(next) = rest.next_if(|next| *next == '-' || *next == '\'' || next.is_ascii_digit()) {
            if next != '\'' {
                width.push(next);
            }
        }
        let Some(letter) = rest.next() else { break };
        let value = field(letter, step, rules, zone).unwrap_or_else(|| format!("%{letter}"));
        let columns = width.trim_start_matches('-').parse().unwrap_or(0).min(MAX_WIDTH);
        text.push_str(&if width.starts_with('-') {
            format!("{value:<columns$}")
        } else {
            format!("{value:>columns$}")
        });
    }
    text
}

fn field(letter: char, step: &Step, rules: &Rules, zone: &TimeZone) -> Option<String> {
    let (size, id) = match &step.change {
        Change::File { size, id, .. } => (*size, Some(id)),
        _ => match step.replaces.as_ref().map(|old| &old.kind) {
            Some(LocalKind::File { size, id, .. }) => (*size, id.as_ref()),
            _ => (0, None),
        },
    };
    let fetched = matches!(step.change, Change::File { origin: Origin::Fetch, .. });
    let mtime = step.mtime.or(step.replaces.as_ref().map(|old| old.mtime)).unwrap_or_default();
    Some(match letter {
        'i' => letters(step, rules),
        'n' => name(step),
        'f' => name(step).trim_end_matches('/').to_owned(),
        'L' => suffix(step),
        'l' => size.to_string(),
        'b' => if fetched { size } else { 0 }.to_string(),
        'c' => "0".to_owned(),
        'C' => id.map(|id| id.to_string()).unwrap_or_default(),
        'o' => if step.change == Change::Delete { "del." } else { "recv" }.to_owned(),
        'M' => local_time(mtime, zone).replacen(' ', "-", 1),
        't' => now(zone),
        'B' => permissions(step.mode),
        'U' | 'G' => "0".to_owned(),
        'p' => std::process::id().to_string(),
        'a' | 'h' | 'm' | 'P' | 'u' => String::new(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

/// `2026/11/23 02:52:03`.
pub fn now(zone: &TimeZone) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    local_time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX), zone)
}
