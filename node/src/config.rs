//! Settings: flag, environment, user's file, system's file, default, in this order.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::nominate::Profile;
use tracker_less::record::nomination::MAX_TEXT;

use crate::error::{Exit, Failure};
use crate::service::{Rates, Settings};
use crate::store::state::State;
use crate::sync::sweep::Keeping;

/// The port of a serving node.
const PORT: u16 = 4741;
/// The port of a name server.
const NAMES_PORT: u16 = 53;
/// Largest settings file, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Every key of the file, for the nearest name of a mistyped one.
const KEYS: &[&str] = &[
    "state-dir",
    "listen",
    "external",
    "peer",
    "bootstrap",
    "no-dht",
    "mdns",
    "name-server",
    "region",
    "contact",
    "superseded-hours",
    "superseded-percent",
    "json",
];

/// What one settings file may say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FileSettings {
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--external` of `serve`
    pub external: Vec<String>,
    /// `--peer`
    pub peer: Vec<String>,
    /// `--bootstrap`
    pub bootstrap: Vec<String>,
    /// `--no-dht`
    pub no_dht: Option<bool>,
    /// `--mdns`
    pub mdns: Option<bool>,
    /// `--name-server`
    pub name_server: Option<String>,
    /// `--region` of `serve`
    pub region: Option<String>,
    /// `--contact` of `serve`
    pub contact: Option<String>,
    /// How long a mirror keeps superseded files for others.
    pub superseded_hours: Option<u32>,
    /// Percent of the module that they may take.
    pub superseded_percent: Option<u32>,
    /// `--json`
    pub json: Option<bool>,
}

/// What flags and environment say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--json`
    pub json: bool,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--peer`
    pub peers: Vec<String>,
    /// `--bootstrap`
    pub bootstrap: Vec<String>,
    /// `--no-dht`
    pub no_dht: bool,
    /// `--mdns`
    pub mdns: bool,
    /// `--name-server`
    pub name_server: Option<String>,
    /// `--no-node`
    pub no_node: bool,
}

/// All settings of a run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory.
    pub state_dir: PathBuf,
    /// JSON Lines on stdout.
    pub json: bool,
    /// Work alone.
    pub no_node: bool,
    /// Who is asked for names, in the place of the system's name servers.
    pub name_server: Option<SocketAddr>,
    listen: Vec<Multiaddr>,
    external: Vec<Multiaddr>,
    profile: Profile,
    keeping: Keeping,
    peers: Vec<Multiaddr>,
    bootstrap: Vec<Multiaddr>,
    dht: bool,
    mdns: bool,
}

impl Config {
    /// The settings of a node: a lasting one listens on its port, one for a single run on any.
    pub fn settings(&self, serve: bool) -> Settings {
        let mut listen = self.listen.clone();
        if listen.is_empty() {
            listen = default_listen(if serve { PORT } else { 0 });
        }
        Settings {
            state: self.state_dir.clone(),
            listen,
            external: self.external.clone(),
            profile: self.profile.clone(),
            peers: self.peers.clone(),
            bootstrap: self.bootstrap.clone(),
            dht: self.dht,
            no_gossip: false,
            mdns: self.mdns,
            name_server: self.name_server,
            serve,
            rates: Rates::default(),
            keeping: self.keeping,
        }
    }
}

/// What an operator says to all: short, and fit for a terminal.
///
/// # Errors
/// It is neither.
pub fn words(name: &str, text: &str) -> Result<String, Failure> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(Failure::usage(format!("{name}: at most {MAX_TEXT} bytes, without control characters")));
    }
    Ok(text.to_owned())
}

/// All interfaces, of IPv6 too where the machine has it; TCP first, then QUIC.
fn default_listen(port: u16) -> Vec<Multiaddr> {
    use libp2p::multiaddr::Protocol;
    use std::net::{Ipv4Addr, Ipv6Addr};
    let has_v6 = std::fs::read("/proc/net/if_inet6").is_ok_and(|table| !table.is_empty());
    let any = [Protocol::Ip4(Ipv4Addr::UNSPECIFIED)]
        .into_iter()
        .chain(has_v6.then_some(Protocol::Ip6(Ipv6Addr::UNSPECIFIED)))
        .map(|host| Multiaddr::empty().with(host));
    let quic = |host: Multiaddr| host.with(Protocol::Udp(port)).with(Protocol::QuicV1);
    any.clone().map(|host| host.with(Protocol::Tcp(port))).chain(any.map(quic)).collect()
}

/// Reads the files and puts everything together.
///
/// # Errors
/// A file that is no settings file, an address that is none (exit 1), no home for the state.
pub fn load(flags: Flags) -> Result<Config, Failure> {
    let files: Vec<FileSettings> = files(&flags)?.into_iter().map(|(_, file)| file).collect();
    let lists = |pick: fn(&FileSettings) -> &Vec<String>| {
        files.iter().map(pick).find(|list| !list.is_empty()).cloned().unwrap_or_default()
    };
    let switch = |pick: fn(&FileSettings) -> Option<bool>| files.iter().find_map(pick).unwrap_or(false);
    let listen = if flags.listen.is_empty() { lists(|file| &file.listen) } else { flags.listen };
    let mut peers = flags.peers;
    peers.extend(lists(|file| &file.peer));
    let mut bootstrap = flags.bootstrap;
    bootstrap.extend(lists(|file| &file.bootstrap));
    let name_server = flags.name_server.or_else(|| files.iter().find_map(|file| file.name_server.clone()));
    let state_dir = flags.state_dir.or_else(|| files.iter().find_map(|file| file.state_dir.clone()));
    let uid = rustix::process::geteuid().as_raw();
    let state_dir = state_dir.or_else(|| State::default_dir(uid, |name| std::env::var_os(name)));
    let state_dir = state_dir.ok_or_else(|| Failure::usage("no home directory: give --state-dir"))?;
    let text = |name, pick: fn(&FileSettings) -> &Option<String>| {
        files.iter().find_map(|file| pick(file).as_deref()).map_or(Ok(String::new()), |text| words(name, text))
    };
    let number = |pick: fn(&FileSettings) -> Option<u32>, usual: u32| files.iter().find_map(pick).unwrap_or(usual);
    let usual = Keeping::default();
    let (region, contact) = (text("region", |file| &file.region)?, text("contact", |file| &file.contact)?);
    Ok(Config {
        state_dir: std::path::absolute(&state_dir).map_err(|error| Failure::new(Exit::Files, error))?,
        json: flags.json || switch(|file| file.json),
        no_node: flags.no_node,
        listen: addresses("--listen", &listen)?,
        external: addresses("external", &lists(|file| &file.external))?,
        profile: Profile { region, contact, addresses: Vec::new() },
        keeping: Keeping {
            hours: number(|file| file.superseded_hours, usual.hours),
            percent: number(|file| file.superseded_percent, usual.percent),
        },
        peers: addresses("--peer", &peers)?,
        bootstrap: addresses("--bootstrap", &bootstrap)?,
        dht: !(flags.no_dht || switch(|file| file.no_dht)),
        mdns: flags.mdns || switch(|file| file.mdns),
        name_server: name_server.filter(|text| !text.is_empty()).as_deref().map(server).transpose()?,
    })
}

/// The settings files that count, the strongest first.
fn files(flags: &Flags) -> Result<Vec<(PathBuf, FileSettings)>, Failure> {
    match &flags.config {
        Some(path) => Ok(vec![(path.clone(), read(path, true)?)]),
        None => default_files().into_iter().map(|path| Ok((path.clone(), read(&path, false)?))).collect(),
    }
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key in a settings file.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// Where it comes from: `flag`, `environment`, a file's path, `default`.
    pub from: String,
}

/// All settings in force. `given` tells what flags and environment say of a key, and which of the two it was.
///
/// # Errors
/// As [`load`].
pub fn explain(flags: &Flags, given: impl Fn(&str) -> Option<(Value, &'static str)>) -> Result<Vec<Setting>, Failure> {
    let files = files(flags)?;
    let config = load(flags.clone())?;
    let is_set = |value: &Value| !value.is_null() && *value != json!([]);
    let row = |key: &'static str| {
        if let Some((value, from)) = given(key) {
            return Setting { key, value, from: from.to_owned() };
        }
        let in_file = files.iter().find_map(|(path, file)| {
            let value = serde_json::to_value(file).ok()?.get(key)?.clone();
            is_set(&value).then(|| (value, path.display().to_string()))
        });
        let (value, from) = in_file.unwrap_or_else(|| (default(key, &config), "default".to_owned()));
        Setting { key, value, from }
    };
    Ok(KEYS.iter().map(|key| row(key)).collect())
}

fn default(key: &str, config: &Config) -> Value {
    match key {
        "state-dir" => json!(config.state_dir),
        "listen" => json!(default_listen(PORT)),
        "no-dht" | "mdns" | "json" => json!(false),
        "name-server" => Value::Null,
        "superseded-hours" => json!(Keeping::default().hours),
        "superseded-percent" => json!(Keeping::default().percent),
        _ => json!([]),
    }
}

/// Parses multiaddrs.
///
/// # Errors
/// The first that is none, named.
pub fn addresses(what: &str, texts: &[String]) -> Result<Vec<Multiaddr>, Failure> {
    let parse = |text: &String| {
        let wrong =
            |_| Failure::usage(format!("{what} {}: no multiaddr", crate::store::files::escape(text.as_bytes())));
        text.parse().map_err(wrong).map_err(|failure: Failure| failure.hint("such as /ip4/192.0.2.1/tcp/4741"))
    };
    texts.iter().filter(|text| !text.is_empty()).map(parse).collect()
}

/// A name server: an address, with a port or without.
fn server(text: &str) -> Result<SocketAddr, Failure> {
    let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, NAMES_PORT));
    text.parse().or_else(|_| alone()).map_err(|_| {
        let text = crate::store::files::escape(text.as_bytes());
        Failure::usage(format!("--name-server {text}: no address")).hint("such as 192.0.2.53 or 127.0.0.1:5353")
    })
}

fn default_files() -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let user = home.map(|home| home.join("murmir/config.toml"));
    user.into_iter().chain([PathBuf::from("/etc/murmir/config.toml")]).collect()
}

fn read(path: &Path, needed: bool) -> Result<FileSettings, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if needed => return Err(wrong(&error)),
        Err(_) => return Ok(FileSettings::default()),
        Ok(meta) if meta.len() > MAX_FILE => return Err(wrong(&"too large for settings")),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    parse(&text).map_err(|(line, column, what)| wrong(&format!("line {line}, column {column}: {what}")))
}

/// Parses a settings file.
///
/// # Errors
/// Line, column and what is wrong there.
pub fn parse(text: &str) -> Result<FileSettings, (usize, usize, String)> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        let mut what = error.message().to_owned();
        if let Some(near) = what.split('`').nth(1).filter(|_| what.starts_with("unknown field")).and_then(nearest) {
            what = format!("unknown key, did you mean {near}?");
        }
        (line, column, what)
    })
}

/// The known key with the fewest edits.
fn nearest(word: &str) -> Option<&'static str> {
    KEYS.iter().copied().min_by_key(|key| distance(word.as_bytes(), key.as_bytes()))
}

/// Levenshtein distance.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, byte) in left.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], at + 1);
        for (column, other) in right.iter().enumerate() {
            let change = corner + usize::from(byte != other);
            corner = row[column + 1];
            row[column + 1] = change.min(corner + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_found_and_the_right_one_named() {
        let (line, column, what) = parse("json = true\npeeer = []\n").unwrap_err();
        assert_eq!((line, column), (2, 1));
        assert_eq!(what, "unknown key, did you mean peer?");
    }

    #[test]
    fn the_example_is_a_settings_file() {
        let text = include_str!("../../examples/config.toml");
        let bare: String = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(line))
            .map(|l| format!("{l}\n"))
            .collect();
        let settings = parse(&bare).unwrap();
        assert!(settings.state_dir.is_some() && settings.json.is_some() && !settings.listen.is_empty());
        assert!(KEYS.iter().all(|key| bare.contains(&format!("{key} = "))), "a key is not shown");
    }

    #[test]
    fn a_node_listens_by_tcp_and_by_quic() {
        let listen = |port| default_listen(port).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(listen(4741)[0], "/ip4/0.0.0.0/tcp/4741", "first what serves best");
        assert!(listen(4741).contains(&"/ip4/0.0.0.0/udp/4741/quic-v1".to_owned()));
        assert!(listen(0).contains(&"/ip4/0.0.0.0/udp/0/quic-v1".to_owned()));
    }

    #[test]
    fn a_name_server_has_a_port_or_the_usual_one() {
        assert_eq!(server("192.0.2.53").unwrap().to_string(), "192.0.2.53:53");
        assert_eq!(server("2001:db8::1").unwrap().to_string(), "[2001:db8::1]:53");
        assert_eq!(server("127.0.0.1:5353").unwrap().to_string(), "127.0.0.1:5353");
        assert!(server("ns.example.org").is_err());
    }

    #[test]
    fn what_is_told_to_all_is_short_and_harmless() {
        assert_eq!(words("region", "eu-north").unwrap(), "eu-north");
        assert!(words("region", "a\u{1b}[31m").is_err() && words("region", &"x".repeat(MAX_TEXT + 1)).is_err());
    }

    #[test]
    fn flags_win_over_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(
            &path,
            "state-dir = \"/from/file\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\nsuperseded-percent = 0\n",
        )
        .unwrap();
        let flags = Flags { config: Some(path), ..Flags::default() };
        assert_eq!(load(flags.clone()).unwrap().state_dir, Path::new("/from/file"));
        let flags = Flags { state_dir: Some("/from/flag".into()), ..flags };
        let config = load(flags).unwrap();
        assert_eq!(config.state_dir, Path::new("/from/flag"));
        assert_eq!(config.settings(true).listen[0].to_string(), "/ip4/127.0.0.1/tcp/1");
        assert_eq!(config.settings(true).keeping, Keeping { percent: 0, ..Keeping::default() });
        assert!(
            load(Flags { peers: vec!["nonsense".into()], state_dir: Some("/x".into()), ..Flags::default() }).is_err()
        );
    }
}
