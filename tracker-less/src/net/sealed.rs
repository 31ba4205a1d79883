//! Bytes under the keys of a handshake: Noise messages, each with its length (u16 BE) in front.
//!
//! Every byte is copied as seldom as the libraries allow: what is written in large pieces is sealed from where it stands, and
//! a busy socket is read many messages at a time. A quiet connection holds no buffer.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, ready};

use super::cipher::{Cipher, TAG};

/// Longest Noise message.
const MAX_MESSAGE: usize = 65535;
/// The length in front.
const PREFIX: usize = 2;
/// Longest plain text of a message.
const MAX_PLAIN: usize = MAX_MESSAGE - TAG;
/// Writes of at least this are not gathered first.
const LARGE: usize = 8 << 10;
/// Sealed bytes that wait for the socket; more are not taken.
const MAX_WAITING: usize = 128 << 10;
/// What is read from a quiet socket at once, and from a busy one.
const READ: (usize, usize) = (4 << 10, 256 << 10);

/// A secure channel over `C`.
pub(super) struct Sealed<C> {
    inner: C,
    opens: Cipher,
    seals: Cipher,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Sealed bytes as they come; the message being read is opened where it stands.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// Plain text that was not read yet.
    plain: Range<usize>,
    /// Sealed bytes behind it.
    sealed: Range<usize>,
    /// The last read filled what was there for it.
    busy: bool,
}

/// Plain text that is gathered, and sealed bytes that wait for the socket.
#[derive(Default)]
struct Outgoing {
    plain: Vec<u8>,
    sealed: Vec<u8>,
    start: usize,
    end: usize,
}

impl<C> Sealed<C> {
    /// The channel that begins where the handshake ended.
    pub(super) fn new(inner: C, opens: Cipher, seals: Cipher) -> Self {
        Self { inner, opens, seals, incoming: Incoming::default(), outgoing: Outgoing::default() }
    }
}

impl Incoming {
    /// Opens the next message, if all of it is there.
    fn open(&mut self, cipher: &mut Cipher) -> io::Result<bool> {
        let Some([high, low, rest @ ..]) = self.bytes.get_mut(self.sealed.clone()) else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(message) = rest.get_mut(..length) else { return Ok(false) };
        let start = self.sealed.start + PREFIX;
        self.plain = start..start + cipher.open(message)?;
        self.sealed.start = start + length;
        Ok(true)
    }
}

impl Outgoing {
    /// Seals `plain`, one message at most, behind what waits.
    fn seal(&mut self, cipher: &mut Cipher, plain: &[u8]) -> io::Result<()> {
        let end = self.end + PREFIX + plain.len() + TAG;
        if self.sealed.len() < end {
            self.sealed.resize(end, 0);
        }
        let (prefix, message) = self.sealed[self.end..end].split_at_mut(PREFIX);
        prefix.copy_from_slice(&u16::try_from(message.len()).map_err(broken)?.to_be_bytes());
        message[..plain.len()].copy_from_slice(plain);
        cipher.seal(message)?;
        self.end = end;
        Ok(())
    }

    /// Seals what was gathered.
    fn seal_gathered(&mut self, cipher: &mut Cipher) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.plain);
        self.seal(cipher, &plain)?;
        self.plain = plain;
        self.plain.clear();
        Ok(())
    }
}

impl<C: AsyncRead + Unpin> Sealed<C> {
    /// Reads more sealed bytes; false at the end of the stream.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let incoming = &mut self.incoming;
        incoming.bytes.copy_within(incoming.sealed.clone(), 0);
        let end = incoming.sealed.len();
        incoming.sealed = 0..end;
        let wanted = if incoming.busy { READ.1 } else { READ.0 }.max((end * 2).min(READ.1));
        if incoming.bytes.len() < wanted {
            incoming.bytes.resize(wanted, 0);
        }
        let room = &mut incoming.bytes[end..];
        match Pin::new(&mut self.inner).poll_read(context, room) {
            Poll::Ready(Ok(0)) if end == 0 => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(count)) => {
                incoming.busy = count == room.len() || count >= READ.0;
                incoming.sealed.end += count;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if end == 0 && !incoming.busy {
                    self.incoming = Incoming::default();
                }
                Poll::Pending
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> Sealed<C> {
    /// Sends all sealed bytes.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Outgoing { sealed, start, end, .. } = &mut self.outgoing;
        while start < end {
            match ready!(Pin::new(&mut self.inner).poll_write(context, &sealed[*start..*end]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *start += count,
            }
        }
        if *end <= READ.0 {
            // Little was said: that may be all for long.
            *sealed = Vec::new();
        }
        (*start, *end) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Sealed<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let incoming = &mut this.incoming;
            if let Some(plain) = incoming.bytes.get(incoming.plain.clone()).filter(|plain| !plain.is_empty()) {
                let count = plain.len().min(buffer.len());
                buffer[..count].copy_from_slice(&plain[..count]);
                incoming.plain.start += count;
                return Poll::Ready(Ok(count));
            }
            if !this.incoming.open(&mut this.opens)? && !ready!(this.poll_more(context))? {
                return Poll::Ready(Ok(0));
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Sealed<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.outgoing.end >= MAX_WAITING {
            ready!(this.poll_drain(context))?;
        }
        let room = MAX_PLAIN - this.outgoing.plain.len();
        if buffer.len() < LARGE && buffer.len() <= room {
            this.outgoing.plain.extend_from_slice(buffer);
            return Poll::Ready(Ok(buffer.len()));
        }
        this.outgoing.seal_gathered(&mut this.seals)?;
        let piece = &buffer[..buffer.len().min(MAX_PLAIN)];
        this.outgoing.seal(&mut this.seals, piece)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.outgoing.seal_gathered(&mut this.seals)?;
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.inner).poll_close(context)
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt, executor::block_on, future::join, io::Cursor};
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    /// One side of a channel over `inner`.
    fn channel<C>(inner: C, is_first: bool) -> Sealed<C> {
        let (one, two) = (Cipher::new(&[1; 32]).unwrap(), Cipher::new(&[2; 32]).unwrap());
        if is_first { Sealed::new(inner, one, two) } else { Sealed::new(inner, two, one) }
    }

    /// What travels when `writes` are written, each flushed or not.
    fn sealed(writes: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let mut writer = channel(Cursor::new(Vec::new()), true);
        block_on(async {
            for (bytes, flushes) in writes {
                writer.write_all(bytes).await.unwrap();
                if *flushes {
                    writer.flush().await.unwrap();
                }
            }
            writer.close().await.unwrap();
        });
        writer.inner.into_inner()
    }

    fn opened(sealed: Vec<u8>, piece: usize) -> io::Result<Vec<u8>> {
        let mut reader = channel(Cursor::new(sealed), false);
        let (mut got, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match block_on(reader.read(&mut buffer))? {
                0 => return Ok(got),
                count => got.extend_from_slice(&buffer[..count]),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(
            lengths in proptest::collection::vec((0usize..200_000, any::<bool>()), 0..6),
            piece in 1usize..100_000,
        ) {
            let fill = |(length, flushes): (usize, bool)| ((0..=250).cycle().take(length).collect(), flushes);
            let writes: Vec<(Vec<u8>, bool)> = lengths.into_iter().map(fill).collect();
            let plain: Vec<u8> = writes.iter().flat_map(|(bytes, _)| bytes).copied().collect();
            prop_assert!(opened(sealed(&writes), piece).unwrap() == plain);
        }
    }

    #[test]
    fn a_changed_byte_or_an_early_end_is_an_error() {
        for (at, flip) in [(0, 1), (2, 1), (40, 1), (0, 0)] {
            let mut bytes = sealed(&[(vec![7; 20], true), (vec![8; 20], true)]);
            bytes[at] ^= flip;
            if flip == 0 {
                bytes.pop();
            }
            assert!(opened(bytes, 100).is_err(), "byte {at}");
        }
    }

    #[test]
    fn both_ways_at_once_and_quiet_ones_hold_no_buffer() {
        let (near, far) = tokio::io::duplex(100);
        let (mut near, mut far) = (channel(near.compat(), true), channel(far.compat(), false));
        let bytes = vec![5; 300_000];
        let talk = |mut side: Sealed<_>| {
            let bytes = bytes.clone();
            async move {
                let mut got = vec![0; bytes.len()];
                {
                    let (mut read, mut write) = (&mut side).split();
                    let send = async {
                        write.write_all(&bytes).await.unwrap();
                        write.flush().await.unwrap();
                    };
                    join(send, async { read.read_exact(&mut got).await.unwrap() }).await;
                }
                assert!(got == bytes);
                side
            }
        };
        (near, far) = block_on(join(talk(near), talk(far)));
        block_on(async {
            far.write_all(b"a last word").await.unwrap();
            far.flush().await.unwrap();
            near.read_exact(&mut [0; 11]).await.unwrap();
        });
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut near).poll_read(&mut context, &mut [0; 9]).is_pending());
        assert!(near.incoming.bytes.is_empty() && far.outgoing.sealed.is_empty());
    }
}
