//! Those who knock and then say nothing: a connection that is being set up keeps a place for as long as that may take, and when
//! the places are taken, whoever has waited longest makes room. Who sets a connection up in a moment hardly ever notices.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable, BoxFuture},
};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};

/// A transport whose half open inbound connections are bounded.
pub(super) struct Doorway<T> {
    inner: T,
    places: usize,
    waiting: VecDeque<Waiting>,
}

/// One that is being set up, for as long as its token lives.
struct Waiting {
    token: Weak<()>,
    abort: AbortHandle,
}

impl<T> Doorway<T> {
    /// Bounds those of `inner` to so many.
    pub(super) fn new(inner: T, places: usize) -> Self {
        Self { inner, places, waiting: VecDeque::new() }
    }

    /// The same set-up, which ends early when it has to make room.
    fn admit<O>(
        &mut self,
        upgrade: impl Future<Output = io::Result<O>> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<O>> {
        self.waiting.retain(|other| other.token.strong_count() > 0);
        while self.waiting.len() >= self.places
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.abort.abort();
        }
        let (abort, registration) = AbortHandle::new_pair();
        let token = Arc::new(());
        self.waiting.push_back(Waiting { token: Arc::downgrade(&token), abort });
        let upgrade = async move {
            let done = Abortable::new(upgrade, registration).await;
            drop(token);
            done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::ConnectionAborted, "made room for another")))
        };
        upgrade.boxed()
    }
}

impl<O, T> Transport for Doorway<T>
where
    T: Transport<Output = O, Error = io::Error> + Unpin,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = O;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<O>>;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = &mut *self;
        Pin::new(&mut this.inner).poll(context).map(|event| event.map_upgrade(|upgrade| this.admit(upgrade)))
    }
}

#[cfg(test)]
mod tests {
    use futures::{
        executor::block_on,
        future::{pending, ready},
    };

    use super::*;

    #[test]
    fn whoever_waited_longest_makes_room_and_the_quick_do_not() {
        const PLACES: usize = 20;
        let mut doorway = Doorway::new((), PLACES);
        let mut silent: VecDeque<_> = (0..PLACES).map(|_| doorway.admit::<()>(pending())).collect();
        // Those that come, are set up and go leave no trace.
        for number in 0..10 * PLACES {
            let first = silent.pop_front().unwrap();
            assert_eq!(block_on(doorway.admit(ready(Ok(number)))).unwrap(), number);
            let over = first.now_or_never().expect("it ends early");
            assert_eq!(over.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            silent.push_back(doorway.admit(pending()));
        }
        assert!(silent.iter_mut().all(|upgrade| upgrade.now_or_never().is_none()), "the others wait on");
        drop(silent);
        let _last = doorway.admit::<()>(pending());
        assert_eq!(doorway.waiting.len(), 1);
    }
}
