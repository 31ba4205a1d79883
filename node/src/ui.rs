//! The only place that prints. stdout carries what was asked for, stderr everything else.

use std::io::{self, ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::error::{Exit, Failure};

/// How a bar looks.
const BAR: &str = "{bytes:>12} {percent:>3}% {binary_bytes_per_sec:>12} {eta_precise:>9}";

/// Where a run prints, and in which form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ui {
    json: bool,
}

impl Ui {
    /// Prints text, or JSON Lines.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// True if stdout carries JSON Lines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line, flushed. Its names are escaped already.
    ///
    /// # Errors
    /// A reader that went away is [`Exit::Ok`]: the run ends, and has succeeded.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes as they are, flushed.
    ///
    /// # Errors
    /// As [`Ui::line`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::new(Exit::Ok, "the reader went away"),
            _ => Failure::new(Exit::Files, format_args!("stdout: {error}")),
        })
    }

    /// Asks on the terminal; none where there is none. Only `yes` is yes.
    pub fn ask(&self, question: &str) -> Option<bool> {
        let mut err = io::stderr();
        if !io::stdin().is_terminal() || !err.is_terminal() {
            return None;
        }
        write!(err, "{question} (yes/no)? ").and_then(|()| err.flush()).ok()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().eq_ignore_ascii_case("yes"))
    }

    /// Prints `value` as a JSON line, or else `text` unless it is empty.
    ///
    /// # Errors
    /// As [`Ui::line`].
    pub fn answer(&self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        if !self.json {
            return if text.is_empty() { Ok(()) } else { self.line(text) };
        }
        let value = serde_json::to_string(value);
        self.line(&value.map_err(|error| Failure::new(Exit::Files, format_args!("JSON: {error}")))?)
    }

    /// Says something on stderr.
    pub fn warn(&self, text: &str) {
        // Nobody is left to be told of an error here.
        let _ = writeln!(io::stderr().lock(), "{}", plain(text));
    }

    /// The last words of a run that failed: hint, then the line that mirror tools look for.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let Failure { code, message, hint } = failure;
            let row = json!({"event": "error", "code": code, "kind": code.kind(), "message": message, "hint": hint});
            let _ = self.line(&row.to_string());
        }
        if let Some(hint) = &failure.hint {
            hint.lines().for_each(|line| self.warn(line));
        }
        self.warn(&format!("murmir error: {}", failure.to_string().replace('\n', " ")));
    }

    /// A progress bar: on terminals, where it was asked for.
    pub fn bar(&self, wanted: bool) -> ProgressBar {
        let target = if wanted && !self.json && io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(0), target).with_style(style)
    }
}

/// True if stderr may be coloured (no-color.org: any value but the empty one forbids it).
pub fn is_coloured(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty) && io::stderr().is_terminal()
}

/// One line without control characters, whatever went into it.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}
