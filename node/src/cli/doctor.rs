//! `doctor`: what hinders this machine, a line per check.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use tracker_less::net::believable;
use tracker_less::record::CheckedBundle;

use super::run::perform_once;
use super::screen::Screen;
use crate::config::Config;
use crate::control;
use crate::error::{Exit, Failure};
use crate::manifest::path::escape;
use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::state::State;
use crate::sync::unix_now;
use crate::ui::Ui;
use crate::verbs::Verb;

/// A clock before this is wrong: nothing of murmir is older (2026-01-01).
const NOT_BEFORE: u64 = 1_767_225_600;
/// Times further in the future than this, in seconds, say that some clock is wrong.
const CLOCK_SLACK: u64 = 600;
/// Less free space or fewer free inodes than this share (percent) is worth a word.
const LITTLE: u64 = 5;
/// Fewer descriptors than this are few for a node.
const DESCRIPTORS: u64 = 1024;
/// Fewer inotify watches than this are few for tools that watch a mirror.
const WATCHES: u64 = 8192;
/// How long a connection to an address of the node may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    level: Level,
    text: String,
    hint: Option<&'static str>,
}

fn finding(check: &'static str, level: Level, text: impl Into<String>, hint: &'static str) -> Finding {
    let hint = (level != Level::Ok).then_some(hint);
    Finding { check, level, text: text.into(), hint }
}

/// Runs all checks.
///
/// # Errors
/// 11 if one fails.
pub async fn doctor(config: &Config, ui: &Ui) -> Result<(), Failure> {
    let mut found = state_directory(&config.state_dir);
    if let Ok(state) = State::open(&config.state_dir) {
        found.push(clock(&state));
        found.push(index(&config.state_dir));
        found.extend(destinations(&state)?);
    }
    found.extend(limits());
    found.extend(addresses(config).await?);
    found.push(rsync());
    let mut failed = 0;
    for Finding { check, level, text, hint } in &found {
        let word = match level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        failed += u32::from(*level == Level::Fail);
        let tail = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        let row = json!({ "check": check, "level": word, "text": text, "hint": hint });
        ui.answer(&row, &format!("{word:<4}  {check}: {text}{tail}"))?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::new(Exit::Files, format!("{failed} of {} checks failed", found.len())))
    }
}

fn state_directory(path: &Path) -> Vec<Finding> {
    let shown = escape(path.as_os_str().as_encoded_bytes());
    let opened = State::open(path);
    if let Err(error) = opened {
        return vec![finding("state", Level::Fail, error.to_string(), "--state-dir names another")];
    }
    let open_to_others = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    let mut found = vec![if open_to_others(path) {
        finding("state", Level::Warn, format!("{shown} is open to others"), "chmod 700 closes it")
    } else {
        finding("state", Level::Ok, shown, "")
    }];
    let keys = std::fs::read_dir(path.join("keys")).into_iter().flatten().flatten().map(|entry| entry.path());
    let open: Vec<PathBuf> = keys.chain([path.join("node.key")]).filter(|key| open_to_others(key)).collect();
    found.push(match open.first() {
        None => finding("keys", Level::Ok, "for this user only", ""),
        Some(first) => {
            let text = format!("{} of them are open to others, first {}", open.len(), first.display());
            finding("keys", Level::Fail, text, "chmod 600, and murmir rotate if others were here")
        }
    });
    found
}

/// Against what was written here before, and what others signed.
fn clock(state: &State) -> Finding {
    let now = unix_now();
    let hint = "set the clock (timedatectl)";
    if now < NOT_BEFORE {
        return finding("clock", Level::Fail, "it is set to a time before murmir was", hint);
    }
    let written = |path: &Path| {
        let time = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
        Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
    };
    let files = ["peers", "node.key", "version", "keys", "modules", "dests"].map(|name| state.path().join(name));
    let latest = files.iter().filter_map(|path| written(path)).max().unwrap_or(0);
    if latest > now.saturating_add(CLOCK_SLACK) {
        let text = format!("files here were written {} s in the future", latest - now);
        return finding("clock", Level::Fail, text, hint);
    }
    let mut ahead = Vec::new();
    for publisher in state.publishers().unwrap_or_default() {
        for name in state.modules_seen(&publisher).unwrap_or_default() {
            let seen = state.module(&publisher, &name).and_then(|marks| marks.seen()).ok().flatten();
            let bundle = seen.and_then(|bytes| CheckedBundle::verify(&bytes).ok());
            if bundle.is_some_and(|bundle| bundle.is_from_future(now)) {
                ahead.push(name);
            }
        }
    }
    match ahead.first() {
        None => finding("clock", Level::Ok, "agrees with files and heads", ""),
        Some(first) => {
            let text = format!("{} heads are dated in the future, first that of {first}", ahead.len());
            finding("clock", Level::Warn, text, "this clock is late, or the publisher's is early")
        }
    }
}

fn index(home: &Path) -> Finding {
    let aside = std::fs::read_dir(home).into_iter().flatten().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("index.damaged-")).count();
    if Lock::acquire(&home.join("index.lock")).is_err() {
        return finding("index", Level::Ok, "in use by a node or another run", "");
    }
    match Index::open(home) {
        Err(error) => finding("index", Level::Fail, error.to_string(), "it is a cache: remove index/"),
        Ok(_) if aside > 0 => {
            let text = format!("sound; {aside} damaged ones were set aside");
            finding("index", Level::Warn, text, "the disk may be failing; index.damaged-* may be removed")
        }
        Ok(_) => finding("index", Level::Ok, "sound", ""),
    }
}

fn destinations(state: &State) -> Result<Vec<Finding>, Failure> {
    let mut places = vec![state.path().to_owned()];
    for (publisher, name) in state.registered()? {
        places.extend(state.module(&publisher, &name)?.registration()?.map(|found| found.directory));
    }
    Ok(places.iter().map(|place| disk(place)).collect())
}

fn disk(place: &Path) -> Finding {
    let shown = escape(place.as_os_str().as_encoded_bytes());
    let disk = match statvfs(place) {
        Ok(disk) => disk,
        Err(error) => {
            return finding("disk", Level::Fail, format!("{shown}: {error}"), "mount it, or murmir forget it");
        }
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
    let is_little = |free: u64, all: u64| all > 0 && u128::from(free) * 100 < u128::from(all) * u128::from(LITTLE);
    let (space, inodes) = (is_little(disk.f_bavail, disk.f_blocks), is_little(disk.f_favail, disk.f_files));
    let text = format!("{shown}: {free} MiB free");
    match (disk.f_bavail, space, inodes) {
        (0, ..) => finding("disk", Level::Fail, text, "nothing can be placed here"),
        (_, true, _) => finding("disk", Level::Warn, text, "under 5 % of the disk"),
        (_, _, true) => {
            finding("disk", Level::Warn, format!("{shown}: {} inodes free", disk.f_favail), "under 5 % of the inodes")
        }
        _ => finding("disk", Level::Ok, text, ""),
    }
}

fn limits() -> Vec<Finding> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let level = if descriptors < DESCRIPTORS { Level::Warn } else { Level::Ok };
    let mut found =
        vec![finding("descriptors", level, format!("{descriptors} may be open"), "raise LimitNOFILE or ulimit -n")];
    let watches = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
    if let Some(watches) = watches.ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        let level = if watches < WATCHES { Level::Warn } else { Level::Ok };
        let hint = "sysctl fs.inotify.max_user_watches; murmir itself needs none";
        found.push(finding("inotify", level, format!("{watches} watches"), hint));
    }
    found
}

/// Whether the running node answers where it says that it is.
async fn addresses(config: &Config) -> Result<Vec<Finding>, Failure> {
    if control::connect(&config.state_dir).await?.is_none() {
        return Ok(vec![finding("node", Level::Ok, "none runs on this state", "")]);
    }
    let screen = Screen::new(Ui::new(true), false, None)?;
    let id = perform_once(config, Verb::Id, &screen).await?;
    let texts = id["addresses"].as_array().into_iter().flatten().filter_map(|text| text.as_str());
    let all: Vec<Multiaddr> = texts.filter_map(|text| text.parse().ok()).collect();
    let mut found = Vec::new();
    for address in &all {
        let Some(socket) = socket_of(address) else { continue };
        let tried = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(socket)).await;
        found.push(match tried {
            Ok(Ok(_)) => finding("node", Level::Ok, address.to_string(), ""),
            Ok(Err(error)) => {
                finding("node", Level::Fail, format!("{address}: {error}"), "a firewall on this machine?")
            }
            Err(_) => finding("node", Level::Fail, format!("{address}: no answer"), "a firewall on this machine?"),
        });
    }
    let external = config.settings(true).external;
    if !all.iter().chain(&external).any(|address| believable(None, address)) {
        let text = "no address that others can reach from elsewhere";
        found.push(finding("node", Level::Warn, text, "forward a port, and serve with --external"));
    }
    Ok(found)
}

fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn rsync() -> Finding {
    let hint = "without it there is no classic way, and no --rsyncd";
    let run = std::process::Command::new("rsync").arg("--version").output();
    match run {
        Ok(done) if done.status.success() => {
            let text = String::from_utf8_lossy(&done.stdout);
            finding("rsync", Level::Ok, text.lines().next().unwrap_or("installed").trim().to_owned(), "")
        }
        Ok(done) => finding("rsync", Level::Warn, format!("it ends with {}", done.status), hint),
        Err(error) => finding("rsync", Level::Warn, format!("not installed: {error}"), hint),
    }
}
