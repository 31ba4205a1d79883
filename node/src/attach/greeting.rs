//! The greeting of an rsync daemon, as far as a client goes that looks for our line: pure. (rsync's daemon protocol, versions 27
//! to 32: greeting, MOTD, module, verdict.)

use super::offer::Offer;
use crate::manifest::path::escape;

/// What we say first; the daemon then tells its MOTD.
pub const HELLO: &[u8] = b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n";
/// Most bytes that are read of a greeting.
pub const MAX_GREETING: usize = 64 << 10;
/// Longest line before it is clear that no daemon speaks.
const MAX_LINE: usize = 4 << 10;
/// Most offers that are remembered.
const MAX_OFFERS: usize = 64;
/// Longest text of a refusal that is shown.
const MAX_TEXT: usize = 200;

/// What a daemon said until now.
#[derive(Debug, Default)]
pub struct Greeting {
    line: Vec<u8>,
    total: usize,
    /// Its version line came.
    greeted: bool,
    /// It said its last word.
    ended: bool,
    /// Our lines in it.
    pub offers: Vec<Offer>,
    /// Its `@ERROR`, escaped, or that it wants a password.
    pub refusal: Option<String>,
}

impl Greeting {
    /// Takes in what came.
    ///
    /// # Errors
    /// This is no rsync server, or one without end; one line.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.total = self.total.saturating_add(bytes.len());
        for byte in bytes {
            if self.ended {
                return Ok(());
            }
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take(line.strip_suffix(b"\r").unwrap_or(&line))?;
            } else {
                self.line.push(*byte);
            }
            if self.line.len() > MAX_LINE {
                return Err(if self.greeted { "a line without end" } else { "not an rsync server" }.to_owned());
            }
        }
        if self.total > MAX_GREETING { Err("a greeting without end".to_owned()) } else { Ok(()) }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if !self.greeted {
            let version = line.strip_prefix(b"@RSYNCD: ").and_then(|rest| rest.first());
            self.greeted = version.is_some_and(u8::is_ascii_digit);
            return if self.greeted { Ok(()) } else { Err(format!("not an rsync server{}", banner(line))) };
        }
        if let Some(text) = line.strip_prefix(b"@ERROR") {
            let text = text.strip_prefix(b":").unwrap_or(text).trim_ascii();
            self.refusal = Some(escape(text).chars().take(MAX_TEXT).collect());
            self.ended = true;
        } else if let Some(verdict) = line.strip_prefix(b"@RSYNCD: ") {
            self.refusal = verdict.starts_with(b"AUTHREQD").then(|| "it asks for a password".to_owned());
            self.ended = true;
        } else if self.offers.len() < MAX_OFFERS {
            self.offers.extend(Offer::of_line(line));
        }
        Ok(())
    }

    /// Whether its version line came: only then it listens.
    pub fn greeted(&self) -> bool {
        self.greeted
    }

    /// Whether it said its last word.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The offer of the daemon's module `name`.
    pub fn offer(&self, name: &str) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.reference.module.name.as_str() == name)
    }
}

fn banner(line: &[u8]) -> &'static str {
    if line.starts_with(b"SSH-") {
        ": SSH answers there"
    } else if line.starts_with(b"HTTP/") || line.starts_with(b"<") {
        ": a web server answers there"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracker_less::record::SecretKey;

    use super::*;

    fn line(module: &str) -> String {
        let id = SecretKey::from_seed([1; 32]).public().publisher();
        format!("murmir: murmir://{id}/{module}")
    }

    #[test]
    fn the_line_is_found_before_and_after_the_module() {
        let mut greeting = Greeting::default();
        greeting.read(b"@RSYNCD: 32.0 sha512 md5\nwelcome\r\n").unwrap();
        assert!(greeting.greeted() && !greeting.ended() && greeting.offers.is_empty());
        greeting.read(format!("{}\n{}\n", line("other"), line("pub")).as_bytes()).unwrap();
        assert_eq!(greeting.offer("pub").unwrap().reference.module.name.as_str(), "pub");
        assert!(greeting.offer("nosuch").is_none());
        greeting.read(b"@ERROR: max connections (1) reached -- try again later\nmore").unwrap();
        assert!(greeting.ended());
        assert_eq!(greeting.refusal.as_deref(), Some("max connections (1) reached -- try again later"));
        assert!(greeting.offer("pub").is_some());
    }

    #[test]
    fn who_is_no_daemon_is_told_apart() {
        for (said, expected) in [
            (&b"SSH-2.0-OpenSSH_9\r\n"[..], "not an rsync server: SSH answers there"),
            (b"HTTP/1.1 400 Bad Request\r\n", "not an rsync server: a web server answers there"),
            (b"@RSYNCD: what\n", "not an rsync server"),
            (b"\n", "not an rsync server"),
        ] {
            assert_eq!(Greeting::default().read(said).unwrap_err(), expected);
        }
        assert_eq!(Greeting::default().read(&[b'x'; 5000]).unwrap_err(), "not an rsync server");
        let mut endless = Greeting::default();
        endless.read(b"@RSYNCD: 31.0\n").unwrap();
        assert!((0..2000).any(|_| endless.read(&[b"x".repeat(99), b"\n".to_vec()].concat()).is_err()));
        let mut shouting = Greeting::default();
        shouting.read(b"@RSYNCD: 31.0\n@ERROR: \x1b[31mred\n").unwrap();
        assert_eq!(shouting.refusal.as_deref(), Some("\\#033[31mred"));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(bytes: Vec<u8>, cut in 0usize..64) {
            let said = [b"@RSYNCD: 31.0\n".to_vec(), bytes].concat();
            let (mut whole, mut pieces) = (Greeting::default(), Greeting::default());
            let once = whole.read(&said).is_err();
            let (head, tail) = said.split_at(cut.min(said.len()));
            let twice = pieces.read(head).is_err() || pieces.read(tail).is_err();
            prop_assert_eq!(once, twice);
            prop_assert_eq!(whole.refusal, pieces.refusal);
        }
    }
}
