//! Asking a web server: the well-known file of the host, and the Link header of the address itself.

use std::time::Duration;

use futures::StreamExt;
use libp2p::Multiaddr;
use reqwest::header::LINK;
use reqwest::{Client, Response};

use super::offer::{Offer, well_known};
use super::origin::Web;
use crate::web::client::why;

/// Largest well-known file, bytes.
const MAX_BODY: usize = 64 << 10;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// RFC 8615.
const WELL_KNOWN: &str = "/.well-known/murmir.json";

/// Where an offer was heard.
pub struct Heard {
    /// Modules of the host, each with the path where it stands.
    pub modules: Vec<(String, Offer)>,
    /// The other end.
    pub from: Option<Multiaddr>,
}

/// The well-known file of `base`.
///
/// # Errors
/// One line: no such file, no such server.
pub async fn modules(client: &Client, base: &str) -> Result<Heard, String> {
    let url = format!("{base}{WELL_KNOWN}");
    let asked = async {
        let answer = client.get(&url).send().await.map_err(|error| why(&error))?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let from = remote(&answer);
        Ok(Heard { modules: well_known(&body(answer).await?)?, from })
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    answer.map_err(|error| format!("{url}: {error}"))
}

/// The Link header of an address.
///
/// # Errors
/// One line: no such header, no such server.
pub async fn link(client: &Client, web: &Web) -> Result<(Offer, Option<Multiaddr>), String> {
    let url = format!("{}{}", web.base, web.path);
    let asked = async {
        let answer = client.head(&url).send().await.map_err(|error| why(&error))?;
        let headers = answer.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let offer = headers.into_iter().find_map(Offer::of_link).ok_or_else(|| "no Link to a module".to_owned())?;
        Ok((offer, remote(&answer)))
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    answer.map_err(|error: String| format!("{url}: {error}"))
}

fn remote(answer: &Response) -> Option<Multiaddr> {
    answer.remote_addr().map(|address| Multiaddr::from(address.ip()))
}

async fn body(answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut parts = answer.bytes_stream();
    while let Some(part) = parts.next().await {
        body.extend_from_slice(&part.map_err(|error| why(&error))?);
        if body.len() > MAX_BODY {
            return Err(format!("over {MAX_BODY} bytes"));
        }
    }
    Ok(body)
}
