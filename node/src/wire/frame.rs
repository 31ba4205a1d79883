//! Frames: one message with its request number, as bytes on a stream.
//!
//! Layout (docs/WIRE.md): `length u32 BE | type u8 | flags u8 | request u32 BE | header length u32 BE | header | bulk`, where
//! `length` counts everything after itself. Every wait is bounded: a peer that stops in the middle of a frame is a
//! [`Error::Timeout`], one that makes slow progress is not, unless it sends less than 2 KiB a second.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Error;
use super::msg::Message;
use super::pulse::Pulse;
use super::spares::Spares;
use super::throttle::Pace;

/// Longest frame a client accepts, bytes after the length field: 1 MiB of content and room for its proof.
pub const MAX_FRAME: usize = (1 << 20) + (128 << 10);
/// Longest frame a server accepts, bytes after the length field: a full batch request fits.
pub const MAX_REQUEST: usize = 256 << 10;
/// A frame that comes more slowly, in bytes a second, is given up.
const LEAST_RATE: usize = 2 << 10;
/// Bytes that are written at once under a limit.
const PACED: usize = 4 << 10;
/// Type, flags, request number and header length.
const PREFIX: usize = 10;
/// Flags: the bulk bytes are plain, or one zstd frame.
const PLAIN: u8 = 0;
/// The other one.
const PACKED: u8 = 1;

/// One message and the number that ties an answer to its request; 0 is about the stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Chosen by the client, counting up from 1.
    pub request: u32,
    /// What is said.
    pub message: Message,
}

impl Frame {
    /// A frame about the stream as a whole: hello, or the error that ends it.
    pub fn about_stream(message: Message) -> Self {
        Self { request: 0, message }
    }

    /// The bytes before the bulk; the bulk itself is [`Message::bulk`].
    pub fn head(&self) -> Result<Vec<u8>, Error> {
        let header = self.message.header()?;
        let length = PREFIX + header.len() + self.message.bulk().len();
        if length > MAX_FRAME {
            return Err(Error::Lie { what: "a frame over the size cap" });
        }
        let mut bytes = Vec::with_capacity(4 + PREFIX + header.len());
        bytes.extend(to_u32(length)?.to_be_bytes());
        bytes.push(self.message.kind());
        bytes.push(if self.message.is_packed() { PACKED } else { PLAIN });
        bytes.extend(self.request.to_be_bytes());
        bytes.extend(to_u32(header.len())?.to_be_bytes());
        bytes.extend(header);
        Ok(bytes)
    }

    /// The whole frame in one piece.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = self.head()?;
        bytes.extend(self.message.bulk());
        Ok(bytes)
    }
}

fn to_u32(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(|_| Error::Lie { what: "a frame over the size cap" })
}

/// Reads frames and counts their bytes.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    silence: Duration,
    cap: usize,
    first: Option<u8>,
    received: Arc<AtomicU64>,
    pulse: Arc<Mutex<Pulse>>,
    spares: Arc<Spares>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames of at most `cap` bytes; within a frame each read may take `silence`.
    pub fn new(stream: R, cap: usize, silence: Duration, received: Arc<AtomicU64>) -> Self {
        Self { stream, silence, cap, first: None, received, spares: Arc::default(), pulse: Arc::default() }
    }

    /// Filling buffers from `spares`.
    #[must_use]
    pub fn reusing(self, spares: Arc<Spares>) -> Self {
        Self { spares, ..self }
    }

    /// Also tells a pulse of every byte, as it comes; it may be changed for another.
    #[must_use]
    pub fn told(self, pulse: Arc<Mutex<Pulse>>) -> Self {
        Self { pulse, ..self }
    }

    /// Waits, without a deadline, until a frame begins. Can be dropped and called again: nothing is lost.
    pub async fn begun(&mut self) -> Result<(), Error> {
        if self.first.is_none() {
            let mut byte = [0];
            if self.stream.read(&mut byte).await.map_err(|_| Error::Closed)? == 0 {
                return Err(Error::Closed);
            }
            self.first = Some(byte[0]);
        }
        Ok(())
    }

    /// The next frame. The length is checked before anything is allocated, flags and type before the header is parsed.
    pub async fn next(&mut self) -> Result<Frame, Error> {
        within(self.silence, self.begun()).await?;
        let mut length = [self.first.take().unwrap_or_default(), 0, 0, 0];
        self.fill(&mut length[1..]).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.cap {
            return Err(Error::Lie { what: "a frame over the size cap" });
        }
        // A byte now and then is no silence, and yet would hold up whoever waits for the whole.
        let patience = self.silence + Duration::from_secs((length / LEAST_RATE) as u64);
        within(patience, self.body(length)).await
    }

    /// What comes after the length.
    async fn body(&mut self, length: usize) -> Result<Frame, Error> {
        let rest = length.checked_sub(PREFIX).ok_or(Error::Lie { what: "a frame shorter than its prefix" })?;
        let mut prefix = [0; PREFIX];
        self.fill(&mut prefix).await?;
        let [kind, flags, r0, r1, r2, r3, h0, h1, h2, h3] = prefix;
        if flags > PACKED {
            return Err(Error::Lie { what: "flags from another version" });
        }
        let header = usize::try_from(u32::from_be_bytes([h0, h1, h2, h3])).unwrap_or(usize::MAX);
        let bulk = rest.checked_sub(header).ok_or(Error::Lie { what: "a header longer than its frame" })?;
        let header = self.take(header).await?;
        let bulk = self.take(bulk).await?;
        self.received.fetch_add(u64::try_from(4 + length).unwrap_or(0), Ordering::Relaxed);
        let message = Message::decode(kind, flags == PACKED, &header, bulk)?;
        Ok(Frame { request: u32::from_be_bytes([r0, r1, r2, r3]), message })
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = self.spares.take(length);
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }

    async fn fill(&mut self, mut rest: &mut [u8]) -> Result<(), Error> {
        while !rest.is_empty() {
            let read = within(self.silence, closing(self.stream.read(rest))).await?;
            self.pulse.lock().unwrap_or_else(PoisonError::into_inner).beat(read);
            rest = rest.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Writes frames and counts their bytes.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    silence: Duration,
    sent: Arc<AtomicU64>,
    pace: Option<Pace>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Each write may take `silence`.
    pub fn new(stream: W, silence: Duration, sent: Arc<AtomicU64>) -> Self {
        Self { stream, silence, sent, pace: None }
    }

    /// With a limit that others may share.
    #[must_use]
    pub fn paced(self, pace: Option<Pace>) -> Self {
        Self { pace, ..self }
    }

    /// Writes one frame and flushes it.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        let head = frame.head()?;
        let bulk = frame.message.bulk();
        self.drain(&head).await?;
        self.drain(bulk).await?;
        let flushed = within(self.silence, async { self.stream.flush().await.map_err(|_| Error::Closed) });
        flushed.await?;
        self.sent.fetch_add(u64::try_from(head.len() + bulk.len()).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Ends our direction of the stream.
    pub async fn close(&mut self) -> Result<(), Error> {
        within(self.silence, async { self.stream.close().await.map_err(|_| Error::Closed) }).await
    }

    async fn drain(&mut self, mut rest: &[u8]) -> Result<(), Error> {
        while !rest.is_empty() {
            let slice = self.turn(rest).await;
            let written = within(self.silence, closing(self.stream.write(slice))).await?;
            if self.pace.is_some() {
                within(self.silence, async { self.stream.flush().await.map_err(|_| Error::Closed) }).await?;
            }
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// What may be written now; under a limit a little at a time, so that nobody who shares it seems silent.
    async fn turn<'a>(&self, rest: &'a [u8]) -> &'a [u8] {
        let Some(pace) = &self.pace else { return rest };
        let slice = rest.get(..PACED).unwrap_or(rest);
        pace.turn(u64::try_from(slice.len()).unwrap_or(0)).await;
        slice
    }
}

/// Runs `work` for at most `limit`.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, work).await.map_err(|_| Error::Timeout)?
}

/// No bytes moved, or an error: the other side is gone.
async fn closing(moved: impl Future<Output = std::io::Result<usize>>) -> Result<usize, Error> {
    match moved.await {
        Ok(0) | Err(_) => Err(Error::Closed),
        Ok(count) => Ok(count),
    }
}
