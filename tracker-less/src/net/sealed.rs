//! Bytes under the keys of a handshake: Noise messages, each with its length (u16 BE) in front.
//!
//! Every byte is copied as seldom as the libraries allow: what is written in large pieces is sealed from where it stands, and
//! a busy socket is read many messages at a time. A quiet connection holds no buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, ready};
use snow::TransportState;

/// Longest Noise message.
const MAX_MESSAGE: usize = 65535;
/// What sealing adds.
const TAG: usize = 16;
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
/// Messages under one key: 16 GiB at most, far below what wears out AES-GCM (RFC 8446, section 5.5).
const MESSAGES_PER_KEY: u64 = 1 << 18;

/// A secure channel over `C`.
pub(super) struct Sealed<C> {
    inner: C,
    keys: TransportState,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Sealed bytes as they come, and the plain text of the message being read.
#[derive(Default)]
struct Incoming {
    sealed: Vec<u8>,
    start: usize,
    end: usize,
    plain: Vec<u8>,
    taken: usize,
    filled: usize,
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
    pub(super) fn new(inner: C, keys: TransportState) -> Self {
        Self { inner, keys, incoming: Incoming::default(), outgoing: Outgoing::default() }
    }

    /// Opens the next message, if all of it is there.
    fn open(&mut self) -> io::Result<bool> {
        let Incoming { sealed, start, end, plain, taken, filled, .. } = &mut self.incoming;
        let Some([high, low, rest @ ..]) = sealed.get(*start..*end) else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(message) = rest.get(..length) else { return Ok(false) };
        if plain.len() < length {
            plain.resize(length.next_power_of_two(), 0);
        }
        *filled = self.keys.read_message(message, plain).map_err(broken)?;
        *taken = 0;
        *start += PREFIX + length;
        if self.keys.receiving_nonce().is_multiple_of(MESSAGES_PER_KEY) {
            self.keys.rekey_incoming();
        }
        Ok(true)
    }
}

impl Outgoing {
    /// Seals `plain`, one message at most, behind what waits.
    fn seal(&mut self, keys: &mut TransportState, plain: &[u8]) -> io::Result<()> {
        let end = self.end + PREFIX + plain.len() + TAG;
        if self.sealed.len() < end {
            self.sealed.resize(end, 0);
        }
        let (prefix, message) = self.sealed[self.end..end].split_at_mut(PREFIX);
        let length = keys.write_message(plain, message).map_err(broken)?;
        prefix.copy_from_slice(&u16::try_from(length).map_err(broken)?.to_be_bytes());
        self.end = end;
        if keys.sending_nonce().is_multiple_of(MESSAGES_PER_KEY) {
            keys.rekey_outgoing();
        }
        Ok(())
    }

    /// Seals what was gathered.
    fn seal_gathered(&mut self, keys: &mut TransportState) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.plain);
        self.seal(keys, &plain)?;
        self.plain = plain;
        self.plain.clear();
        Ok(())
    }
}

impl<C: AsyncRead + Unpin> Sealed<C> {
    /// Reads more sealed bytes; false at the end of the stream.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Incoming { sealed, start, end, busy, .. } = &mut self.incoming;
        sealed.copy_within(*start..*end, 0);
        (*start, *end) = (0, *end - *start);
        let wanted = if *busy { READ.1 } else { READ.0 }.max((*end * 2).min(READ.1));
        if sealed.len() < wanted {
            sealed.resize(wanted, 0);
        }
        let room = sealed.len() - *end;
        match Pin::new(&mut self.inner).poll_read(context, &mut sealed[*end..]) {
            Poll::Ready(Ok(0)) if *end == 0 => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(count)) => {
                *busy = count == room || count >= READ.0;
                *end += count;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if *end == 0 && !*busy {
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
            let Incoming { plain, taken, filled, .. } = &mut this.incoming;
            if taken < filled {
                let rest = &plain[*taken..*filled];
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                *taken += count;
                return Poll::Ready(Ok(count));
            }
            if !this.open()? && !ready!(this.poll_more(context))? {
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
        this.outgoing.seal_gathered(&mut this.keys)?;
        let piece = &buffer[..buffer.len().min(MAX_PLAIN)];
        this.outgoing.seal(&mut this.keys, piece)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.outgoing.seal_gathered(&mut this.keys)?;
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

    /// The keys of both sides after a handshake.
    fn keys() -> (TransportState, TransportState) {
        let parameters = || "Noise_NN_25519_AESGCM_SHA256".parse().unwrap();
        let mut one = snow::Builder::new(parameters()).build_initiator().unwrap();
        let mut two = snow::Builder::new(parameters()).build_responder().unwrap();
        let (mut message, mut payload) = ([0; 256], [0; 256]);
        let length = one.write_message(&[], &mut message).unwrap();
        two.read_message(&message[..length], &mut payload).unwrap();
        let length = two.write_message(&[], &mut message).unwrap();
        one.read_message(&message[..length], &mut payload).unwrap();
        (one.into_transport_mode().unwrap(), two.into_transport_mode().unwrap())
    }

    /// What travels when `writes` are written, each flushed or not.
    fn sealed(keys: TransportState, writes: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let mut writer = Sealed::new(Cursor::new(Vec::new()), keys);
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

    fn opened(keys: TransportState, sealed: Vec<u8>, piece: usize) -> io::Result<Vec<u8>> {
        let mut reader = Sealed::new(Cursor::new(sealed), keys);
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
            let (one, two) = keys();
            prop_assert!(opened(two, sealed(one, &writes), piece).unwrap() == plain);
        }
    }

    #[test]
    fn a_changed_byte_or_an_early_end_is_an_error() {
        for (at, flip) in [(0, 1), (2, 1), (40, 1), (0, 0)] {
            let (one, two) = keys();
            let mut bytes = sealed(one, &[(vec![7; 20], true), (vec![8; 20], true)]);
            bytes[at] ^= flip;
            if flip == 0 {
                bytes.pop();
            }
            assert!(opened(two, bytes, 100).is_err(), "byte {at}");
        }
    }

    #[test]
    fn keys_change_in_step_on_both_sides() {
        let (one, two) = keys();
        let writes = vec![(vec![1], true); usize::try_from(MESSAGES_PER_KEY + 3).unwrap()];
        assert_eq!(opened(two, sealed(one, &writes), 64).unwrap().len(), writes.len());
    }

    #[test]
    fn both_ways_at_once_and_quiet_ones_hold_no_buffer() {
        let (one, two) = keys();
        let (near, far) = tokio::io::duplex(100);
        let (mut near, mut far) = (Sealed::new(near.compat(), one), Sealed::new(far.compat(), two));
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
        assert!(near.incoming.sealed.is_empty() && near.incoming.plain.is_empty() && far.outgoing.sealed.is_empty());
    }
}
