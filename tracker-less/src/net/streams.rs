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

/// A read that brings at least this, and all that was asked for, has more behind it.
const MUCH: usize = 4 << 10;
/// Bytes read from a busy socket at once.
const AHEAD: usize = 128 << 10;

/// Streams that peers opened with the bulk protocol.
pub type Incoming = mpsc::Receiver<(PeerId, Stream)>;

/// Bytes of all sockets, counted above TCP: ciphers and framing included.
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
        Counted { inner, counters: self.clone(), ahead: Vec::new(), filled: 0, taken: 0 }
    }

    fn add(&self, bytes: &Poll<io::Result<usize>>, sent: bool) {
        if let Poll::Ready(Ok(bytes)) = bytes {
            self.0[usize::from(sent)].fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A byte stream under [`Counters`]. What reads from it takes 8 KiB at a time; a stream that has more than that is read ahead,
/// so that one system call brings many of those. While nothing comes it holds no buffer.
pub(super) struct Counted<S> {
    inner: S,
    counters: Counters,
    /// Empty while little comes.
    ahead: Vec<u8>,
    filled: usize,
    taken: usize,
}

impl<S> Counted<S> {
    /// Bytes read ahead, as many as fit.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.ahead.get(self.taken..self.filled).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        count
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.taken < this.filled {
            return Poll::Ready(Ok(this.take(buffer)));
        }
        let ahead = !this.ahead.is_empty();
        let read = Pin::new(&mut this.inner).poll_read(context, if ahead { &mut this.ahead } else { buffer });
        this.counters.add(&read, false);
        match read {
            Poll::Ready(Ok(count)) if ahead => {
                (this.filled, this.taken) = (count, 0);
                Poll::Ready(Ok(this.take(buffer)))
            }
            Poll::Ready(Ok(count)) if count == buffer.len() && count >= MUCH => {
                this.ahead = vec![0; AHEAD];
                read
            }
            Poll::Pending => {
                (this.ahead, this.filled, this.taken) = (Vec::new(), 0, 0);
                read
            }
            _ => read,
        }
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

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, executor::block_on, io::Cursor};

    use super::*;

    #[test]
    fn reading_ahead_changes_no_byte_and_no_count() {
        for length in [0, 1, MUCH - 1, MUCH, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD + 77] {
            for piece in [1, 100, MUCH, 8 << 10, 2 * AHEAD] {
                let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
                let counters = Counters::default();
                let mut counted = counters.count(Cursor::new(bytes.clone()));
                let (mut got, mut buffer) = (Vec::new(), vec![0; piece]);
                loop {
                    let count = block_on(counted.read(&mut buffer)).unwrap();
                    if count == 0 {
                        break;
                    }
                    got.extend_from_slice(&buffer[..count]);
                }
                assert!(got == bytes, "{length} bytes by {piece}");
                assert_eq!(counters.read(), (length as u64, 0));
            }
        }
    }
}
