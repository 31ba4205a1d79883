//! What a verb says, brought before the user's eyes and into the log file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::Value;

use crate::error::{Exit, Failure};
use crate::ui::Ui;
use crate::verbs::format::Numbers;
use crate::verbs::{Event, progress, show};

/// Where the events of one verb go.
pub struct Screen {
    ui: Ui,
    bar: ProgressBar,
    log: Option<File>,
    /// `--info=progress2`: rsync's line in place of the bar; since when.
    whole: Option<(Instant, Numbers)>,
}

impl Screen {
    /// A screen, with a progress bar where one is wanted and there is a terminal, and the user's log file.
    ///
    /// # Errors
    /// The log file cannot be opened.
    pub fn new(ui: Ui, wants_bar: bool, log: Option<&Path>) -> Result<Self, Failure> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(|error| Failure::new(Exit::Files, format_args!("{}: {error}", path.display())))
        };
        let bar = if wants_bar { ui.bar(true) } else { ProgressBar::hidden() };
        Ok(Self { ui, bar, log: log.map(open).transpose()?, whole: None })
    }

    /// With rsync's line of the whole in place of the bar (`--info=progress2`).
    #[must_use]
    pub fn with_whole(mut self, numbers: Numbers) -> Self {
        self.bar = ProgressBar::hidden();
        self.whole = Some((Instant::now(), numbers));
        self
    }

    /// Whether stdout is for programs.
    pub fn is_json(&self) -> bool {
        self.ui.is_json()
    }

    /// Shows one event.
    ///
    /// # Errors
    /// A reader that went away, a log file that is full.
    pub fn show(&self, event: Event) -> Result<(), Failure> {
        let ui = &self.ui;
        match event {
            Event::Line(_) if ui.is_json() => Ok(()),
            Event::Line(line) => self.bar.suspend(|| ui.line(&line)),
            Event::Row(row) if ui.is_json() => ui.answer(&row, ""),
            Event::Row(_) => Ok(()),
            Event::Note(note) => {
                self.bar.suspend(|| ui.warn(&note));
                Ok(())
            }
            Event::Log(line) => self.log(&line),
            Event::Raw(bytes) => ui.bytes(&bytes),
            Event::Progress { done, total } => self.progress(done, total),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "for people")]
    fn progress(&self, done: u64, total: u64) -> Result<(), Failure> {
        let Some((start, numbers)) = self.whole.filter(|_| !self.ui.is_json()) else {
            self.bar.set_length(total);
            self.bar.set_position(done);
            return Ok(());
        };
        let rate = done as f64 / start.elapsed().as_secs_f64().max(0.001);
        let left = total.saturating_sub(done) as f64 / rate;
        self.ui.bytes(format!("{}  ", progress::line(done, total, rate, left, numbers)).as_bytes())
    }

    /// `2026/11/23 02:52:03 [4711] LINE`, as rsync's `--log-file`.
    fn log(&self, line: &str) -> Result<(), Failure> {
        let Some(mut file) = self.log.as_ref() else { return Ok(()) };
        let (now, pid) = (show::now(&jiff::tz::TimeZone::system()), std::process::id());
        let written = writeln!(file, "{now} [{pid}] {line}");
        written.map_err(|error| Failure::new(Exit::Files, format_args!("log file: {error}")))
    }

    /// Takes the bar away, and prints the verb's answer.
    ///
    /// # Errors
    /// A reader that went away.
    pub fn finish(&self, value: &Value) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        if value.is_null() { Ok(()) } else { self.ui.answer(value, "") }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
