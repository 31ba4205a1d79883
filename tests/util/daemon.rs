//! Other people's servers: stock rsync daemons, and things that only sound like one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Lab, until};

/// A stock rsync daemon on loopback with one module, `tree`.
pub struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Daemon {
    /// Serves `dir` with these lines of MOTD and settings of the module.
    pub fn start(lab: &Lab, dir: &Path, motd: &str, settings: &str) -> Self {
        let (text, log) = (lab.path("motd"), lab.path("rsyncd.named"));
        std::fs::write(&text, motd).expect("motd");
        let lines = format!(
            "use chroot = no\nmotd file = {}\n[tree]\npath = {}\nearly exec = echo named >> {}\n{settings}\n",
            text.display(),
            dir.display(),
            log.display()
        );
        Self::with_config(lab, &lines)
    }

    /// With a configuration of its own.
    pub fn with_config(lab: &Lab, lines: &str) -> Self {
        let (config, log) = (lab.path("rsyncd.conf"), lab.path("rsyncd.named"));
        std::fs::write(&config, lines).expect("config");
        let port = free_port();
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1", "--log-file=/dev/null"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", config.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::from(File::create(lab.path("rsyncd.err")).expect("log")))
            .spawn()
            .expect("rsync is installed");
        until("the daemon listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        Self { child, port, log }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often somebody named a module: only then a daemon looks at its tree.
    pub fn named(&self) -> usize {
        std::fs::read_to_string(&self.log).map_or(0, |text| text.lines().count())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on, for now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Says `first` to everybody, then `second` once a line other than a greeting came; gives its port.
pub fn speaker(first: &[u8], second: &[u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let (first, second) = (first.to_vec(), second.to_vec());
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let (first, second) = (first.clone(), second.clone());
            std::thread::spawn(move || {
                let _ = client.write_all(&first);
                let lines = BufReader::new(client.try_clone().expect("a second handle")).lines();
                let mut lines = lines.map_while(Result::ok).filter(|line| !line.starts_with('@'));
                if lines.next().is_some() {
                    let _ = client.write_all(&second);
                }
            });
        }
    });
    port
}

/// A proxy that lets everybody through who says CONNECT with these words in a header; gives its port.
pub fn connect_proxy(header: &str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (port, header) = (listener.local_addr().expect("its address").port(), header.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let header = header.clone();
            std::thread::spawn(move || tunnel(client, &header));
        }
    });
    port
}

fn tunnel(mut client: TcpStream, header: &str) -> Option<()> {
    let mut head = Vec::new();
    // Byte by byte: what follows is not ours.
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if !head.contains(header) {
        return client.write_all(b"HTTP/1.0 407 Who are you\r\n\r\n").ok();
    }
    let server = TcpStream::connect(head.strip_prefix("CONNECT ")?.split(' ').next()?).ok()?;
    client.write_all(b"HTTP/1.0 200 Go on\r\n\r\n").ok()?;
    let (mut up, mut down) = ((client.try_clone().ok()?, server.try_clone().ok()?), (server, client));
    std::thread::spawn(move || std::io::copy(&mut up.0, &mut up.1).map(|_| up.1.shutdown(Shutdown::Write)));
    std::io::copy(&mut down.0, &mut down.1).map(|_| down.1.shutdown(Shutdown::Both)).ok()?.ok()
}
