//! Plain web servers of a directory, good and bad.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes written at once on a slow line.
const CHUNK: usize = 16 << 10;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Ranges and all.
    Good,
    /// Knows no ranges (`python3 -m http.server`).
    Whole,
    /// One wrong byte in every file of the tree.
    Wrong,
    /// Ends every body in its middle.
    Short,
    /// Says another range than it was asked for.
    Shifted,
    /// Busy at first.
    Busy,
    /// Leads elsewhere: to the same path below `/moved`.
    Moved,
    /// Leads in circles.
    Circle,
    /// Sends so many bytes a second, over all connections.
    Slow(u64),
    /// No range is good enough.
    NoRange,
    /// Compresses every body, asked or not.
    Gzip,
    /// Another file after some requests, with another ETag.
    Changes,
    /// Busy for ever, and says so in other words.
    Refuses,
    /// Headers without end.
    Endless,
    /// A header of which a letter comes now and then.
    Trickles,
    /// Speaks another language.
    Garbage,
    /// Says nothing.
    Silent,
}

/// A web server on loopback.
pub struct Web {
    port: u16,
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicUsize>,
}

impl Web {
    /// Serves `dir`.
    pub fn start(dir: &Path, manner: Manner) -> Self {
        Self::start_with(dir, manner, "")
    }

    /// The same with a header line in every answer.
    pub fn start_with(dir: &Path, manner: Manner, header: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let serving = Arc::new(Serving {
            dir: dir.to_owned(),
            manner,
            header: header.to_owned(),
            sent: Arc::default(),
            requests: Arc::default(),
            free: Mutex::new(Instant::now()),
        });
        let web = Self { port, sent: Arc::clone(&serving.sent), requests: Arc::clone(&serving.requests) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.talk(&client));
            }
        });
        web
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Bytes of bodies sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Requests answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

struct Serving {
    dir: PathBuf,
    manner: Manner,
    /// A line for every answer; none if empty.
    header: String,
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicUsize>,
    /// When the line is free again, of one that is slow.
    free: Mutex<Instant>,
}

impl Serving {
    /// One connection: request after request, until the client leaves or the manner ends it.
    fn talk(&self, mut client: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(client).lines().map_while(Result::ok);
        loop {
            let first = lines.next()?;
            let headers: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            let mut words = first.split(' ');
            let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
            let range = headers
                .iter()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            if let Some(odd) = self.odd() {
                return odd(client);
            }
            let (head, mut body) = self.answer(&path, range.as_deref(), number);
            if method == "HEAD" {
                body.clear();
            }
            let more = if self.header.is_empty() { String::new() } else { format!("\r\n{}", self.header) };
            client.write_all(head.replacen("\r\n", &format!("{more}\r\n"), 1).as_bytes()).ok()?;
            if let Manner::Slow(rate) = self.manner {
                for part in body.chunks(CHUNK) {
                    self.wait(part.len(), rate);
                    client.write_all(part).ok()?;
                    self.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
                }
                continue;
            }
            let short = self.manner == Manner::Short && body.len() > 100;
            let body = if short { &body[..body.len() / 2] } else { &body[..] };
            client.write_all(body).ok()?;
            self.sent.fetch_add(body.len() as u64, Ordering::SeqCst);
            if short {
                return None;
            }
        }
    }

    /// Takes its turn on a slow line.
    fn wait(&self, bytes: usize, rate: u64) {
        let until = {
            let mut free = self.free.lock().expect("whole");
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    /// What is no answer at all.
    fn odd(&self) -> Option<fn(&TcpStream) -> Option<()>> {
        match self.manner {
            Manner::Endless => Some(|mut client| {
                client.write_all(b"HTTP/1.1 200 OK\r\n").ok()?;
                loop {
                    client.write_all(b"X-More: and on and on and on and on\r\n").ok()?;
                }
            }),
            Manner::Trickles => Some(|mut client| {
                client.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ").ok()?;
                loop {
                    client.write_all(b"x").ok()?;
                    std::thread::sleep(Duration::from_millis(100));
                }
            }),
            Manner::Garbage => Some(|mut client| client.write_all(b"@RSYNCD: 31.0\nwelcome\n").ok()),
            // Until the client has enough of it.
            Manner::Silent => Some(|mut client| client.read(&mut [0]).ok().map(drop)),
            _ => None,
        }
    }

    fn answer(&self, path: &str, range: Option<&str>, number: usize) -> (String, Vec<u8>) {
        let none =
            |status: &str, more: &str| (format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n"), Vec::new());
        if self.manner == Manner::Busy && number < 2 {
            return none("503 Busy", "Retry-After: 1\r\n");
        }
        if self.manner == Manner::Refuses {
            return none("429 Too Many", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT\r\n");
        }
        if self.manner == Manner::Circle {
            return none("302 Found", &format!("Location: {path}\r\n"));
        }
        let inner = path.strip_prefix("/moved");
        if self.manner == Manner::Moved && inner.is_none() {
            return none("302 Found", &format!("Location: /moved{path}\r\n"));
        }
        let file = self.dir.join(unquote(inner.unwrap_or(path)).trim_start_matches('/'));
        let Ok(mut whole) = fs::read(file) else { return none("404 Not Found", "") };
        if self.manner == Manner::Wrong && !path.contains(".murmir") && !whole.is_empty() {
            let at = whole.len() / 2;
            whole[at] ^= 1;
        }
        let is_other = self.manner == Manner::Changes && number >= 4;
        if is_other && !path.contains(".murmir") {
            whole.iter_mut().for_each(|byte| *byte ^= 1);
        }
        if self.manner == Manner::NoRange && range.is_some() {
            return none("416 Range Not Satisfiable", &format!("Content-Range: bytes */{}\r\n", whole.len()));
        }
        if self.manner == Manner::Gzip {
            // A reader that unpacks it finds garbage, one that does not finds another file.
            whole.splice(0..0, *b"\x1f\x8b\x08\0\0\0\0\0\0\x03");
            return (
                format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", whole.len()),
                whole,
            );
        }
        let tag = if is_other { "new" } else { "old" };
        let part = range.filter(|_| self.manner != Manner::Whole).and_then(|text| {
            let (first, last) = text.trim().split_once('-')?;
            Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
        });
        match part {
            None => (format!("HTTP/1.1 200 OK\r\nETag: \"{tag}\"\r\nContent-Length: {}\r\n\r\n", whole.len()), whole),
            Some((first, last)) if last < whole.len() && first <= last => {
                let said = if self.manner == Manner::Shifted { first + 1 } else { first };
                let total = whole.len();
                let body = whole[first..=last].to_vec();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nETag: \"{tag}\"\r\nContent-Range: bytes {said}-{last}/{total}\r\nContent-Length: {length}\r\n\r\n"
                );
                (head, body)
            }
            Some(_) => none("416 Range Not Satisfiable", ""),
        }
    }
}

fn unquote(path: &str) -> String {
    String::from_utf8(murmir::reference::unquote(path).expect("a path in proper form")).expect("text")
}
