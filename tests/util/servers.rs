//! Real web servers, where they are installed.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Lab, free_port, until};

/// A web server of a directory on loopback.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// nginx with listings, and these lines in its `server` block; none where it is not installed.
    pub fn nginx(lab: &Lab, dir: &Path, lines: &str) -> Option<Self> {
        let (port, home) = (free_port(), lab.path(&format!("nginx-{}", free_port())));
        std::fs::create_dir_all(&home).expect("home");
        let place = home.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .collect();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off;\n{temporary}server {{\nlisten 127.0.0.1:{port};\nroot {};\nautoindex on;\n{lines}\n}}\n}}\n",
            dir.display()
        );
        std::fs::write(home.join("conf"), config).expect("configuration");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&home).arg("-e").arg(home.join("error.log")).arg("-c").arg(home.join("conf"));
        Self::start(command, port, &home)
    }

    /// python's http.server, which knows no ranges; none where it is not installed.
    pub fn python(lab: &Lab, dir: &Path) -> Option<Self> {
        let (port, home) = (free_port(), lab.path("python.log"));
        std::fs::create_dir_all(&home).expect("home");
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(dir).arg(port.to_string());
        Self::start(command, port, &home)
    }

    fn start(mut command: Command, port: u16, home: &Path) -> Option<Self> {
        let log = File::create(home.join("stderr")).expect("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: {} is not installed", command.get_program().display());
                return None;
            }
            Err(error) => panic!("{}: {error}", command.get_program().display()),
        };
        until("the web server listens", || {
            let ended = child.try_wait().expect("waiting");
            let said = || std::fs::read_to_string(home.join("stderr")).unwrap_or_default();
            assert!(ended.is_none(), "{ended:?}: {}", said());
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Some(Self { child, port })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
