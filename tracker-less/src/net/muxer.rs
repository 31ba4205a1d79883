//! yamux with bounds of our own: libp2p's wrapper allows 1 GiB of windows per connection and sends frames of 16 KiB.

use std::{
    collections::VecDeque,
    future::{Ready, ready},
    io, iter,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// Streams in one connection, both ways together.
const MAX_STREAMS: usize = 64;
/// Received bytes of one connection that nobody has read yet. Holds a gigabit line over half a second of round trip.
const MAX_WINDOW: usize = 64 << 20;
/// Payload of one frame: with its header it fills one noise message, so that each byte is copied and sealed once.
const FRAME: usize = 62 << 10;
/// Streams that a peer opened and nobody has taken yet; further ones are reset.
const MAX_WAITING: usize = 32;

/// The upgrade that puts streams on a secured connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upgrade;

impl Upgrade {
    fn wrap<C: AsyncRead + AsyncWrite + Unpin>(connection: C, mode: Mode) -> Ready<io::Result<Muxer<C>>> {
        let mut config = Config::default();
        // In this order: yamux insists on 256 KiB for each stream that is allowed.
        config.set_max_num_streams(MAX_STREAMS).set_max_connection_receive_window(Some(MAX_WINDOW));
        config.set_split_send_size(FRAME);
        let connection = Connection::new(connection, config, mode);
        ready(Ok(Muxer { connection, waiting: VecDeque::new(), taker: None }))
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, connection: C, _: Self::Info) -> Self::Future {
        Self::wrap(connection, Mode::Server)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, connection: C, _: Self::Info) -> Self::Future {
        Self::wrap(connection, Mode::Client)
    }
}

/// The streams of one connection. All of its progress comes from asking yamux for the next inbound stream; those that arrive
/// while nobody asks for them wait here.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    waiting: VecDeque<Stream>,
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(context));
        Poll::Ready(next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.advance(context);
        if next.is_pending() {
            self.taker = Some(context.waker().clone());
        }
        next
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        loop {
            let stream = ready!(self.advance(context))?;
            if self.waiting.len() < MAX_WAITING {
                self.waiting.push_back(stream);
            }
            if let Some(taker) = self.taker.take() {
                taker.wake();
            }
        }
    }
}
