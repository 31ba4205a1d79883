//! rsync's lines of progress (progress.c): each overwrites the one before, also in a pipe.

use super::format::Numbers;
use super::show::transferred;
use crate::manifest::path::TreePath;
use crate::sync::pass::Report;
use crate::sync::plan::{Plan, Step};

/// Longest time that is shown, seconds.
const MAX_SHOWN: f64 = 9999.0 * 3600.0;

/// `\r        300,000 100%  286.10MB/s    0:00:00`: bytes of so many, at a rate of bytes per second, and a time in seconds.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
pub fn line(done: u64, size: u64, rate: f64, seconds: f64, numbers: Numbers) -> String {
    let (rate, unit) = match rate / 1024.0 {
        rate if rate > 1024.0 * 1024.0 => (rate / 1024.0 / 1024.0, "GB/s"),
        rate if rate > 1024.0 => (rate / 1024.0, "MB/s"),
        rate => (rate, "kB/s"),
    };
    let time = if (0.0..=MAX_SHOWN).contains(&seconds) {
        let seconds = seconds as u64;
        format!("{:>4}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    } else {
        "  ??:??:??".to_owned()
    };
    let percent = if done >= size { 100 } else { (100.0 * done as f64 / size as f64) as u64 };
    format!("\r{:>15} {percent:>3}% {rate:>7.2}{unit} {time}", numbers.show(done))
}

/// What follows a file's name: the line of its beginning, overwritten by that of its end. Files arrive side by side, so each is shown at the rate of the whole.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn of_file(report: &Report, step: &Step, size: u64, moved: u64, numbers: Numbers) -> String {
    let rate = rate(report);
    let seconds = if rate > 0.0 { size as f64 / rate } else { 0.0 };
    let (left, all) = left(&report.plan, step);
    let begin = if size > 0 { line(0, size, 0.0, 0.0, numbers) + "  " } else { String::new() };
    format!("{begin}{} (xfr#{moved}, to-chk={left}/{all})", line(size, size, rate, seconds, numbers))
}

/// The last line of `--info=progress2`.
pub(super) fn whole(report: &Report, numbers: Numbers) -> Option<String> {
    let moved: Vec<u64> = report.plan.steps.iter().filter_map(transferred).collect();
    let bytes = moved.iter().fold(0u64, |sum, size| sum.saturating_add(*size));
    let all = count(&report.plan);
    let text = line(bytes, report.plan.bytes, rate(report), report.seconds, numbers);
    (!moved.is_empty()).then(|| format!("{text} (xfr#{}, to-chk=0/{all})", moved.len()))
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn rate(report: &Report) -> f64 {
    let bytes: u64 = report.plan.steps.iter().filter_map(transferred).fold(0, u64::saturating_add);
    if report.seconds > 0.0 { bytes as f64 / report.seconds } else { 0.0 }
}

fn count(plan: &Plan) -> u64 {
    plan.files + plan.others.0 + plan.others.1
}

/// Entries of the list behind this one, and all.
fn left(plan: &Plan, step: &Step) -> (u64, u64) {
    let (all, root) = (count(plan), u64::from(plan.dirs.contains_key(&TreePath::root())));
    (all.saturating_sub(step.rank + root), all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rsyncs() {
        let numbers = Numbers::Commas;
        assert_eq!(
            line(300_000, 300_000, 300_000_000.0, 0.001, numbers),
            "\r        300,000 100%  286.10MB/s    0:00:00"
        );
        assert_eq!(line(3, 300_010, 0.0, 0.0, numbers), "\r              3   0%    0.00kB/s    0:00:00");
        assert_eq!(line(32_768, 300_000, 32_768.0, 3723.0, numbers), "\r         32,768  10%   32.00kB/s    1:02:03");
        assert!(line(1, 2, 1.0, f64::INFINITY, numbers).ends_with("  ??:??:??"));
        assert_eq!(
            line(1_230_000, 1_230_000, 0.0, 0.0, Numbers::Thousands),
            "\r          1.23M 100%    0.00kB/s    0:00:00"
        );
    }
}
