//! The HTTP client: HTTP/1.1 with open connections and HTTP/2, through the environment's proxies, never from https to http.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};
use tracker_less::net::believable;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence while an answer is owed.
const SILENCE: Duration = Duration::from_secs(10);
/// Most redirections that are followed.
const MAX_REDIRECTS: usize = 5;
/// Connections kept open to one host.
const MAX_IDLE: usize = 8;

/// A client.
///
/// # Errors
/// One line: the system's certificates cannot be read.
pub fn client() -> Result<Client, String> {
    builder(|_| true).build().map_err(|error| why(&error))
}

/// A client that reaches public addresses only, wherever a name or a redirection leads: for addresses that strangers tell.
///
/// # Errors
/// As [`client`].
pub fn public_client() -> Result<Client, String> {
    let goes = |url: &Url| host(url).is_some_and(|host| believable(None, &host));
    builder(goes).dns_resolver(Arc::new(PublicOnly)).build().map_err(|error| why(&error))
}

fn builder(may_go: impl Fn(&Url) -> bool + Send + Sync + 'static) -> ClientBuilder {
    // Installed once; a second time changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = Policy::custom(move |attempt| {
        let fell = attempt.url().scheme() == "http" && attempt.previous().iter().any(|url| url.scheme() == "https");
        let stops = fell || attempt.previous().len() > MAX_REDIRECTS || !may_go(attempt.url());
        if stops { attempt.stop() } else { attempt.follow() }
    });
    let builder = Client::builder().user_agent(concat!("murmir/", env!("CARGO_PKG_VERSION"))).redirect(policy);
    builder.connect_timeout(CONNECT).read_timeout(SILENCE).pool_max_idle_per_host(MAX_IDLE)
}

/// The host of an http or https address.
pub fn host_of(url: &str) -> Option<Multiaddr> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    host(&url)
}

fn host(url: &Url) -> Option<Multiaddr> {
    let text = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    Some(match text.parse::<IpAddr>() {
        Ok(ip) => Multiaddr::from(ip),
        Err(_) => Multiaddr::empty().with(Protocol::Dns(text.to_owned().into())),
    })
}

/// Names lead to public addresses or nowhere.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> =
                found.filter(|address| believable(None, &Multiaddr::from(address.ip()))).collect();
            if public.is_empty() {
                return Err("no public address".into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

/// The innermost cause of a failure, escaped.
pub fn why(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = next.to_string();
        cause = next.source();
    }
    crate::manifest::path::escape(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        for (url, expected) in [
            ("https://example.org/pub", Some("/dns/example.org")),
            ("http://192.0.2.7:8080/", Some("/ip4/192.0.2.7")),
            ("http://[::1]/x", Some("/ip6/::1")),
            ("http://127.1/", Some("/ip4/127.0.0.1")),
            ("http://0x7f000001/", Some("/ip4/127.0.0.1")),
            ("ftp://example.org/", None),
            ("file:///etc/passwd", None),
            ("nothing", None),
        ] {
            assert_eq!(host_of(url).map(|host| host.to_string()).as_deref(), expected, "{url}");
        }
    }
}
