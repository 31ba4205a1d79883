//! Asking an rsync daemon, and handing it a nomination: the connection, directly or by a proxy, and the clock.

use std::time::Duration;

use cid::multibase::{Base, encode};
use libp2p::Multiaddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::greeting::{Greeting, HELLO};
use super::origin::Daemon;

/// Longest that a daemon is listened to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Silence after which it is told the module: some say nothing of it before.
const QUIET: Duration = Duration::from_millis(400);
/// Longest answer of a proxy, bytes.
const MAX_PROXY: usize = 8 << 10;

/// What a daemon said, and where it is.
pub struct Heard {
    /// Its words.
    pub greeting: Greeting,
    /// The other end; none behind a proxy.
    pub from: Option<Multiaddr>,
}

/// Listens to a daemon until its line for the module is found or it has no more to say. Nothing of its tree is touched.
///
/// # Errors
/// One line: nobody is there, or no rsync daemon.
pub async fn hear(daemon: &Daemon, proxy: Option<&str>) -> Result<Heard, String> {
    let deadline = Instant::now() + PATIENCE;
    let place = format!("{}:{}", daemon.host, daemon.port);
    let mut stream = open(daemon, proxy, deadline).await?;
    let address = if proxy.is_some() { None } else { stream.peer_addr().ok() };
    let from = address.map(|address| Multiaddr::from(address.ip()));
    let mut greeting = Greeting::default();
    let listened = timeout_at(deadline, listen(&mut stream, daemon, &mut greeting)).await;
    match listened.unwrap_or(Ok(())) {
        Ok(()) if !greeting.greeted() => Err(format!("{place}: not an rsync server")),
        // What came before a line that makes no sense still counts.
        Err(error) if greeting.offer(&daemon.module).is_none() => Err(format!("{place}: {error}")),
        _ => Ok(Heard { greeting, from }),
    }
}

/// Hands a nomination to the daemon's `early exec`, as `rsync --early-input` does, and waits for its verdict. Nothing is
/// transferred, nothing of its tree is touched.
///
/// # Errors
/// One line: nobody is there, the daemon refuses, or it asks for a password first.
pub async fn hand_in(daemon: &Daemon, proxy: Option<&str>, record: &[u8]) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = open(daemon, proxy, deadline).await?;
    let mut greeting = Greeting::default();
    let said = async {
        let words = [HELLO, early(record.len()).as_bytes(), record, daemon.module.as_bytes(), b"\n"].concat();
        stream.write_all(&words).await.map_err(|error| error.to_string())?;
        let mut buffer = [0; 4096];
        while !greeting.ended() {
            match stream.read(&mut buffer).await.map_err(|error| error.to_string())? {
                0 => return Err("no verdict".to_owned()),
                count => greeting.read(buffer.get(..count).unwrap_or_default())?,
            }
        }
        greeting.refusal.take().map_or(Ok(()), Err)
    };
    let said = timeout_at(deadline, said).await.unwrap_or_else(|_| Err("no verdict".to_owned()));
    said.map_err(|error| format!("{}:{}: {error}", daemon.host, daemon.port))
}

/// The line that precedes early input.
fn early(length: usize) -> String {
    format!("#early_input={length}\n")
}

async fn open(daemon: &Daemon, proxy: Option<&str>, deadline: Instant) -> Result<TcpStream, String> {
    let opening = async {
        match proxy.filter(|proxy| !proxy.is_empty()) {
            Some(proxy) => tunnel(proxy, daemon).await,
            None => TcpStream::connect((daemon.host.as_str(), daemon.port)).await.map_err(|error| error.to_string()),
        }
    };
    let opened = timeout_at(deadline, opening).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    opened.map_err(|error| format!("{}:{}: {error}", daemon.host, daemon.port))
}

async fn listen(stream: &mut TcpStream, daemon: &Daemon, greeting: &mut Greeting) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let name = daemon.module.as_str();
    stream.write_all(HELLO).await.map_err(failed)?;
    let mut named = false;
    let mut buffer = [0; 4096];
    while !greeting.ended() && greeting.offer(name).is_none() {
        let quiet = greeting.greeted() && !named;
        let read =
            if quiet { timeout(QUIET, stream.read(&mut buffer)).await } else { Ok(stream.read(&mut buffer).await) };
        match read {
            Ok(read) => match read.map_err(failed)? {
                0 => break,
                count => greeting.read(buffer.get(..count).unwrap_or_default())?,
            },
            Err(_) if name.is_empty() => break,
            Err(_) => {
                named = true;
                stream.write_all(format!("{name}\n").as_bytes()).await.map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// A tunnel of an HTTP proxy (RFC 9110, CONNECT), named as in `RSYNC_PROXY`: `[user:password@]host:port`.
async fn tunnel(proxy: &str, daemon: &Daemon) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("proxy: {error}");
    let (login, place) = proxy.rsplit_once('@').map_or((None, proxy), |(login, place)| (Some(login), place));
    let mut stream = TcpStream::connect(place).await.map_err(failed)?;
    let host = if daemon.host.contains(':') { format!("[{}]", daemon.host) } else { daemon.host.clone() };
    // multibase's first letter names the alphabet.
    let login = login.map(|login| encode(Base::Base64Pad, login).split_off(1));
    let login = login.map_or(String::new(), |login| format!("Proxy-Authorization: Basic {login}\r\n"));
    let request = format!("CONNECT {host}:{} HTTP/1.0\r\n{login}\r\n", daemon.port);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"\n\n") {
        if answer.len() >= MAX_PROXY {
            return Err("proxy: an answer without end".to_owned());
        }
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    let first = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let status = first.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if first.starts_with(b"HTTP/") && status.first() == Some(&b'2') {
        return Ok(stream);
    }
    Err(format!("proxy: {}", crate::manifest::path::escape(first.trim_ascii_end())))
}
