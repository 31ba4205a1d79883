//! Which way to a peer is taken where there are several: TCP, which carries the same bytes for two thirds of the processor time;
//! QUIC where TCP does not get through, and at once where there is nothing else.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{address::peer_of, quic::is_quic};

/// So long QUIC waits for dials by TCP of the same peer that are under way. Enough to set up a connection around the world.
const HEAD_START: Duration = Duration::from_secs(2);
/// So long it waits for those to begin, which may be told apart from one another; and for a connection to be taken note of.
const MOMENT: Duration = Duration::from_millis(100);

/// Dials by TCP that are under way, by peer: whoever listens hears when one succeeded, or the last one ended.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<HashMap<PeerId, Weak<watch::Sender<bool>>>>>);

impl UnderWay {
    /// One more, for as long as this is kept.
    fn begin(&self, peer: PeerId) -> Arc<watch::Sender<bool>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, dial| dial.strong_count() > 0);
        if let Some(dial) = all.get(&peer).and_then(Weak::upgrade) {
            return dial;
        }
        let dial = Arc::new(watch::Sender::new(false));
        all.insert(peer, Arc::downgrade(&dial));
        dial
    }

    /// Waits until none is under way, or the head start is over. True if the peer was reached.
    async fn give_way(&self, peer: PeerId) -> bool {
        sleep(MOMENT).await;
        let dial = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&peer).and_then(Weak::upgrade).map(|dial| dial.subscribe())
        };
        let Some(mut dial) = dial else { return false };
        let reached = matches!(timeout(HEAD_START, dial.wait_for(|reached| *reached)).await, Ok(Ok(_)));
        if reached {
            sleep(MOMENT).await;
        }
        reached
    }
}

/// A transport whose dials by QUIC give way to those by TCP. It belongs above the resolver, where all addresses of a peer pass
/// before the first of them is polled.
pub(super) struct TcpFirst<T> {
    inner: T,
    under_way: UnderWay,
}

impl<T> TcpFirst<T> {
    /// Orders those of `inner`.
    pub(super) fn new(inner: T) -> Self {
        Self { inner, under_way: UnderWay::default() }
    }

    fn ordered<O: Send + 'static>(
        &self,
        address: &Multiaddr,
        dial: impl Future<Output = io::Result<O>> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<O>> {
        let Some(peer) = peer_of(address) else { return dial.boxed() };
        let under_way = self.under_way.clone();
        if is_quic(address) {
            return async move {
                if under_way.give_way(peer).await {
                    return Err(io::Error::other("reached by TCP"));
                }
                dial.await
            }
            .boxed();
        }
        let token = under_way.begin(peer);
        async move {
            let done = dial.await;
            if done.is_ok() {
                token.send_replace(true);
            }
            done
        }
        .boxed()
    }
}

impl<O: Send + 'static, T> Transport for TcpFirst<T>
where
    T: Transport<Output = O, Error = io::Error> + Unpin,
    T::Dial: Send + 'static,
{
    type Output = O;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<O>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.inner.dial(address.clone(), options)?;
        Ok(self.ordered(&address, dial))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{pending, ready};

    use super::*;

    fn address(text: &str, peer: PeerId) -> Multiaddr {
        text.parse::<Multiaddr>().unwrap().with_p2p(peer).unwrap()
    }

    const TCP: &str = "/ip4/9.9.9.9/tcp/1";
    const QUIC: &str = "/ip4/9.9.9.9/udp/1/quic-v1";

    #[tokio::test]
    async fn quic_waits_for_tcp_of_the_same_peer_and_for_nobody_else() {
        let (order, peer) = (TcpFirst::new(()), PeerId::random());
        let dialled = || ready(Ok("quic"));
        let never = pending::<io::Result<&str>>;
        // The order in which the addresses come does not matter, and whom others wait for neither.
        let mut quic = order.ordered(&address(QUIC, peer), dialled());
        let slow = order.ordered(&address(TCP, peer), never());
        assert_eq!(order.ordered(&address(QUIC, PeerId::random()), dialled()).await.unwrap(), "quic");
        assert!((&mut quic).now_or_never().is_none());
        drop(slow);
        assert_eq!(quic.await.unwrap(), "quic", "when TCP has failed");
        let _slow = order.ordered(&address(TCP, peer), never());
        assert_eq!(order.ordered(&address(QUIC, peer), dialled()).await.unwrap(), "quic", "after the head start");
    }

    #[tokio::test]
    async fn where_tcp_leads_there_quic_is_not_dialled() {
        let (order, peer) = (TcpFirst::new(()), PeerId::random());
        let quic = order.ordered(&address(QUIC, peer), async { panic!("dialled") });
        let tcp = order.ordered(&address(TCP, peer), async {
            sleep(2 * MOMENT).await;
            Ok("tcp")
        });
        let (quic, tcp): (io::Result<&str>, _) = tokio::join!(quic, tcp);
        assert_eq!((tcp.unwrap(), quic.unwrap_err().to_string().as_str()), ("tcp", "reached by TCP"));
    }
}
