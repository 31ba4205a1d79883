//! Plain web servers of a directory, good and bad.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (sent, requests, dir) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)), dir.to_owned());
        let web = Self { port, sent: Arc::clone(&sent), requests: Arc::clone(&requests) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let serving = Serving { dir: dir.clone(), manner, sent: sent.clone(), requests: requests.clone() };
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
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicUsize>,
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
            let (head, mut body) = self.answer(&path, range.as_deref(), number);
            if method == "HEAD" {
                body.clear();
            }
            client.write_all(head.as_bytes()).ok()?;
            let short = self.manner == Manner::Short && body.len() > 100;
            let body = if short { &body[..body.len() / 2] } else { &body[..] };
            client.write_all(body).ok()?;
            self.sent.fetch_add(body.len() as u64, Ordering::SeqCst);
            if short {
                return None;
            }
        }
    }

    fn answer(&self, path: &str, range: Option<&str>, number: usize) -> (String, Vec<u8>) {
        let none =
            |status: &str, more: &str| (format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n"), Vec::new());
        if self.manner == Manner::Busy && number < 2 {
            return none("503 Busy", "Retry-After: 1\r\n");
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
        let part = range.filter(|_| self.manner != Manner::Whole).and_then(|text| {
            let (first, last) = text.trim().split_once('-')?;
            Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
        });
        match part {
            None => (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len()), whole),
            Some((first, last)) if last < whole.len() && first <= last => {
                let said = if self.manner == Manner::Shifted { first + 1 } else { first };
                let total = whole.len();
                let body = whole[first..=last].to_vec();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {said}-{last}/{total}\r\nContent-Length: {length}\r\n\r\n"
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
