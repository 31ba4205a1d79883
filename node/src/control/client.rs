//! The end of the command line.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::{Event, Greeting, Place, Reply, VERSION, Verb, failed, other_version, receive, send};
use crate::error::Failure;

/// A connection to the running node, good for one request.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    state: PathBuf,
}

/// Connects to the node that runs on `state`; none if there is none (no socket, or one that a dead node left behind).
///
/// # Errors
/// A socket of somebody else, or a node of another version (exit 2).
pub async fn connect(state: &Path) -> Result<Option<Client>, Failure> {
    let opened = match Place::find(state) {
        Ok(place) => UnixStream::connect(place.socket()).await,
        Err(error) => Err(error),
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(failed(state, &error)),
    };
    let mut client = Client { stream: BufReader::new(stream), state: state.to_owned() };
    match client.greet().await {
        // The node ended between the two steps.
        Ok(None) => Ok(None),
        Ok(Some(VERSION)) => Ok(Some(client)),
        Ok(Some(found)) => Err(other_version(found)),
        Err(error) => Err(failed(state, &error)),
    }
}

impl Client {
    async fn greet(&mut self) -> std::io::Result<Option<u32>> {
        send(self.stream.get_mut(), &Greeting { murmir_control: VERSION }).await?;
        Ok(receive::<Greeting>(&mut self.stream).await?.map(|greeting| greeting.murmir_control))
    }

    /// Asks, hands each event on, and returns the last word. Dropping this future makes the node stop working on it.
    ///
    /// # Errors
    /// The node's failure, the one of `on_event`, or the connection's.
    pub async fn ask(
        mut self,
        request: &Verb,
        mut on_event: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<Value, Failure> {
        let lost = |error| failed(&self.state, &error);
        send(self.stream.get_mut(), request).await.map_err(lost)?;
        loop {
            match receive(&mut self.stream).await.map_err(lost)? {
                Some(Reply::Event(event)) => on_event(event)?,
                Some(Reply::Done(value)) => return Ok(value),
                Some(Reply::Failed(failure)) => return Err(failure),
                None => return Err(lost(std::io::Error::new(ErrorKind::UnexpectedEof, "the node went away"))),
            }
        }
    }
}
