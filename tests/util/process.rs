//! Child processes that do not outlive their test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{DEADLINE, until};

/// What a finished command left.
#[derive(Debug)]
pub struct Run {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// As bytes, for names are bytes.
    pub stdout: Vec<u8>,
    /// For people.
    pub stderr: String,
}

impl Run {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stdout by lines.
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// The rows of a `--json` run.
    pub fn rows(&self) -> Vec<Value> {
        let row = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.lines().iter().map(row).collect()
    }

    /// The last row of a `--json` run.
    pub fn last(&self) -> Value {
        self.rows().pop().unwrap_or_else(|| panic!("no row in {self:?}"))
    }

    /// The run, if it ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\nstdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}

/// A command under way; killed when dropped.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("reading a child's output");
        bytes
    })
}

impl Running {
    /// Starts `command`.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting murmir");
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waiting").is_none()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) -> Run {
        self.child.kill().expect("killing");
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// At the deadline, with what it has said.
    pub fn finish(mut self) -> Run {
        let start = std::time::Instant::now();
        while self.is_running() {
            if start.elapsed() > DEADLINE {
                self.child.kill().expect("killing");
                let run = self.collected();
                panic!("murmir did not end\nstdout: {}\nstderr: {}", run.text(), run.stderr);
            }
            std::thread::sleep(super::LOOK);
        }
        self.collected()
    }

    fn collected(mut self) -> Run {
        let code = self.child.wait().expect("waiting").code().unwrap_or(-1);
        let (empty_out, empty_err) = (std::thread::spawn(Vec::new), std::thread::spawn(Vec::new));
        let stdout = std::mem::replace(&mut self.stdout, empty_out).join().expect("stdout");
        let stderr = std::mem::replace(&mut self.stderr, empty_err).join().expect("stderr");
        Run { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `murmir serve` (or a command that serves); killed when dropped.
pub struct Node {
    child: Child,
    log: PathBuf,
    addresses: Vec<String>,
}

impl Node {
    /// Starts `command` and waits until it says where it listens. Its stderr goes to `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("starting murmir serve");
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        // The thread ends with the pipe; a node that is never read from would block.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut node = Self { child, log, addresses: Vec::new() };
        let line = lines.recv_timeout(DEADLINE).expect("the node says where it listens");
        let address = line.strip_prefix("listening ").unwrap_or_else(|| panic!("unexpected line {line}"));
        node.addresses.push(address.to_owned());
        node
    }

    /// `<multiaddr>/p2p/<id>`.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// Its peer id.
    pub fn peer_id(&self) -> &str {
        self.address().rsplit('/').next().expect("an address ends with the id")
    }

    /// The TCP port it listens on.
    pub fn port(&self) -> u16 {
        self.address().split('/').nth(4).and_then(|port| port.parse().ok()).expect("a TCP address")
    }

    /// `reference` with this node as the peer to ask.
    pub fn link(&self, reference: &str) -> String {
        let sign = if reference.contains('?') { '&' } else { '?' };
        format!("{reference}{sign}peer={}", self.address())
    }

    /// Ends it with SIGKILL, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("killing");
        self.child.wait().expect("waiting");
    }

    /// Asks it to end with SIGTERM, and gives its exit status.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("signalling");
        until("the node ends after SIGTERM", || self.child.try_wait().expect("waiting"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- {}", self.log.display());
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
