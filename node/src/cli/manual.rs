//! The manual page and the shells' completions, from the same source as `--help`.

use crate::error::{Exit, Failure};
use crate::ui::Ui;

/// What rsync's users find different, as troff.
const COMING_FROM_RSYNC: &str = r#".SH "COMING FROM RSYNC"
A line that pulls with \fBrsync\fR pulls with \fBmurmir rsync\fR: same selection, same tree afterwards, same lines, same
exit codes. \fBmurmir rsync --explain\fR says what each flag of a line does here.
.PP
Read differently:
.TP
\fBchanges\fR
are found by the content's BLAKE3 id, so lines and choices are those of \fBrsync -c\fR. Nobody reads a file at the origin for it.
.TP
\fB-c\fR
is of no further effect; \fB--size-only\fR and \fB-u\fR work as in rsync, \fB-I\fR has nothing to do.
.TP
\fBtimes\fR
are compared to the nanosecond unless \fB--modify-window\fR is given.
.TP
\fB--delete-before\fR, \fB--delete-during\fR
delete after everything else, as \fB--delete-after\fR does.
.TP
\fB--delay-updates\fR
is always so, for symlinks as well: files switch only when all of them are there and verified.
.TP
\fB--partial\fR, \fB--partial-dir\fR, \fB--temp-dir\fR
are of no effect: verified bytes wait in .murmir/ at the root of the destination, and the next run uses them.
.TP
\fB-o\fR, \fB-g\fR, \fB-D\fR
are accepted as part of \fB-a\fR and refused alone: a tree has no owners and no devices. Set-id bits are not carried.
.TP
\fB-W\fR, \fB-B\fR, \fB-z\fR and others
that tune rsync's own wire are accepted and of no effect.
.TP
\fB--bwlimit\fR
is a limit both ways, or \fIUP\fR:\fIDOWN\fR. What a node that runs here sends is the matter of \fBserve --bwlimit\fR.
.TP
\fB--timeout\fR
ends a run (30) when nothing comes from anybody; where one of several is silent, others are asked after 10 seconds at most.
.TP
\fB%C\fR
of \fB--out-format\fR is the content's BLAKE3 id.
.TP
\fBmerge files\fR
inside a module are read from the module: beside the file that names them if the name has a slash, else at the transfer root.
.SH "EXIT CODES"
rsync's own: 0 ok, 1 usage, 2 protocol version, 3 file selection, 4 unsupported, 5 start refused, 10 nobody answered,
11 file I/O, 12 protocol stream, 20 signal, 22 memory, 23 some files incomplete, 24 content held by no reachable source,
25 deletions stopped, 30 time limit, 35 connect timeout.
Ours: 40 no acceptable head, 41 unknown publisher, 42 key changed, 43 rollback or fork, 44 damage found, 45 done but stale,
46 another run holds the lock, 47 stopped by a limit, 48 nothing changed (when asked for).
"#;

/// Writes the manual page.
///
/// # Errors
/// A reader that went away.
pub fn page(ui: &Ui) -> Result<(), Failure> {
    let mut page = Vec::new();
    let failed = |error: std::io::Error| Failure::new(Exit::Files, error);
    let mut command = super::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let man = clap_mangen::Man::new(verb.clone());
        page.extend_from_slice(format!(".SH \"VERB {}\"\n", verb.get_name().to_uppercase()).as_bytes());
        man.render_description_section(&mut page).map_err(failed)?;
        man.render_options_section(&mut page).map_err(failed)?;
    }
    page.extend_from_slice(COMING_FROM_RSYNC.as_bytes());
    ui.bytes(&page)
}

/// Writes the completions of a shell.
///
/// # Errors
/// A reader that went away.
pub fn completions(shell: clap_complete::Shell, ui: &Ui) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "murmir", &mut script);
    ui.bytes(&script)
}
