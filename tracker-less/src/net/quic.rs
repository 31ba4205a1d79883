//! QUIC: for where only UDP passes. It brings its own ciphers (TLS 1.3, libp2p's) and its own streams; the bounds are ours.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::ready;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
    identity::Keypair,
    multiaddr::Protocol,
    quic,
};

use super::{
    behaviour::SETUP,
    doorway::Doorway,
    streams::{Counted, Counters},
};

/// Streams that the peer may have open in one connection; with as many of ours they are what yamux allows.
const MAX_STREAMS: u32 = 32;
/// Received bytes of one connection that nobody has read yet. libp2p sends no more than 10 MB ahead.
const MAX_WINDOW: u32 = 16 << 20;
/// The same of one stream: one that nobody reads leaves room for the others.
const MAX_STREAM_WINDOW: u32 = 12 << 20;
/// Connections that others are setting up. Their source may be forged, so they have places of their own: those of TCP stay free.
const MAX_WAITING: usize = 48;

/// Connections of the node with this key, their bytes counted above QUIC.
pub(super) fn transport(
    key: &Keypair,
    counters: &Counters,
) -> impl Transport<
    Output = (PeerId, StreamMuxerBox),
    Error = io::Error,
    ListenerUpgrade: Send + 'static,
    Dial: Send + 'static,
> + Send
+ Unpin
+ use<> {
    let mut config = quic::Config::new(key);
    config.handshake_timeout = SETUP;
    config.max_concurrent_stream_limit = MAX_STREAMS;
    config.max_connection_data = MAX_WINDOW;
    config.max_stream_data = MAX_STREAM_WINDOW;
    let counters = counters.clone();
    let counted = move |(peer, inner), _| (peer, StreamMuxerBox::new(Muxer { inner, counters: counters.clone() }));
    Doorway::new(quic::tokio::Transport::new(config).map(counted).map_err(plain), MAX_WAITING)
}

/// Whether an address is one of QUIC.
pub(super) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// The system's error, or one that says what kind of end it was.
fn plain(error: quic::Error) -> io::Error {
    let kind = match &error {
        quic::Error::HandshakeTimedOut => io::ErrorKind::TimedOut,
        // Why a connection ended is kept from us but for its words.
        quic::Error::Connection(ended) => match ended.to_string() {
            text if text.contains("by peer") => io::ErrorKind::ConnectionReset,
            text if text.contains("timed out") => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        },
        _ => io::ErrorKind::Other,
    };
    match error {
        quic::Error::Io(error) => error,
        other => io::Error::new(kind, other),
    }
}

/// The streams of one connection, counted.
struct Muxer {
    inner: quic::Connection,
    counters: Counters,
}

impl Muxer {
    fn inner(&mut self) -> Pin<&mut quic::Connection> {
        Pin::new(&mut self.inner)
    }
}

impl StreamMuxer for Muxer {
    type Substream = Counted<quic::Stream>;
    type Error = quic::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, quic::Error>> {
        let stream = ready!(self.inner().poll_inbound(context));
        Poll::Ready(stream.map(|stream| self.counters.count(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, quic::Error>> {
        let stream = ready!(self.inner().poll_outbound(context));
        Poll::Ready(stream.map(|stream| self.counters.count(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), quic::Error>> {
        self.inner().poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, quic::Error>> {
        self.inner().poll(context)
    }
}
