//! Asking DNS: TXT records of `_murmir.HOST`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use super::offer::Offer;

/// Longest wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most records that are looked at.
const MAX_RECORDS: usize = 64;

/// The offers of a host, as the system's name servers tell, or the one at `server`.
///
/// # Errors
/// One line: no records, no resolver, no name.
pub async fn offers(host: &str, server: Option<SocketAddr>) -> Result<Vec<Offer>, String> {
    if host.parse::<IpAddr>().is_ok() || host == "localhost" {
        return Err(format!("{host} is no name in DNS"));
    }
    let name = format!("_murmir.{}.", host.trim_end_matches('.'));
    let asked = async {
        let resolver = resolver(server)?;
        let found = resolver.txt_lookup(name.as_str()).await.map_err(|error| error.to_string())?;
        let texts = found.answers().iter().take(MAX_RECORDS).filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        });
        Ok(texts.filter_map(|text| Offer::of_txt(&text)).collect::<Vec<_>>())
    };
    match tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".to_owned())) {
        Ok(offers) if offers.is_empty() => Err(format!("{name} has no murmir= record")),
        Ok(offers) => Ok(offers),
        Err(error) => Err(format!("{name}: {}", crate::manifest::path::escape(error.as_bytes()))),
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, String> {
    let builder = match server {
        None => TokioResolver::builder_tokio().map_err(|error| error.to_string())?,
        Some(server) => TokioResolver::builder_with_config(servers(server), TokioRuntimeProvider::default()),
    };
    builder.build().map_err(|error| error.to_string())
}

/// One name server, asked over UDP, and over TCP where an answer is too long for that.
pub fn servers(server: SocketAddr) -> ResolverConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port).to_vec();
    ResolverConfig::from_name_servers(vec![NameServerConfig::new(server.ip(), true, connections)])
}
