//! The control socket of a running node: `<state>/run/control.sock`, 0600 in a 0700 directory, for the node's user and root.
//! One request a connection, one JSON line a message; both ends must be of one version.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::error::{Exit, Failure};
use crate::store::files::{Dir, escape};

mod client;
mod msg;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, connect};
pub use msg::{Event, Reply, VERSION, Verb};
pub use server::{Handler, Listener, listen, serve};

/// Directory of the socket in the state.
const RUN: &str = "run";
/// The socket's name.
const SOCKET: &str = "control.sock";
/// Longest line: a request with 10,000 rules, or the status of many modules.
const MAX_LINE: u64 = 16 << 20;

/// The first line of both sides.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    murmir_control: u32,
}

/// The directory of the socket, and a name of the socket that fits into the 108 bytes of a socket address however long the
/// state's path is (unix(7)): through the open directory's descriptor.
struct Place {
    dir: std::fs::File,
}

impl Place {
    /// Where the socket of `state` is, if that directory exists.
    fn find(state: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let dir = rustix::fs::open(state.join(RUN), flags | rustix::fs::OFlags::NOFOLLOW, rustix::fs::Mode::empty())?;
        Ok(Self { dir: dir.into() })
    }

    /// The same, made (0700) if it is absent.
    fn make(state: &Path) -> Result<Self, Failure> {
        let made = Dir::open(state).and_then(|dir| dir.child_or_make(RUN));
        made.and_then(|dir| dir.set_own_mode(0o700)).map_err(|error| Failure::new(Exit::Files, error))?;
        Self::find(state).map_err(|error| failed(state, &error))
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.dir.as_raw_fd()))
    }
}

/// Writes one message.
async fn send(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() as u64 > MAX_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long a message"));
    }
    to.write_all(&line).await?;
    to.flush().await
}

/// Reads one message; none at the end of the stream.
async fn receive<T: DeserializeOwned>(from: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a message without an end")),
    }
}

/// Another version at the other end.
fn other_version(found: u32) -> Failure {
    Failure::new(Exit::Protocol, format_args!("the running node speaks control version {found}, this is {VERSION}"))
        .hint("restart the node")
}

fn failed(state: &Path, error: &io::Error) -> Failure {
    let state = escape(state.as_os_str().as_bytes());
    Failure::new(Exit::Stream, format_args!("control socket of {state}: {error}"))
}
