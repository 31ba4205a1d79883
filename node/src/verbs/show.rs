//! What a pass prints: rsync's lines, from the plan and the figures.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::figures::{Figures, Kinds};
use super::format::{DIR_SIZE, Numbers, local_time, permissions};
use super::itemize::{letters, name, suffix};
use super::levels::Levels;
use super::progress;
use crate::manifest::ContentId;
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
    /// How the list is told of, where it is.
    pub announced: String,
    /// Deletions are told of after everything else, as rsync does of `--delete-after` and `--delete-delay`.
    pub deletes_last: bool,
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
            lines.push(self.announced.clone());
        }
        let itemizes = self.format.as_deref().is_some_and(|format| has(format, b"i"));
        if let (Some(dest), true) = (new_dest, levels.name > 0 || itemizes) {
            lines.push(format!("created directory {dest}"));
        }
        lines.extend(self.remarks(report, rules));
        let format = self.format.as_deref().unwrap_or_default();
        lines.extend(self.changes(report, rules, format, Place::Screen { dry }));
        if levels.progress > 1 {
            lines.extend(progress::whole(report, self.numbers));
        }
        let figures = figures(report, traffic);
        if levels.stats > 1 {
            lines.push(String::new());
            lines.extend(self.stats(report, &figures));
        }
        if levels.stats > 0 {
            let [moved, size] = figures.sums(self.numbers);
            let dry = if dry { " (DRY RUN)" } else { "" };
            lines.extend([String::new(), moved, format!("{size}{dry}")]);
        }
        lines
    }

    /// The lines of the log file: without sums asked for, one line has them.
    pub fn log(&self, report: &Report, rules: &Rules, traffic: Traffic, dry: bool) -> Vec<String> {
        let Some(format) = &self.log else { return Vec::new() };
        let mut lines = vec!["receiving file list".to_owned()];
        lines.extend(self.changes(report, rules, format, Place::Log { dry }));
        let figures = figures(report, traffic);
        if self.levels.stats > 1 {
            lines.extend(self.stats(report, &figures));
        }
        let (received, sent) = traffic;
        if self.levels.stats > 0 {
            let [moved, size] = figures.sums(self.numbers);
            lines.extend([moved, format!("{size}{}", if dry { " (DRY RUN)" } else { "" })]);
        } else {
            lines.push(format!("sent {sent} bytes  received {received} bytes  total size {}", report.plan.bytes));
        }
        lines
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
    fn changes(&self, report: &Report, rules: &Rules, format: &str, place: Place) -> Vec<String> {
        let (Place::Screen { dry } | Place::Log { dry }) = place;
        let on_screen = place == Place::Screen { dry };
        // What is told in a log of what stays is what a screen with such a format would tell.
        let itemizes = self.format.as_deref().is_some_and(|format| has(format, b"i"));
        let zone = TimeZone::system();
        let (mut lines, mut moved) = (Vec::new(), 0);
        for step in report.plan.in_rsync_order(dry, self.deletes_last) {
            if !self.tells(step, rules, itemizes, on_screen) || (!on_screen && dry && waits(step)) {
                continue;
            }
            let deletes = step.change == Change::Delete;
            if format.is_empty() && (!deletes || (on_screen && self.levels.del == 0)) {
                continue;
            }
            lines.push(match step.change {
                Change::Delete if !has(format, b"io") => format!("deleting {}", name(step)),
                Change::Keep { .. } if !itemizes => format!("{} is uptodate", name(step)),
                Change::Touch if !itemizes => name(step),
                _ => line(step, rules, format, &zone),
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

    /// True if a step has its line: `itemizes` where the format has rsync's letters. Otherwise, as in rsync, attributes alone are
    /// told of for directories only.
    fn tells(&self, step: &Step, rules: &Rules, itemizes: bool, on_screen: bool) -> bool {
        let is_dir = step.replaces.as_ref().is_some_and(|old| old.kind == LocalKind::Dir);
        match step.change {
            Change::Keep { .. } | Change::Touch if !itemizes => self.unchanged && on_screen && !is_dir,
            Change::Keep { .. } => self.unchanged,
            _ => (itemizes && self.unchanged) || !is_silent(step, rules),
        }
    }

    fn stats(&self, report: &Report, figures: &Figures) -> Vec<String> {
        let estimate = report.estimate.iter().flat_map(|estimate| estimated(estimate, self.numbers));
        figures.lines(self.numbers).into_iter().chain(estimate).collect()
    }
}

fn figures(report: &Report, traffic: Traffic) -> Figures {
    let plan = &report.plan;
    let (dirs, links) = plan.others;
    let moved = plan.steps.iter().filter_map(transferred);
    Figures {
        all: [plan.files, dirs, links],
        created: count(plan, is_new),
        deleted: count(plan, |step| step.change == Change::Delete),
        moved: moved.fold((0, 0), |(files, bytes), size| (files + 1, bytes.saturating_add(size))),
        fetched: plan.wants().iter().fold(0, |sum: u64, want| sum.saturating_add(want.size)),
        total: plan.bytes,
        pages: (report.page_bytes, report.page_seconds),
        traffic,
        seconds: report.seconds,
    }
}

/// Where lines go, and whether of a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Screen { dry: bool },
    Log { dry: bool },
}

/// What a log of a dry run does not have: deletions, and what would be brought.
fn waits(step: &Step) -> bool {
    step.change == Change::Delete || transferred(step).is_some()
}

/// True if the format has one of the letters.
pub fn has(format: &str, letters: &[u8]) -> bool {
    let mut rest = format.bytes();
    while rest.by_ref().any(|byte| byte == b'%') {
        let is_column = |byte: &u8| matches!(byte, b'-' | b'\'') || byte.is_ascii_digit();
        if rest.by_ref().find(|byte| !is_column(byte)).is_some_and(|letter| letters.contains(&letter)) {
            return true;
        }
    }
    false
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

/// What is told of with `-ii` only: what is taken from a basis directory as it is.
fn is_silent(step: &Step, rules: &Rules) -> bool {
    let from_basis = |there: &Local| match &step.change {
        Change::File { origin, .. } => matches!(origin, Origin::Basis { .. }),
        Change::Symlink(target) => matches!(&there.kind, LocalKind::Symlink(known) if known == target),
        change => *change == Change::MakeDir,
    };
    let is_link = matches!(step.change, Change::Symlink(_));
    let time = |there: &Local| step.mtime.is_none_or(|mtime| !rules.times || !rules.times_differ(there.mtime, mtime));
    let same = |there: &Local| (is_link || !rules.perms || there.mode == step.mode) && time(there);
    step.beside.as_ref().is_some_and(|there| from_basis(there) && same(there))
}

/// Size of a file that rsync would count as transferred.
pub(super) fn transferred(step: &Step) -> Option<u64> {
    match &step.change {
        Change::File { size, origin: Origin::Fetch | Origin::Copy(_) | Origin::Move(_), .. } => Some(*size),
        _ => None,
    }
}

/// Regular files, directories and symlinks among the steps.
fn count(plan: &Plan, counts: impl Fn(&Step) -> bool) -> Kinds {
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

/// One line in rsync's format language (rsyncd.conf(5), "log format").
fn line(step: &Step, rules: &Rules, format: &str, zone: &TimeZone) -> String {
    let mut text = String::new();
    let mut rest = format.chars().peekable();
    while let Some(char) = rest.next() {
        if char != '%' {
            text.push(char);
            continue;
        }
        let (mut width, mut quotes) = (String::new(), 0);
        while let Some(next) = rest.next_if(|next| *next == '-' || *next == '\'' || next.is_ascii_digit()) {
            if next == '\'' { quotes += 1 } else { width.push(next) }
        }
        let Some(letter) = rest.next() else { break };
        let numbers = [Numbers::Plain, Numbers::Commas, Numbers::Thousands, Numbers::Binary];
        let numbers = numbers.get(quotes).copied().unwrap_or(Numbers::Binary);
        match field(letter, step, rules, numbers, zone) {
            None => text.push_str(&format!("%{width}{letter}")),
            // The arrow stands before the column.
            Some(value) if letter == 'L' && !width.is_empty() => {
                let (arrow, name) = value.split_at_checked(4).unwrap_or(("    ", ""));
                text.push_str(&format!("{arrow}{}", column(name, escapes(step, letter), &width)));
            }
            Some(value) => text.push_str(&column(&value, escapes(step, letter), &width)),
        }
    }
    text
}

/// `10` to the right, `-10` to the left; as in rsync of the bytes before they are escaped.
fn column(value: &str, escapes: usize, width: &str) -> String {
    let columns = width.trim_start_matches('-').parse().unwrap_or(0).min(MAX_WIDTH);
    let space = " ".repeat((columns + escapes).saturating_sub(value.len()));
    if width.starts_with('-') { format!("{value}{space}") } else { format!("{space}{value}") }
}

/// How much longer a name is for what is escaped in it.
fn escapes(step: &Step, letter: char) -> usize {
    let longer = |bytes: &[u8]| escape(bytes).len() - bytes.len();
    match (letter, &step.change, kind_after(step)) {
        ('n' | 'f', ..) => longer(step.path.as_bytes()),
        ('L', Change::Link { leader, .. }, _) => longer(leader.as_bytes()),
        ('L', _, Some(LocalKind::Symlink(target))) if step.change != Change::Delete => longer(&target),
        _ => 0,
    }
}

/// What a letter stands for; none where rsync's client knows nothing of it.
fn field(letter: char, step: &Step, rules: &Rules, numbers: Numbers, zone: &TimeZone) -> Option<String> {
    let deletes = step.change == Change::Delete;
    let (size, id) = subject(step);
    let fetched = matches!(step.change, Change::File { origin: Origin::Fetch, .. });
    let mtime = step.mtime.or(step.replaces.as_ref().map(|old| old.mtime)).filter(|_| !deletes).unwrap_or_default();
    let is_link = |step: &Step| matches!(kind_after(step), Some(LocalKind::Symlink(_)));
    Some(match letter {
        'i' => letters(step, rules),
        'n' => name(step),
        'f' => name(step).trim_end_matches('/').to_owned(),
        'L' => suffix(step),
        'l' => numbers.show(if deletes { 0 } else { size }),
        'b' => numbers.show(if fetched { size } else { 0 }),
        'c' => "0".to_owned(),
        'C' => id.map(|id| id.to_string()).unwrap_or_default(),
        'o' => if deletes { "del." } else { "recv" }.to_owned(),
        'M' => local_time(mtime, zone).replacen(' ', "-", 1),
        't' => now(zone),
        'B' if is_link(step) => permissions(0o777),
        'B' => permissions(step.mode),
        'U' | 'G' => "0".to_owned(),
        'p' => std::process::id().to_string(),
        'm' => String::new(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

/// What will stand at the path, of what stands there the kind; none for a new file or directory.
fn kind_after(step: &Step) -> Option<LocalKind> {
    match &step.change {
        Change::Symlink(target) => Some(LocalKind::Symlink(target.clone())),
        Change::MakeDir | Change::SetDir => Some(LocalKind::Dir),
        Change::File { .. } | Change::Link { .. } => None,
        Change::Touch | Change::Keep { .. } | Change::Delete => step.replaces.as_ref().map(|old| old.kind.clone()),
    }
}

/// Size and content of what a step is about; of a directory what file systems commonly say.
fn subject(step: &Step) -> (u64, Option<ContentId>) {
    match (&step.change, kind_after(step)) {
        (Change::File { size, id, .. }, _) => (*size, Some(*id)),
        (Change::Link { size, .. }, _) => (*size, None),
        (_, Some(LocalKind::File { size, id, .. })) => (size, id),
        (_, Some(LocalKind::Symlink(target))) => (target.len() as u64, None),
        (_, Some(LocalKind::Dir)) => (DIR_SIZE, None),
        _ => (0, None),
    }
}

/// `2026/11/23 02:52:03`.
pub fn now(zone: &TimeZone) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    local_time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX), zone)
}
