//! From rsync's flags to a pass.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::attach::origin::Origin;
use crate::error::{Exit, Failure};
use crate::manifest::follow::Follow;
use crate::manifest::path::escape;
use crate::manifest::selection::Selection;
use crate::manifest::text::ByteText;
use crate::options::{OutputOptions, Rules as RuleOptions, RulesError, Switch, TransferOptions, read};
use crate::sync::choice::Choice;
use crate::sync::plan::{Backup, BasisKind, Chmod, Rules};
use crate::verbs::Verb;
use crate::verbs::format::Numbers;
use crate::verbs::levels::Levels;
use crate::verbs::list::Ls;
use crate::verbs::pass::Pass;
use crate::verbs::show::{Show, has};

use super::run::absolute;

/// Most directories of `--link-dest` and its like, as in rsync.
const MAX_BASES: usize = 20;
/// Permission bits that new entries do not get where the process does not tell (umask(2)).
const UMASK: u16 = 0o022;

/// Whose defaults count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// `-rlptH --partial`.
    Fetch,
    /// `-rlptH --delete-delay --delay-updates --safe-links`.
    Mirror,
    /// None, as `rsync` itself; what stands in DEST is the user's to overwrite.
    Rsync,
}

/// The pass of `reference` into `dest`.
///
/// # Errors
/// A flag that is not built yet (4), a value that is none (1), a file of rules that cannot be read (11).
pub fn pass(
    habit: Habit,
    reference: String,
    dest: &Path,
    options: &TransferOptions,
    verbose: u8,
) -> Result<Pass, Failure> {
    let (own, deletion) = (&options.own, &options.deletion);
    let selection = selection(habit, options)?;
    check_point(selection.relative, &reference)?;
    let deletes_last = options.deletion.is_last() || (habit == Habit::Mirror && options.deletion.delete == 0);
    let announced = announced(selection.recursive, options);
    let show = Show { announced, deletes_last, ..show(habit, options, verbose)? };
    Ok(Pass {
        mirror: habit == Habit::Mirror,
        reference,
        more: Vec::new(),
        dest: absolute(dest)?,
        dest_slash: dest.as_os_str().as_bytes().ends_with(b"/"),
        dest_name: escape(trimmed(dest.as_os_str().as_bytes())),
        dry_run: options.dry_run,
        rules: rules(habit, options, &show)?,
        show,
        max_delete: deletion.max_delete,
        force_delete: own.force_delete,
        selection,
        late: own.late.clone(),
        mkpath: options.placing.mkpath,
        adopt: own.adopt || habit == Habit::Rsync,
        allow_downgrade: own.allow_downgrade,
        max_age: own.max_age.map(|age| age.as_secs()),
        max_transfer: own.max_transfer,
        max_total: own.max_size_total,
        error_on_no_transfer: own.error_on_no_transfer,
        watch: false,
        by_itself: false,
        bases: bases(options)?,
        http: Vec::new(),
        web_seeds: web_addresses("--web-seed", &options.own.web_seed)?,
        no_delta: own.no_delta,
        rates: options.limits.bwlimit.unwrap_or_default(),
        timeout: options.limits.timeout.filter(|seconds| *seconds > 0),
        contimeout: options.limits.contimeout.filter(|seconds| *seconds > 0),
        stop_after: stop_after(options)?,
        wait_lock: own.wait_lock.map(|wait| wait.as_secs()),
        seed: own.seed.map(|span| span.as_secs()),
        choice: Choice {
            origin: own.origin.unwrap_or_default(),
            most: own.sources.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        },
    })
}

/// rsync's `-R` counts from a point in the path.
///
/// # Errors
/// That is not built yet (4).
pub fn check_point(relative: bool, source: &str) -> Result<(), Failure> {
    if relative && source.contains("/./") {
        return Err(Failure::new(Exit::Unsupported, format!("{source}: -R from a point in the path is not built yet")));
    }
    Ok(())
}

fn trimmed(name: &[u8]) -> &[u8] {
    match name {
        [rest @ .., b'/'] if !rest.is_empty() => trimmed(rest),
        all => all,
    }
}

/// The listing of a reference in place of a transfer.
///
/// # Errors
/// As [`selection`].
pub fn listing(habit: Habit, reference: String, options: &TransferOptions, verbose: u8) -> Result<Verb, Failure> {
    let selection = selection(Habit::Rsync, options)?;
    let (recursive, numbers) = (selection.recursive, numbers(&options.output));
    let links = options.switches.is(Switch::Links, habit != Habit::Rsync);
    let (levels, quiet) = (levels(&options.output, verbose)?, options.output.quiet);
    let announced = announced(recursive, options);
    let list = Ls { reference, long: true, links, recursive, selection, numbers, itself: true, ..Ls::default() };
    Ok(Verb::Ls(Ls { levels, quiet, announced, ..list }))
}

/// How rsync tells of its list: one that grows, unless something needs all of it at once.
fn announced(recursive: bool, options: &TransferOptions) -> String {
    let (switches, placing) = (&options.switches, &options.placing);
    let whole =
        options.deletion.needs_whole_list() || placing.delay_updates || switches.is(Switch::PruneEmptyDirs, false);
    let grows = recursive && !whole && switches.is(Switch::IncRecursive, true);
    if grows { "receiving incremental file list" } else { "receiving file list ... done" }.to_owned()
}

/// How numbers are written: `-h`, `--no-h`.
pub fn numbers(output: &OutputOptions) -> Numbers {
    match (output.no_human_readable, output.human_readable) {
        (true, _) => Numbers::Plain,
        (false, 0) => Numbers::Commas,
        (false, 1) => Numbers::Thousands,
        (false, _) => Numbers::Binary,
    }
}

/// What of the module is wanted.
///
/// # Errors
/// A rule is refused (1), a file cannot be read (11).
pub fn selection(habit: Habit, options: &TransferOptions) -> Result<Selection, Failure> {
    let usual = habit != Habit::Rsync;
    let (switches, choice) = (&options.switches, &options.choice);
    let names = match &choice.files_from {
        None => None,
        Some(file) => Some(names(file, options.rules.from0)?),
    };
    let mut filter = filter(&options.rules)?;
    if let Some(dir) = partial_dir(habit, options) {
        // rsync leaves its own directories for partial files out.
        add(&mut filter, &[b"-p ", dir.as_slice(), b"/"].concat())?;
    }
    if options.deletion.delete_excluded {
        filter.protect_nothing();
    }
    let deletes = deletes(habit, options) && !options.deletion.delete_excluded;
    if let Some(backup) = backup(options)?.filter(|backup| backup.dir.is_none() && deletes) {
        // Backups are not what a later run deletes (rsync(1), `--backup`).
        let rule = [b"P *", backup.suffix.0.as_slice()].concat();
        add(&mut filter, &rule)?;
    }
    Ok(Selection {
        rules: filter.to_texts(),
        regexes: choice.regex.clone(),
        recursive: switches.is(Switch::Recursive, (usual || switches.is(Switch::Archive, false)) && names.is_none()),
        dirs: switches.is(Switch::Dirs, false),
        relative: switches.is(Switch::Relative, false),
        names,
        follow: match (choice.copy_links, choice.copy_dirlinks) {
            (true, _) => Follow::All,
            (false, true) => Follow::Dirs,
            (false, false) => Follow::Never,
        },
    })
}

/// The selection of rules alone.
///
/// # Errors
/// A rule is refused (1), a file cannot be read (11).
pub fn ruled(rules: &RuleOptions) -> Result<Selection, Failure> {
    Ok(Selection { rules: filter(rules)?.to_texts(), ..Selection::default() })
}

fn filter(rules: &RuleOptions) -> Result<crate::manifest::filter::Filter, Failure> {
    rules.filter().map_err(|error| refuse(&error))
}

fn add(filter: &mut crate::manifest::filter::Filter, rule: &[u8]) -> Result<(), Failure> {
    filter.add(rule, crate::manifest::filter::Manner::default(), &mut read).map_err(|error| refuse(&error))
}

fn refuse(error: &RulesError) -> Failure {
    match error {
        RulesError::Rule(error) => Failure::usage(error.to_string()),
        RulesError::File { .. } => Failure::new(Exit::Files, error.to_string()),
    }
}

/// The names of `--files-from`: lines without comments, or between NULs.
fn names(file: &Path, nul: bool) -> Result<Vec<ByteText>, Failure> {
    let content = read(file.as_os_str().as_bytes()).map_err(|error| refuse(&error))?;
    let ends = |byte: &u8| if nul { *byte == 0 } else { matches!(byte, b'\n' | b'\r') };
    let is_comment = |line: &[u8]| !nul && matches!(line.first(), Some(b'#' | b';'));
    let lines = content.split(ends).filter(|line| !line.is_empty() && !is_comment(line));
    Ok(lines.map(ByteText::from).collect())
}

fn partial_dir(habit: Habit, options: &TransferOptions) -> Option<Vec<u8>> {
    let placing = &options.placing;
    let usual = placing.delay_updates.then(|| b".~tmp~".to_vec());
    let named =
        placing.partial_dir.as_ref().filter(|dir| dir.is_relative()).map(|dir| dir.as_os_str().as_bytes().to_vec());
    named.or(usual).filter(|_| habit == Habit::Rsync)
}

fn deletes(habit: Habit, options: &TransferOptions) -> bool {
    options.deletion.is_on() || habit == Habit::Mirror
}

fn rules(habit: Habit, options: &TransferOptions, show: &Show) -> Result<Rules, Failure> {
    let usual = habit != Habit::Rsync;
    let (switches, choice) = (&options.switches, &options.choice);
    let (umask, backup) = (umask(), backup(options)?);
    let mut chmod = Chmod::default();
    for text in &options.placing.chmod {
        chmod.add(text, umask).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let archive = switches.is(Switch::Archive, false);
    let recursive = switches.is(Switch::Recursive, usual || archive) || switches.is(Switch::Dirs, false);
    if habit == Habit::Rsync && deletes(habit, options) && !recursive && choice.files_from.is_none() {
        return Err(Failure::usage("--delete does not work without --recursive (-r) or --dirs (-d)."));
    }
    Ok(Rules {
        links: switches.is(Switch::Links, usual),
        perms: switches.is(Switch::Perms, usual),
        executability: switches.is(Switch::Executability, false),
        times: switches.is(Switch::Times, usual),
        // Backups beside the files change the directories anyway (rsync(1), `--backup`).
        omit_dir_times: switches.is(Switch::OmitDirTimes, backup.as_ref().is_some_and(|backup| backup.dir.is_none())),
        omit_link_times: switches.is(Switch::OmitLinkTimes, false),
        hard_links: switches.is(Switch::HardLinks, usual),
        delete: deletes(habit, options),
        force: options.deletion.force,
        ignore_errors: options.deletion.ignore_errors,
        safe_links: choice.safe_links || habit == Habit::Mirror,
        update: choice.update,
        existing: choice.existing,
        ignore_existing: choice.ignore_existing,
        size_only: choice.size_only && !choice.checksum,
        prune_empty: switches.is(Switch::PruneEmptyDirs, false),
        // Below zero means to the nanosecond, which is our habit anyway.
        modify_window: choice.modify_window.and_then(|window| u32::try_from(window).ok()),
        max_size: choice.max_size,
        min_size: choice.min_size,
        chmod,
        umask,
        tell_unchanged: show.unchanged,
        backup,
    })
}

fn backup(options: &TransferOptions) -> Result<Option<Backup>, Failure> {
    let placing = &options.placing;
    let dir = placing.backup_dir.as_ref().map(|dir| ByteText::from(dir.as_os_str().as_bytes()));
    let usual = if dir.is_some() { "" } else { "~" };
    let suffix = placing.suffix.as_deref().unwrap_or(usual);
    if suffix.contains('/') {
        return Err(Failure::usage(format!("--suffix cannot contain slashes: {suffix}")));
    }
    // As in rsync, a directory for backups means that they are wanted.
    if !placing.backup && dir.is_none() {
        return Ok(None);
    }
    if dir.is_none() && suffix.is_empty() {
        return Err(Failure::usage("--suffix cannot be empty without --backup-dir"));
    }
    Ok(Some(Backup { dir, suffix: ByteText::from(suffix.as_bytes()), umask: umask() }))
}

/// Addresses of web servers.
///
/// # Errors
/// One is none (1).
pub fn web_addresses(flag: &str, urls: &[String]) -> Result<Vec<String>, Failure> {
    let is_url = |url: &String| matches!(Origin::parse(url, None), Some(Ok(Origin::Web(_))));
    match urls.iter().find(|url| !is_url(url)) {
        Some(other) => Err(Failure::usage(format!("{flag}: {other} is no http:// or https:// address"))),
        None => Ok(urls.to_vec()),
    }
}

fn bases(options: &TransferOptions) -> Result<Vec<(BasisKind, ByteText)>, Failure> {
    let placing = &options.placing;
    let kinds = [
        (BasisKind::Link, &placing.link_dest),
        (BasisKind::Copy, &placing.copy_dest),
        (BasisKind::Compare, &placing.compare_dest),
    ];
    if kinds.iter().filter(|(_, dirs)| !dirs.is_empty()).count() > 1 {
        return Err(Failure::usage("--compare-dest, --copy-dest and --link-dest may not be mixed"));
    }
    let named =
        kinds.iter().flat_map(|(kind, dirs)| dirs.iter().map(move |dir| (*kind, ByteText::from(dir.as_path()))));
    let mut named: Vec<_> = named.collect();
    for dir in &options.own.reuse {
        named.push((BasisKind::Reuse, ByteText::from(absolute(dir)?.as_path())));
    }
    if named.len() > MAX_BASES { Err(Failure::usage("more than 20 basis directories")) } else { Ok(named) }
}

fn show(habit: Habit, options: &TransferOptions, verbose: u8) -> Result<Show, Failure> {
    let output = &options.output;
    let levels = levels(output, verbose)?;
    let lists = levels.name > 0;
    let itemizes = output.itemize_changes > 0 || (habit != Habit::Rsync && options.dry_run && !lists);
    let format = match &output.out_format {
        Some(format) => Some(format.clone()),
        None if itemizes => Some("%i %n%L".to_owned()),
        None => lists.then(|| "%n%L".to_owned()),
    };
    let log = output.log_file.as_ref().map(|_| output.log_file_format.clone().unwrap_or_else(|| "%i %n%L".to_owned()));
    Ok(Show {
        unchanged: levels.name > 1
            || (output.itemize_changes > 1 && format.as_deref().is_some_and(|text| has(text, b"i"))),
        format: format.filter(|_| !output.quiet),
        levels,
        remarks: !output.quiet && (habit == Habit::Rsync || verbose > 0 || itemizes),
        numbers: numbers(output),
        log,
        ..Show::default()
    })
}

/// What `-v`, `--info`, `--progress` and `--stats` make together; what `--info` says of a kind of line counts.
pub fn levels(output: &OutputOptions, verbose: u8) -> Result<Levels, Failure> {
    if output.quiet {
        return Ok(Levels::default());
    }
    let mut levels = Levels::of(verbose);
    if output.progress || output.partial_progress {
        levels.name = levels.name.max(1);
        (levels.flist, levels.progress) = (2, 1);
    }
    if output.stats {
        levels.stats = levels.stats.max(2);
    }
    output.info.iter().try_for_each(|words| levels.set(words)).map_err(Failure::usage)?;
    Ok(levels)
}

/// The process's umask, which only its status tells without changing it.
fn umask() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u16::from_str_radix(text.trim(), 8).ok()).unwrap_or(UMASK)
}

/// Seconds until `--stop-after` or `--stop-at`.
fn stop_after(options: &TransferOptions) -> Result<Option<u64>, Failure> {
    let limits = &options.limits;
    let Some(text) = &limits.stop_at else { return Ok(limits.stop_after.map(|minutes| minutes.saturating_mul(60))) };
    let refuse = || Failure::usage(format!("invalid --stop-at format: {text}"));
    let text = text.replace('/', "-");
    let at =
        ["%Y-%m-%dT%H:%M", "%Y-%m-%d"].iter().find_map(|format| jiff::civil::DateTime::strptime(format, &text).ok());
    let at = match at {
        Some(at) => at,
        None => {
            let time = jiff::civil::Time::strptime("%H:%M", &text).map_err(|_| refuse())?;
            jiff::Zoned::now().date().to_datetime(time)
        }
    };
    let zoned = at.to_zoned(jiff::tz::TimeZone::system()).map_err(|_| refuse())?;
    let seconds = zoned.timestamp().as_second().saturating_sub(jiff::Timestamp::now().as_second());
    u64::try_from(seconds).map(Some).map_err(|_| Failure::usage(format!("--stop-at time is in the past: {text}")))
}
