//! The end of the node.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Greeting, Place, Reply, SOCKET, VERSION, Verb, failed, other_version, receive, send};
use crate::error::{Exit, Failure};

/// Connections worked on at once; more wait.
const MAX_CONNECTIONS: usize = 32;
/// How long a connection may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Replies on their way to a reader that is slow.
const QUEUE: usize = 64;
/// Pause after a failed accept (no descriptors left): trying again at once would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request: events in any number, then [`Reply::Done`] or [`Reply::Failed`]. Dropped when the asker goes away.
    fn handle(&self, request: Verb, out: mpsc::Sender<Reply>) -> impl Future<Output = ()> + Send;
}

/// The bound socket; its name is removed on drop.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    dir: std::fs::File,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What stays behind is taken for what it is: connecting to it is refused.
        let _ = rustix::fs::unlinkat(&self.dir, SOCKET, rustix::fs::AtFlags::empty());
    }
}

/// Binds the control socket of `state`, in place of one that a dead node left. The caller holds the lock of `state`, so no
/// living node's socket can be there.
///
/// # Errors
/// Exit 11, or 46 if a node answers all the same.
pub fn listen(state: &Path) -> Result<Listener, Failure> {
    let place = Place::make(state)?;
    let path = place.socket();
    let bind = || -> io::Result<UnixListener> {
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(&path)?,
            Err(_) => {}
        }
        let socket = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    };
    let socket = bind().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Failure::new(Exit::Locked, "another node runs on this state"),
        _ => Failure { code: Exit::Files, ..failed(state, &source) },
    })?;
    Ok(Listener { socket, dir: place.dir })
}

/// Answers connections until dropped.
pub async fn serve(listener: &Listener, handler: Arc<impl Handler>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        while tasks.try_join_next().is_some() {}
        let stream = match listener.socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let handler = Arc::clone(&handler);
        tasks.spawn(async move {
            if let Err(error) = converse(stream, &*handler).await {
                tracing::debug!(%error, "control connection");
            }
            drop(slot);
        });
    }
}

async fn converse(stream: UnixStream, handler: &impl Handler) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid} may not command this node")));
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let hearing = tokio::time::timeout(PATIENCE, async {
        let Some(theirs) = receive::<Greeting>(&mut read).await? else { return Ok(None) };
        send(&mut write, &Greeting { murmir_control: VERSION }).await?;
        if theirs.murmir_control == VERSION {
            return receive::<Verb>(&mut read).await;
        }
        send(&mut write, &Reply::Failed(other_version(VERSION))).await?;
        Ok(None)
    });
    let Some(request) = hearing.await?? else { return Ok(()) };
    let (out, mut replies) = mpsc::channel(QUEUE);
    let answer = async {
        while let Some(reply) = replies.recv().await {
            send(&mut write, &reply).await?;
        }
        io::Result::Ok(())
    };
    // The asker says nothing more: anything read from it is its end.
    let mut rest = [0];
    tokio::select! {
        ((), sent) = async { tokio::join!(handler.handle(request, out), answer) } => sent,
        _ = read.read(&mut rest) => Ok(()),
    }
}
