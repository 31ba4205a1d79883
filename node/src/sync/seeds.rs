//! The web seeds of a run: those that the user gave, and those that nominations tell of.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use libp2p::Multiaddr;
use reqwest::Client;
use tracker_less::net::believable;

use super::SyncError;
use crate::manifest::ContentId;
use crate::manifest::path::TreePath;
use crate::web::client::{client, host_of, public_client};
use crate::web::{Paths, WebSeed};
use crate::wire::pulse::Pulse;

/// Web seeds, all with one idea of where contents stand.
#[derive(Debug, Default)]
pub struct Seeds {
    given: Vec<Arc<WebSeed>>,
    paths: Paths,
    /// Told of every byte that comes from any source of the run.
    pulse: Pulse,
    /// Reaches public addresses only; made when it is needed.
    public: OnceLock<Option<Client>>,
}

impl Seeds {
    /// Those that the user gave.
    ///
    /// # Errors
    /// [`SyncError::Web`].
    pub fn open(urls: &[String], pulse: Pulse) -> Result<Self, SyncError> {
        let mut seeds = Self { pulse, ..Self::default() };
        if !urls.is_empty() {
            let client = client().map_err(|what| SyncError::Web { what })?;
            seeds.given = urls.iter().map(|url| seeds.seed(client.clone(), url)).collect();
        }
        Ok(seeds)
    }

    fn seed(&self, client: Client, url: &str) -> Arc<WebSeed> {
        Arc::new(WebSeed::new(client, url, self.paths.clone(), self.pulse.clone()))
    }

    /// What is told of every byte that comes.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Those that the user gave.
    pub fn given(&self) -> &[Arc<WebSeed>] {
        &self.given
    }

    /// One that a node at `teller` tells of. A word of strangers leads nowhere near: an address of this site counts only if its
    /// teller is there too, and a name only if it stands for public addresses.
    pub fn nominated(&self, url: &str, teller: Option<&Multiaddr>) -> Option<Arc<WebSeed>> {
        let host = host_of(url)?;
        if !believable(teller, &host) {
            return None;
        }
        let client = if believable(None, &host) {
            self.public.get_or_init(|| public_client().ok()).clone()
        } else {
            client().ok()
        };
        Some(self.seed(client?, url))
    }

    /// Tells how to find out where in the module its contents stand, should anybody ask.
    pub fn tell_paths(&self, places: impl FnOnce() -> HashMap<ContentId, TreePath> + Send + Sync + 'static) {
        // A run has one tree.
        let _ = self.paths.set(LazyLock::new(Box::new(places)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_lead_nowhere_near() {
        let seeds = Seeds::default();
        let [far, near]: [Multiaddr; 2] =
            ["/ip4/192.0.2.1/tcp/1", "/ip4/127.0.0.1/tcp/1"].map(|text| text.parse().unwrap());
        for (url, teller, expected) in [
            ("https://example.org/pub", None, true),
            ("https://example.org/pub", Some(&far), true),
            ("http://192.0.2.7/pub", Some(&far), true),
            ("http://127.0.0.1:8080/pub", Some(&far), false),
            ("http://10.0.0.1/pub", None, false),
            ("http://127.0.0.1:8080/pub", Some(&near), true),
            ("file:///etc/passwd", Some(&near), false),
        ] {
            assert_eq!(seeds.nominated(url, teller).is_some(), expected, "{url} told by {teller:?}");
        }
    }
}
