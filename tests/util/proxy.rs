//! A TCP relay on loopback that counts what passes and can hold it back: a slow line, and a witness.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes relayed at once: also the grain of the brake.
const CHUNK: usize = 16 << 10;

/// What the relay's threads share.
#[derive(Default)]
struct Shared {
    down: AtomicU64,
    up: AtomicU64,
    limit: AtomicU64,
    /// Milliseconds between two pieces beyond the limit; 0: none passes.
    pause: AtomicU64,
    gone: AtomicBool,
}

/// A relay to one port.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Relays to `port`; nothing is held back at first.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared::default());
        shared.limit.store(u64::MAX, Ordering::SeqCst);
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if for_thread.gone.load(Ordering::SeqCst) {
                    return;
                }
                relay(client, port, &for_thread);
            }
        });
        Self { port: own, shared }
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `address` (of the node behind) with the relay's port.
    pub fn address(&self, address: &str) -> String {
        let mut parts: Vec<&str> = address.split('/').collect();
        let port = self.port.to_string();
        parts[4] = &port;
        parts.join("/")
    }

    /// Bytes that came from the node behind.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// Bytes that went to it.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// Of what is held back a piece passes now and then.
    pub fn trickle(&self, pause: Duration) {
        self.shared.pause.store(u64::try_from(pause.as_millis()).expect("short"), Ordering::SeqCst);
    }

    /// Lets no more than `bytes` in all come from the node behind; the rest waits.
    pub fn hold_at(&self, bytes: u64) {
        self.shared.limit.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn relay(client: TcpStream, port: u16, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
    let (client_too, server_too) = (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
    let (there, back) = (Arc::clone(shared), Arc::clone(shared));
    std::thread::spawn(move || {
        copy(client, server, |read| {
            there.up.fetch_add(read, Ordering::SeqCst);
        });
    });
    std::thread::spawn(move || {
        copy(server_too, client_too, |read| {
            while back.down.load(Ordering::SeqCst) >= back.limit.load(Ordering::SeqCst) {
                if back.gone.load(Ordering::SeqCst) {
                    return;
                }
                let pause = back.pause.load(Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(pause.max(1)));
                if pause > 0 {
                    break;
                }
            }
            back.down.fetch_add(read, Ordering::SeqCst);
        });
    });
}

/// Copies to the end; `pass` sees how much is about to go on, and may hold it.
fn copy(mut from: TcpStream, mut to: TcpStream, pass: impl Fn(u64)) {
    let mut buffer = [0; CHUNK];
    while let Ok(read) = from.read(&mut buffer)
        && read > 0
    {
        pass(read as u64);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Whoever is left on either side learns that the other has gone.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
