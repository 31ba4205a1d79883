//! From arguments to a verb, done by the running node or by one of this process's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::{Args, Command, Global};
use super::attach;
use super::classic::Classic;
use super::doctor;
use super::explain;
use super::from;
use super::keys;
use super::manual;
use super::near;
use super::nominate;
use super::rsync;
use super::screen::Screen;
use super::serve;
use super::transfer::{self, Habit, ruled};
use crate::attach::origin::Origin;
use crate::config::{self, Config, Flags};
use crate::control;
use crate::error::{Exit, Failure};
use crate::manifest::text::ByteText;
use crate::options::{FetchOptions, MirrorOptions, PublishOptions};
use crate::service::{Rates, Service, Settings};
use crate::store::files::escape;
use crate::ui::{Ui, is_coloured};
use crate::verbs::compare::{Compare, Tree};
use crate::verbs::inspect::{Motd, Target};
use crate::verbs::list::{Find, Ls};
use crate::verbs::pass::Pass;
use crate::verbs::publish::Publish;
use crate::verbs::resolve::Resolve;
use crate::verbs::upkeep::{Forget, Status};
use crate::verbs::verify::Verify;
use crate::verbs::{Output, Verb, perform};

/// Life of a Fresh record, seconds.
const FRESH_FOR: u64 = 14 * 24 * 3600;
/// The C library gives back what is freed from blocks up to this size only when twice as much has piled up.
const KEPT: usize = 8 << 20;

/// Runs one command to its end.
///
/// # Errors
/// What the last line on stderr says.
pub fn run(args: Args, matches: &ArgMatches, ui: &Ui) -> Result<(), Failure> {
    if matches!(args.verb, Command::Nominate { stdin: true, .. }) {
        // A daemon refuses its client where `early exec` fails: whatever is wrong here is not the client's business.
        return work(args, matches, ui).or_else(|failure| {
            ui.warn(&failure.message);
            Ok(())
        });
    }
    work(args, matches, ui)
}

fn work(args: Args, matches: &ArgMatches, ui: &Ui) -> Result<(), Failure> {
    log(&args);
    let config = config::load(flags(&args.global))?;
    let ui = if config.json { Ui::new(true) } else { *ui };
    keep_buffers();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Memory, error))?;
    let result = runtime.block_on(async {
        if stays(&args.verb) {
            // A node in the foreground ends by itself when a signal comes, and in order.
            return dispatch(args, matches, &config, &ui).await;
        }
        let mut end = signal(SignalKind::terminate()).map_err(|error| Failure::new(Exit::Signal, error))?;
        tokio::select! {
            result = dispatch(args, matches, &config, &ui) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Signal, "interrupted; what was fetched is kept")),
            _ = end.recv() => Err(Failure::new(Exit::Signal, "terminated; what was fetched is kept")),
        }
    });
    // Disk work that cannot be interrupted does not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// glibc hands freed memory back to the system at once, and each buffer of 1 MiB then costs 256 page faults, up to half of a
/// download's system time. It adapts to the largest block that was ever freed: so one is, untouched. Elsewhere it does nothing.
fn keep_buffers() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT)));
}

/// Verbs that run until somebody ends them.
fn stays(verb: &Command) -> bool {
    match verb {
        Command::Serve(_) | Command::Share { .. } => true,
        Command::Mirror { options, .. } => options.watch,
        _ => false,
    }
}

fn flags(global: &Global) -> Flags {
    Flags {
        state_dir: global.state_dir.clone(),
        config: global.config.clone(),
        json: global.json,
        listen: global.listen.clone(),
        peers: global.peer.clone(),
        bootstrap: global.bootstrap.clone(),
        no_dht: global.no_dht,
        mdns: global.mdns,
        name_server: global.name_server.clone(),
        no_node: global.no_node,
    }
}

fn log(args: &Args) {
    let passes = matches!(args.verb, Command::Fetch { .. } | Command::Mirror { .. } | Command::Rsync { .. });
    let level = match (passes, args.global.verbose) {
        (true, _) | (false, 0) => "error",
        (false, 1) => "info,libp2p=warn",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_env("MURMIR_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colour = is_coloured(std::env::var_os("NO_COLOR").as_deref());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
}

async fn dispatch(args: Args, matches: &ArgMatches, config: &Config, ui: &Ui) -> Result<(), Failure> {
    let Args { global, verb } = args;
    match verb {
        Command::Keygen { name } => keys::keygen(config, ui, &name),
        Command::Rotate(wish) => keys::rotate(config, ui, &wish).await,
        Command::Sign(wish) => keys::sign(config, ui, &wish),
        Command::Completions { shell } => manual::completions(shell, ui),
        Command::Man => manual::page(ui),
        Command::Doctor => doctor::doctor(config, ui).await,
        Command::Config => settings(&global, matches, ui),
        Command::Trust { origin, reference, remove } => {
            attach::trust(config, ui, origin.as_deref(), reference.as_deref(), remove)
        }
        Command::Nominate { what: Some(what), .. } => nominate::tell(config, ui, &what).await,
        Command::Nominate { .. } => nominate::receive(config).await,
        Command::Serve(wish) => serve::serve(config, ui, &wish).await,
        Command::Share { dir } => serve::share(config, ui, &absolute(&dir)?).await,
        Command::Rsync { options, foreign } if options.explain => {
            explain::explain(&foreign).iter().try_for_each(|line| ui.line(line))
        }
        other => {
            if let Command::Publish(options) = &other {
                from::bring(config, options).await?;
            }
            let classic = Classic::of(&other, matches);
            let task = Task {
                config,
                screen: screen(&other, ui)?,
                follows: matches!(&other, Command::Mirror { options, .. } if options.watch),
                request: match &other {
                    Command::Publish(options) => options.request.clone(),
                    _ => None,
                },
                ui: *ui,
            };
            let (port, accept_new) = manner(&other);
            let verb = to_verb(other, &global)?;
            match verb.reference().and_then(|word| Origin::parse(word, port)) {
                None => task.work(verb).await,
                Some(origin) => task.attached(&origin.map_err(Failure::usage)?, verb, classic, accept_new, ui).await,
            }
        }
    }
}

/// The settings in force, as a settings file has them, and where each comes from.
fn settings(global: &Global, matches: &ArgMatches, ui: &Ui) -> Result<(), Failure> {
    let given = |key: &str| {
        let id = key.replace('-', "_");
        // A key of a verb that is not this one.
        matches.try_contains_id(&id).ok()?;
        let from = match matches.value_source(&id)? {
            ValueSource::CommandLine => "flag",
            ValueSource::EnvVariable => "environment",
            _ => return None,
        };
        let texts: Vec<String> = matches.get_raw(&id)?.map(|text| escape(text.as_bytes())).collect();
        let value = match key {
            // A variable may say no as well: then it says nothing.
            "no-dht" | "mdns" | "json" => json!(matches.get_one::<bool>(&id).filter(|on| **on)?),
            "state-dir" => json!(texts.first()),
            _ => json!(texts),
        };
        Some((value, from))
    };
    for setting in config::explain(&flags(global), given)? {
        ui.answer(&setting, &format!("{} = {}  # {}", setting.key, setting.value, setting.from))?;
    }
    Ok(())
}

/// `--port`, and whether a new publisher is accepted.
fn manner(verb: &Command) -> (Option<u16>, bool) {
    match verb {
        Command::Fetch { options, foreign } => (foreign.port, options.transfer.own.accept_new),
        Command::Mirror { options, foreign } => (foreign.port, options.transfer.own.accept_new),
        Command::Rsync { options, foreign } => (foreign.port, options.transfer.own.accept_new),
        _ => (None, false),
    }
}

/// One verb that is about to be done.
pub(super) struct Task<'a> {
    pub(super) config: &'a Config,
    pub(super) screen: Screen,
    /// `--watch`.
    pub(super) follows: bool,
    /// Where a request for `sign` goes.
    pub(super) request: Option<PathBuf>,
    pub(super) ui: Ui,
}

impl Task<'_> {
    pub(super) async fn work(&self, verb: Verb) -> Result<(), Failure> {
        if let Some(reference) = verb.reference() {
            near::check(&self.config.state_dir, reference)?;
        }
        let (config, screen) = (self.config, &self.screen);
        let mut value = match (self.follows, connect(config).await?) {
            (true, None) => return serve::watch(config, screen, verb).await,
            (true, Some(client)) => ask(client, &verb, screen).await?,
            (false, client) => one(config, client, verb, screen).await?,
        };
        keys::deliver(&self.ui, &mut value, self.request.as_deref())?;
        screen.finish(&value)
    }
}

/// Where the events of a verb go.
fn screen(verb: &Command, ui: &Ui) -> Result<Screen, Failure> {
    let transfer = match verb {
        Command::Fetch { options, .. } => Some(&options.transfer),
        Command::Mirror { options, .. } => Some(&options.transfer),
        Command::Rsync { options, .. } => Some(&options.transfer),
        _ => None,
    };
    let Some(output) = transfer.map(|transfer| &transfer.output) else { return Screen::new(*ui, false, None) };
    let screen = Screen::new(*ui, !output.quiet, output.log_file.as_deref())?;
    let whole = transfer::levels(output, 0)?.progress > 1;
    Ok(if whole { screen.with_whole(transfer::numbers(output)) } else { screen })
}

/// One verb, its answer not printed.
///
/// # Errors
/// The verb's.
pub async fn perform_once(config: &Config, verb: Verb, screen: &Screen) -> Result<Value, Failure> {
    one(config, connect(config).await?, verb, screen).await
}

/// One verb: through the node where one runs and the verb is the node's, else alone.
async fn one(config: &Config, client: Option<control::Client>, verb: Verb, screen: &Screen) -> Result<Value, Failure> {
    let mut hints = Vec::new();
    if let Some(client) = client {
        if is_the_nodes(&verb) {
            return ask(client, &verb, screen).await;
        }
        // A fetch of its own may begin at the node that runs here anyway.
        let id = client.ask(&Verb::Id, |_| Ok(())).await?;
        let addresses = id["addresses"].as_array().into_iter().flatten();
        hints.extend(addresses.filter_map(|address| address.as_str()?.parse().ok()));
    } else if matches!(verb, Verb::Status(_) | Verb::Peers | Verb::Transfers) {
        return Err(Failure::new(Exit::Nobody, "no node runs on this state").hint("murmir serve starts one"));
    }
    let mut settings = config.settings(false);
    settings.peers.extend(hints);
    settings.rates = rates(&verb);
    if is_local(&verb) {
        (settings.listen, settings.dht, settings.mdns) = (Vec::new(), false, false);
    }
    alone(settings, verb, screen).await
}

/// What a node of the verb's own sends and brings at most.
pub fn rates(verb: &Verb) -> Rates {
    match verb {
        Verb::Pass(pass) => pass.rates,
        _ => Rates::default(),
    }
}

/// What the node does under its own user, rather than this process.
fn is_the_nodes(verb: &Verb) -> bool {
    match verb {
        Verb::Pass(pass) => pass.mirror,
        Verb::Ls(_) | Verb::Find(_) | Verb::Diff(_) | Verb::Cat(_) => false,
        _ => true,
    }
}

/// What needs nobody else.
fn is_local(verb: &Verb) -> bool {
    match verb {
        Verb::Verify(verify) => !verify.repair && verify.reference.is_none(),
        Verb::Forget(_) | Verb::Withdraw(_) | Verb::Take(_) | Verb::Id | Verb::Motd(_) => true,
        _ => false,
    }
}

async fn connect(config: &Config) -> Result<Option<control::Client>, Failure> {
    if config.no_node { Ok(None) } else { control::connect(&config.state_dir).await }
}

async fn ask(client: control::Client, verb: &Verb, screen: &Screen) -> Result<Value, Failure> {
    client.ask(verb, |event| screen.show(event)).await
}

/// A node of this process's own, for one verb.
async fn alone(settings: Settings, verb: Verb, screen: &Screen) -> Result<Value, Failure> {
    let service = Service::start(settings).await?;
    let result = attended(&service, verb, screen).await;
    service.stop().await;
    result
}

/// Does a verb on a service and shows what it says.
pub async fn attended(service: &Service, verb: Verb, screen: &Screen) -> Result<Value, Failure> {
    let (out, mut events) = Output::new();
    let work = async {
        let result = perform(service, verb, &out).await;
        drop(out);
        result
    };
    let show_all = async {
        while let Some(event) = events.recv().await {
            screen.show(event)?;
        }
        Ok::<(), Failure>(())
    };
    tokio::pin!(work);
    tokio::pin!(show_all);
    tokio::select! {
        result = &mut work => {
            show_all.await?;
            result
        }
        shown = &mut show_all => {
            shown?;
            work.await
        }
    }
}

fn to_verb(command: Command, global: &Global) -> Result<Verb, Failure> {
    Ok(match command {
        Command::Publish(options) => Verb::Publish(publish(&options)?),
        Command::Fetch { options, foreign } => {
            foreign.check()?;
            fetch(&options, global)?
        }
        Command::Mirror { options, foreign } => {
            foreign.check()?;
            Verb::Pass(Box::new(mirror(&options, global)?))
        }
        Command::Rsync { options, foreign } => {
            foreign.check()?;
            rsync::verb(&options, global.verbose)?
        }
        Command::Forget { what } => Verb::Forget(forget(what.as_os_str())?),
        Command::Withdraw { what } => Verb::Withdraw(forget(what.as_os_str())?),
        Command::Ls { reference, long, recursive, rules } => {
            Verb::Ls(Ls { reference, long, links: true, recursive, selection: ruled(&rules)?, ..Ls::default() })
        }
        Command::Find { reference, patterns, regex, min_size, max_size, newer, long } => {
            let patterns = patterns.iter().map(|word| ByteText::from(word.as_bytes())).collect();
            let newer = newer.map(|span| unix_seconds().saturating_sub_unsigned(span.as_secs()));
            Verb::Find(Find { reference, patterns, regexes: regex, min_size, max_size, newer, long })
        }
        Command::Diff { old, new } => Verb::Diff(Compare { old: tree(&old)?, new: tree(&new)? }),
        Command::Log { reference } => Verb::Log(Target { reference }),
        Command::Cat { reference } => Verb::Cat(Target { reference }),
        Command::Verify { dest, reference, repair, sample } => {
            Verb::Verify(Verify { dest: absolute(&dest)?, reference, repair, sample, ..Verify::default() })
        }
        Command::Resolve { reference } => Verb::Resolve(Resolve { reference, verbose: global.verbose > 0 }),
        Command::Mirrors { reference } => Verb::Mirrors(Target { reference }),
        Command::Motd { reference, nominate } => Verb::Motd(Motd { reference, nominate }),
        Command::Peers => Verb::Peers,
        Command::Transfers => Verb::Transfers,
        Command::Status => Verb::Status(Status { verbose: global.verbose > 0 }),
        // The others never come here.
        _ => Verb::Id,
    })
}

/// The request of `publish`.
pub fn publish(options: &PublishOptions) -> Result<Publish, Failure> {
    let origin = from::address(options)?;
    let mut http = transfer::web_addresses("--url", &options.url)?;
    if let Some(Origin::Web(web)) = &origin {
        // It has the tree as well.
        http.push(format!("{}{}", web.base, web.path));
    }
    Ok(Publish {
        dir: absolute(&options.dir)?,
        module: options.module.clone(),
        key: options.key.clone(),
        selection: ruled(&options.rules)?,
        late: options.late.clone(),
        fresh: options.fresh.map_or(FRESH_FOR, |fresh| fresh.as_secs()),
        first: options.first,
        seq: options.seq,
        allow_shrink: options.allow_shrink,
        ignore_errors: options.ignore_errors,
        error_on_no_change: options.error_on_no_transfer,
        dry_run: options.dry_run,
        itemize: options.itemize_changes,
        offline: options.offline,
        http,
        from: origin.map(|origin| origin.place()),
        export: options.export.as_deref().map(absolute).transpose()?.as_deref().map(ByteText::from),
        request: options.request.is_some(),
        signed: options.signed.as_deref().map(keys::read_signed).transpose()?,
    })
}

fn fetch(options: &FetchOptions, global: &Global) -> Result<Verb, Failure> {
    let reference = options.reference.clone();
    match &options.dest {
        Some(dest) if dest.as_os_str() == "-" => Ok(Verb::Cat(Target { reference })),
        Some(dest) if !options.transfer.output.list_only => {
            let pass = transfer::pass(Habit::Fetch, reference, dest, &options.transfer, global.verbose)?;
            Ok(Verb::Pass(Box::new(pass)))
        }
        _ => transfer::listing(Habit::Fetch, reference, &options.transfer, global.verbose),
    }
}

fn mirror(options: &MirrorOptions, global: &Global) -> Result<Pass, Failure> {
    let (reference, dest) = (options.reference.clone(), &options.dest);
    let pass = transfer::pass(Habit::Mirror, reference, dest, &options.transfer, global.verbose)?;
    Ok(Pass { watch: options.watch, http: transfer::web_addresses("--url", &options.url)?, ..pass })
}

fn tree(word: &OsStr) -> Result<Tree, Failure> {
    match word.to_str() {
        Some(text) if text.starts_with("murmir://") => Ok(Tree::Module(text.to_owned())),
        _ => Ok(Tree::Directory(absolute(Path::new(word))?)),
    }
}

fn unix_seconds() -> i64 {
    i64::try_from(crate::sync::unix_now()).unwrap_or(i64::MAX)
}

fn forget(what: &OsStr) -> Result<Forget, Failure> {
    let path = absolute(Path::new(what))?;
    Ok(Forget { what: what.to_string_lossy().into_owned(), path })
}

/// The path from the root, whoever works on it; nothing on the way is resolved.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let full =
        std::path::absolute(path).map_err(|error| Failure::new(Exit::Files, format!("{}: {error}", path.display())))?;
    // Without a trailing slash, so that one directory has one name.
    Ok(full.components().collect())
}
