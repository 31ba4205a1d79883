//! The HTTP client: HTTP/1.1 with open connections and HTTP/2, through the environment's proxies, never from https to http.

use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

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
    // Installed once; a second time changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = Policy::custom(|attempt| {
        let fell = attempt.url().scheme() == "http" && attempt.previous().iter().any(|url| url.scheme() == "https");
        if fell || attempt.previous().len() > MAX_REDIRECTS { attempt.stop() } else { attempt.follow() }
    });
    let builder = Client::builder().user_agent(concat!("murmir/", env!("CARGO_PKG_VERSION"))).redirect(policy);
    let builder = builder.connect_timeout(CONNECT).read_timeout(SILENCE).pool_max_idle_per_host(MAX_IDLE);
    builder.build().map_err(|error| why(&error))
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
