//! Stock rsync clients served: the installed rsync as a daemon, a process for each connection as inetd does it, read-only, with our
//! line in its MOTD. What it may read is what this node publishes or mirrors.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::attach::offer::MAX_LINE;
use crate::reference::Reference;
use crate::service::Service;
use crate::store::state::StateError;

/// The program.
const RSYNC: &str = "rsync";
/// Clients at once; others are told to come back, and where else to go.
const MAX_CLIENTS: usize = 32;
/// Longest silence of a client, seconds.
const SILENCE: u32 = 600;
/// Pause after a connection that could not be taken (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// Why stock clients cannot be served.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// rsync is not installed.
    #[error("rsync cannot be run: {source}")]
    NoRsync {
        /// Why.
        source: std::io::Error,
    },
    /// The address is taken, or not ours.
    #[error("{address}: {source}")]
    Listen {
        /// As asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A module as rsync serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Served {
    name: String,
    reference: String,
    directory: PathBuf,
}

/// The gateway: listens, not yet serving.
#[derive(Debug)]
pub struct Rsyncd {
    listener: TcpListener,
    /// What one client gets at most, bytes per second.
    rate: Option<u64>,
}

impl Rsyncd {
    /// Listens on `address`; each client gets `rate` bytes per second at most, if that is limited.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn listen(address: SocketAddr, rate: Option<u64>) -> Result<Self, GatewayError> {
        let version = Command::new(RSYNC).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        version.map_err(|source| GatewayError::NoRsync { source })?;
        let listener = TcpListener::bind(address).await;
        Ok(Self { listener: listener.map_err(|source| GatewayError::Listen { address, source })?, rate })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves what `service` has registered, until dropped: then its clients lose their connections.
    pub async fn serve(&self, service: Arc<Service>) {
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut clients = JoinSet::new();
        loop {
            let Ok((stream, from)) = self.listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            while clients.try_join_next().is_some() {}
            let (service, room, rate) = (Arc::clone(&service), Arc::clone(&room), self.rate);
            clients.spawn(async move {
                let result = match room.try_acquire() {
                    Ok(_room) => one(&service, stream, rate).await,
                    Err(_) if room.is_closed() => Ok(()),
                    Err(_) => turn_away(&service, stream).await,
                };
                if let Err(error) = result {
                    tracing::info!(%from, %error, "a stock client failed");
                }
            });
        }
    }
}

/// One client, from greeting to end.
async fn one(service: &Service, stream: TcpStream, rate: Option<u64>) -> std::io::Result<()> {
    let served = modules(service).map_err(std::io::Error::other)?;
    let addresses = service.public_addresses().await;
    let dir = service.node.state.path().join("rsyncd");
    let (config, motd) = (dir.join("rsyncd.conf"), dir.join("motd"));
    let texts = (configuration(&served, &motd, rustix::process::geteuid().is_root()), lines(&served, &addresses));
    let files = (config.clone(), motd);
    let writing = move || {
        std::fs::create_dir_all(&dir)?;
        refresh(&files.1, texts.1.as_bytes())?;
        refresh(&files.0, texts.0.as_bytes())
    };
    tokio::task::spawn_blocking(writing).await.map_err(std::io::Error::other)??;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let (input, output) = (OwnedFd::from(stream.try_clone()?), OwnedFd::from(stream));
    let mut command = Command::new(RSYNC);
    command.arg("--daemon").arg("--config").arg(config).kill_on_drop(true);
    command.args(rate.map(|rate| format!("--bwlimit={}", rate.div_ceil(1024))));
    command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // The descriptors live in the command until then, and a client sees the end only when all are closed.
    drop(command);
    child.wait().await.map(drop)
}

/// What a full daemon says; our line is in it all the same.
async fn turn_away(service: &Service, mut stream: TcpStream) -> std::io::Result<()> {
    let served = modules(service).map_err(std::io::Error::other)?;
    let motd = lines(&served, &service.public_addresses().await);
    let said = format!(
        "@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n{motd}\n@ERROR: max connections ({MAX_CLIENTS}) reached -- try again later\n"
    );
    stream.write_all(said.as_bytes()).await?;
    stream.shutdown().await
}

/// Modules that can be written down in rsync's configuration, each name once.
fn modules(service: &Service) -> Result<Vec<Served>, StateError> {
    let mut served: Vec<Served> = Vec::new();
    for (publisher, name) in service.node.state.registered()? {
        let Some(registration) = service.node.state.module(&publisher, &name)?.registration()? else { continue };
        let Ok(reference) = Reference::parse(&registration.reference) else { continue };
        let whole = Reference::of(&reference.module).to_string();
        let is_new = served.iter().all(|other| other.name != name);
        if is_new && is_plain(&registration.directory) && reference.path.is_root() {
            served.push(Served { name, reference: whole, directory: registration.directory });
        } else {
            tracing::warn!(
                module = name,
                "not served to stock clients: its name is taken, or its path cannot be written down"
            );
        }
    }
    Ok(served)
}

/// rsyncd.conf(5) trims values, joins lines at backslashes and expands %VARIABLES%.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let good = |byte: &u8| !byte.is_ascii_control() && *byte != b'%' && *byte != b'\\';
    path.is_absolute() && path.to_str().is_some_and(|text| text.trim() == text) && bytes.iter().all(good)
}

fn configuration(served: &[Served], motd: &Path, is_root: bool) -> String {
    let chroot = if is_root { "yes" } else { "no" };
    let mut text = format!(
        "use chroot = {chroot}\nread only = yes\nlist = yes\nreverse lookup = no\ntimeout = {SILENCE}\nmotd file = {}\n",
        motd.display()
    );
    for Served { name, reference, directory } in served {
        let path = directory.display();
        text.push_str(&format!("\n[{name}]\ncomment = {reference}\npath = {path}\nexclude = /.murmir/\n"));
    }
    text
}

fn lines(served: &[Served], addresses: &[libp2p::Multiaddr]) -> String {
    let line = |module: &Served| {
        let mut line = format!("murmir: {}", module.reference);
        for (number, address) in addresses.iter().enumerate() {
            let more = format!("{}peer={address}", if number == 0 { '?' } else { '&' });
            if line.len() + more.len() <= MAX_LINE {
                line.push_str(&more);
            }
        }
        line + "\n"
    };
    served.iter().map(line).collect()
}

/// Replaces a file whose text has changed; a daemon that starts meanwhile reads the old or the new one.
fn refresh(path: &Path, text: &[u8]) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let aside = path.with_extension(format!("{:016x}", getrandom::u64().unwrap_or_default()));
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_path_can_become_a_setting() {
        for (path, expected) in [
            ("/srv/pub", true),
            ("/srv/with space/é", true),
            ("/srv/x\nuid = root", false),
            ("/srv/%HOME%", false),
            ("/srv/x\\", false),
            ("/srv/x ", false),
            ("srv", false),
        ] {
            assert_eq!(is_plain(Path::new(path)), expected, "{path:?}");
        }
    }

    #[test]
    fn lines_stay_within_what_clients_bear() {
        let served =
            [Served { name: "m".to_owned(), reference: "murmir://k51/m".to_owned(), directory: "/srv".into() }];
        let addresses: Vec<libp2p::Multiaddr> =
            (0..99).map(|n| format!("/ip4/192.0.2.{n}/tcp/4741").parse().unwrap()).collect();
        let text = lines(&served, &addresses);
        assert!(text.len() <= MAX_LINE + 1 && text.contains("&peer=") && text.lines().count() == 1);
        let text = configuration(&served, Path::new("/state/motd"), true);
        assert!(text.contains("read only = yes") && text.contains("[m]") && text.contains("exclude = /.murmir/"));
    }
}
