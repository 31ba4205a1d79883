//! What a pass prints: rsync's lines, from the plan and the figures.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::format::{Numbers, Summary, local_time, permissions};
use super::itemize::{letters, name, suffix};
use super::levels::Levels;
use super::progress;
use crate::manifest::path::{TreePath, escape};
use crate::sync::pass::Report;
use crate::sync::plan::{Change, Estimate, Local, LocalKind, Origin, Plan, Rules, Step};

/// Widest column of a format.
const MAX_WIDTH: usize = 200;

/// What is to be printed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// A line per change, in rsync's `--out-format`.
    pub format: Option<String>,
    /// Also what stays as it is.
    pub unchanged: bool,
    /// How much of everything else.
    pub levels: Levels,
    /// What is left out or kept against expectation.
    pub remarks: bool,
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
        let (mut lines, levels) = (Vec::new(), self.levels);
        if levels.flist > 0 {
            lines.push("receiving incremental file list".to_owned());
        }
        if let (Some(dest), true) = (new_dest, self.format.is_some()) {
            lines.push(format!("created directory {dest}"));
        }
        lines.extend(self.remarks(report, rules));
        let format = self.format.as_deref().unwrap_or_default();
        lines.extend(self.changes(report, rules, format, true));
        if levels.progress > 1 {
            lines.extend(progress::whole(report, self.numbers));
        }
        if levels.stats > 1 {
            lines.push(String::new());
            lines.extend(self.stats(report, traffic));
        }
        if levels.stats > 0 {
            let [moved, size] = self.sums(report, traffic).lines();
            let dry = if dry { " (DRY RUN)" } else { "" };
            lines.extend([String::new(), moved, format!("{size}{dry}")]);
        }
        lines
    }

    /// The lines of the log file: without sums asked for, one line has them.
    pub fn log(&self, report: &Report, rules: &Rules, traffic: Traffic, dry: bool) -> Vec<String> {
        let Some(format) = &self.log else { return Vec::new() };
        let mut lines = vec!["receiving file list".to_owned()];
        if !dry {
            lines.extend(self.changes(report, rules, format, false));
        }
        if self.levels.stats > 1 {
            lines.extend(self.stats(report, traffic));
        }
        let (received, sent) = traffic;
        if self.levels.stats > 0 {
            lines.extend(self.sums(report, traffic).lines());
        } else {
            lines.push(format!("sent {sent} bytes  received {received} bytes  total size {}", report.plan.bytes));
        }
        lines
    }

    fn sums(&self, report: &Report, (received, sent): Traffic) -> Summary {
        Summary { sent, received, seconds: report.seconds, total: report.plan.bytes, numbers: self.numbers }
    }

    /// What is not as one might expect.
    fn remarks(&self, report: &Report, rules: &Rules) -> Vec<String> {
        let (plan, levels) = (&report.plan, self.levels);
        let mut lines = Vec::new();
        if self.remarks {
            lines.extend(report.unlisted.iter().map(|name| format!("skipping directory {name}")));
            if rules.delete && !report.is_whole() && !rules.ignore_errors {
                lines.push("IO error encountered -- skipping file deletion".to_owned());
            }
            if levels.nonreg > 0 {
                lines.extend(plan.skipped.iter().map(|path| format!("skipping non-regular file \"{path}\"")));
            }
            let kept = plan.kept_dirs.iter().chain(&plan.blocked);
            lines.extend(kept.map(|path| format!("cannot delete non-empty directory: {path}")));
        }
        if levels.symsafe > 0 {
            let told = |(path, target): &(TreePath, Vec<u8>)| {
                format!("ignoring unsafe symlink \"{path}\" -> \"{}\"", escape(target))
            };
            lines.extend(plan.unsafe_links.iter().map(told));
        }
        if levels.skip > 0 {
            lines.extend(plan.passed_over.iter().map(|(path, why)| why.line(path)));
        }
        if let Some(backup) = rules.backup.as_ref().filter(|_| levels.backup > 0) {
            let kept = plan.steps.iter().filter(|step| step.backs_up(backup));
            lines
                .extend(kept.map(|step| format!("backed up {} to {}", step.path, escape(&backup.name_of(&step.path)))));
        }
        lines
    }

    /// A line per change, deletions first; on a screen that wants it each file's progress follows its name.
    fn changes(&self, report: &Report, rules: &Rules, format: &str, on_screen: bool) -> Vec<String> {
        let plan = &report.plan;
        let tells_what = format.contains("%i") || format.contains("%o");
        let told = plan.in_rsync_order().filter(|step| self.unchanged || !is_silent(step, rules));
        let (mut lines, mut moved) = (Vec::new(), 0);
        for step in told {
            if format.is_empty() && (step.change != Change::Delete || self.levels.del == 0) {
                continue;
            }
            lines.push(match step.change {
                Change::Delete if !tells_what => format!("deleting {}", name(step)),
                Change::Keep if !tells_what => format!("{} is uptodate", name(step)),
                _ => line(step, rules, format, &TimeZone::system()),
            });
            if let Some(size) = transferred(step) {
                moved += 1;
                if on_screen && self.levels.progress == 1 {
                    lines.push(progress::of_file(report, step, size, moved, self.numbers));
                }
            }
        }
        lines
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
        Change::File { .. } | Change::Link { .. } => !matches!(old, Some(LocalKind::File { .. })),
        Change::Symlink(_) => !matches!(old, Some(LocalKind::Symlink(_))),
        _ => false,
    }
}

/// What is told of with `-ii` only: what stays, and what is taken from a basis directory as it is.
fn is_silent(step: &Step, rules: &Rules) -> bool {
    let from_basis = |there: &Local| match &step.change {
        Change::File { origin, .. } => matches!(origin, Origin::Basis { .. }),
        Change::Symlink(target) => matches!(&there.kind, LocalKind::Symlink(known) if known == target),
        change => *change == Change::MakeDir,
    };
    let is_link = matches!(step.change, Change::Symlink(_));
    let time = |there: &Local| step.mtime.is_none_or(|mtime| !rules.times || !rules.times_differ(there.mtime, mtime));
    let same = |there: &Local| (is_link || !rules.perms || there.mode == step.mode) && time(there);
    step.beside.as_ref().is_some_and(|there| from_basis(there) && same(there)) || step.change == Change::Keep
}

/// Size of a file that rsync would count as transferred.
pub(super) fn transferred(step: &Step) -> Option<u64> {
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
