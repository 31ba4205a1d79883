//! Bytes on sockets are counted, and bulk streams from peers are taken in.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;
use tokio::sync::mpsc;

/// Streams that were opened by peers and not yet taken by the server.
const WAITING_STREAMS: usize = 64;

/// Streams that peers opened with the bulk protocol.
pub type Incoming = mpsc::Receiver<(PeerId, Stream)>;

/// Bytes of all sockets, counted above TCP and QUIC: of TCP ciphers and framing included, of QUIC what its streams carry.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Arc<[AtomicU64; 2]>);

impl Counters {
    /// (received, sent) bytes since the start.
    pub(super) fn read(&self) -> (u64, u64) {
        let [received, sent] = &*self.0;
        (received.load(Ordering::Relaxed), sent.load(Ordering::Relaxed))
    }

    /// The same stream, counted.
    pub(super) fn count<S>(&self, inner: S) -> Counted<S> {
        Counted { inner, counters: self.clone() }
    }

    fn add(&self, bytes: &Poll<io::Result<usize>>, sent: bool) {
        if let Poll::Ready(Ok(bytes)) = bytes {
            self.0[usize::from(sent)].fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A byte stream under [`Counters`].
pub(super) struct Counted<S> {
    inner: S,
    counters: Counters,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.counters.add(&read, false);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.counters.add(&written, true);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.counters.add(&written, true);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// Streams on their way from the event loops, one after another, to the server.
pub(super) fn incoming() -> (mpsc::Sender<(PeerId, Stream)>, Incoming) {
    mpsc::channel(WAITING_STREAMS)
}

/// Takes in streams, in a task of its own: libp2p-stream holds one at most and drops the next without a word.
/// When the server lags behind by [`WAITING_STREAMS`], further ones are dropped here, and their openers try again.
pub(super) async fn take_in(mut streams: IncomingStreams, sender: mpsc::Sender<(PeerId, Stream)>) {
    loop {
        let (peer, stream) = tokio::select! {
            () = sender.closed() => return,
            next = streams.next() => match next {
                Some(next) => next,
                None => return,
            },
        };
        if sender.try_send((peer, stream)).is_err() {
            tracing::debug!(%peer, "too many streams wait: one dropped");
        }
    }
}
