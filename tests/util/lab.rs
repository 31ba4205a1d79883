//! Machines: each has a home and a state of its own, as two people's computers do.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Node, Run, Running};

/// Where runs listen: no other interface, any port.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

/// A command line.
pub type Args<'a> = &'a [&'a dyn AsRef<OsStr>];

/// The place of one test; gone afterwards.
pub struct Lab {
    dir: TempDir,
}

impl Lab {
    /// An empty lab.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("murmir-test-").tempdir().expect("temporary directory") }
    }

    /// A path in it; nothing is made.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A machine that has not run murmir yet.
    pub fn machine(&self, name: &str) -> Machine {
        let home = self.path(name);
        fs::create_dir_all(&home).expect("home");
        Machine { home, prefix: Vec::new(), listen: LISTEN }
    }
}

/// Somebody's computer.
#[derive(Clone)]
pub struct Machine {
    home: PathBuf,
    prefix: Vec<String>,
    listen: &'static str,
}

/// What `publish --json` said.
#[derive(Debug, Clone)]
pub struct Published {
    /// Without peers.
    pub reference: String,
    /// With those of the running node.
    pub link: String,
    /// The number of the generation.
    pub seq: u64,
    /// CID of the root node.
    pub root: String,
    /// Regular files.
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
}

impl Machine {
    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// The same machine, as a user who cannot read everything (root can, unless that power is taken away).
    pub fn without_privilege(&self) -> Self {
        let prefix = if rustix::process::geteuid().is_root() {
            ["setpriv", "--bounding-set=-dac_override,-dac_read_search"].map(str::to_owned).to_vec()
        } else {
            Vec::new()
        };
        Self { prefix, ..self.clone() }
    }

    /// The same machine, where runs listen elsewhere.
    pub fn listening(&self, listen: &'static str) -> Self {
        Self { listen, ..self.clone() }
    }

    /// The command line of a run on this machine, in an environment of its own.
    pub fn command(&self, args: Args) -> Command {
        let binary = env!("CARGO_BIN_EXE_murmir");
        let mut words = self.prefix.iter().map(String::as_str).chain([binary]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MURMIR_")) {
            command.env_remove(name);
        }
        if let Ok(filter) = std::env::var("MURMIR_TEST_LOG") {
            command.env("MURMIR_LOG", filter);
        }
        command.env("HOME", &self.home).env("XDG_CONFIG_HOME", self.home.join("config")).env("TZ", "UTC");
        command.current_dir(&self.home).env("XDG_STATE_HOME", self.home.join("xdg"));
        command.arg("--state-dir").arg(self.state()).args(["--listen", self.listen]).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: Args) -> Run {
        self.start(args).finish()
    }

    /// Starts it.
    pub fn start(&self, args: Args) -> Running {
        Running::start(self.command(args))
    }

    /// Runs it; it must succeed.
    #[track_caller]
    pub fn ok(&self, args: Args) -> Run {
        self.run(args).expect(0)
    }

    /// Runs it with `--json`; it must succeed. Gives the last row.
    #[track_caller]
    pub fn json(&self, args: Args) -> Value {
        let words: Vec<&dyn AsRef<OsStr>> =
            [&"--json" as &dyn AsRef<OsStr>].into_iter().chain(args.iter().copied()).collect();
        self.ok(&words).last()
    }

    /// Starts a node.
    pub fn serve(&self, args: Args) -> Node {
        let words: Vec<&dyn AsRef<OsStr>> =
            [&"serve" as &dyn AsRef<OsStr>].into_iter().chain(args.iter().copied()).collect();
        self.node(&words)
    }

    /// Starts a command that serves until it is killed.
    pub fn node(&self, args: Args) -> Node {
        Node::start(self.command(args), self.home.join("node.log"))
    }

    /// Publishes `dir` as module `tree`.
    #[track_caller]
    pub fn publish(&self, dir: &Path) -> Published {
        self.publish_with(dir, &[])
    }

    /// The same with more flags.
    #[track_caller]
    pub fn publish_with(&self, dir: &Path, more: Args) -> Published {
        let first: [&dyn AsRef<OsStr>; 4] = [&"publish", &dir, &"--module", &"tree"];
        let words: Vec<&dyn AsRef<OsStr>> = first.into_iter().chain(more.iter().copied()).collect();
        Published::from(&self.json(&words))
    }

    /// The row of the only module in `status`.
    #[track_caller]
    pub fn module_status(&self) -> Value {
        self.json(&[&"status"])["modules"][0].clone()
    }

    /// Copies the publisher keys, and nothing else, from another machine.
    pub fn copy_keys_from(&self, other: &Self) {
        let (from, to) = (other.state().join("keys"), self.state().join("keys"));
        fs::create_dir_all(&to).expect("keys directory");
        for key in fs::read_dir(from).expect("keys").map(|entry| entry.expect("key")) {
            fs::copy(key.path(), to.join(key.file_name())).expect("copying a key");
        }
    }

    /// Copies the whole state of another machine, as a restored backup does.
    pub fn copy_state_from(&self, other: &Self) {
        let status = Command::new("cp").arg("-a").arg(other.state()).arg(self.state()).status();
        assert!(status.expect("cp").success());
    }
}

/// `murmir --state-dir STATE`, for a shell.
pub fn receiver(machine: &Machine) -> String {
    format!("{} --state-dir {}", env!("CARGO_BIN_EXE_murmir"), machine.state().display())
}

impl From<&Value> for Published {
    fn from(row: &Value) -> Self {
        let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} in {row}")).to_owned();
        let number = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key} in {row}"));
        Self {
            reference: text("reference"),
            link: text("link"),
            seq: number("seq"),
            root: text("root"),
            files: number("files"),
            bytes: number("bytes"),
        }
    }
}
