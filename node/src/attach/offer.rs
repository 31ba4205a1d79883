//! Our line, wherever it stands: in an MOTD, in DNS, on the web.

use serde::Deserialize;

use crate::reference::Reference;

/// Longest line that is looked at, bytes; older clients break on more.
pub const MAX_LINE: usize = 900;
/// What says that `--early-input` is understood.
const NOMINATE: &str = "nominate=early-input";
/// Most modules of a well-known file.
const MAX_MODULES: usize = 1000;

/// The word of an origin that a module can be had from the swarm. A hint for addresses and a key, no more.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Which module, and whom to ask.
    pub reference: Reference,
    /// Mirrors may nominate themselves there by `--early-input`.
    pub nominate: bool,
}

impl Offer {
    /// `text` with the word that mirrors may nominate themselves there.
    pub fn nominating(text: &str) -> String {
        let sign = if text.contains('?') { '&' } else { '?' };
        format!("{text}{sign}{NOMINATE}")
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LINE {
            return None;
        }
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let items: Vec<&str> = query.split('&').filter(|item| !item.is_empty()).collect();
        let nominate = items.contains(&NOMINATE);
        // What a later murmir adds does not make the line useless.
        let peers: Vec<&str> = items.into_iter().filter(|item| item.starts_with("peer=")).collect();
        let text = if peers.is_empty() { place.to_owned() } else { format!("{place}?{}", peers.join("&")) };
        Some(Self { reference: Reference::parse(&text).ok()?, nominate })
    }

    /// A line of an MOTD.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        Self::parse(str::from_utf8(line).ok()?.strip_prefix("murmir:")?.trim())
    }

    /// A TXT record of `_murmir.HOST`.
    pub fn of_txt(text: &[u8]) -> Option<Self> {
        Self::parse(str::from_utf8(text).ok()?.strip_prefix("murmir=")?.trim())
    }

    /// A Link header (RFC 8288).
    pub fn of_link(header: &str) -> Option<Self> {
        let targets = header.split('<').skip(1).filter_map(|part| part.split_once('>'));
        targets.map(|(target, _)| target).find(|target| target.starts_with("murmir://")).and_then(Self::parse)
    }
}

/// `/.well-known/murmir.json`.
#[derive(Debug, Deserialize)]
struct WellKnown {
    modules: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    reference: String,
    /// Where the module stands on that host; %-encoded.
    path: String,
}

/// The offers of a well-known file, each with its path, and as many as are sound.
///
/// # Errors
/// It is no such file.
pub fn well_known(body: &[u8]) -> Result<Vec<(String, Offer)>, String> {
    let file: WellKnown = serde_json::from_slice(body).map_err(|error| format!("no murmir.json: {error}"))?;
    let rows = file.modules.into_iter().take(MAX_MODULES);
    Ok(rows.filter_map(|row| Some((row.path, Offer::parse(&row.reference)?))).collect())
}

#[cfg(test)]
mod tests {
    use tracker_less::record::SecretKey;

    use super::*;

    fn id() -> String {
        SecretKey::from_seed([1; 32]).public().publisher().to_string()
    }

    #[test]
    fn a_line_may_have_more_parameters_than_are_known() {
        let id = id();
        let line = format!("murmir: murmir://{id}/pub?peer=/ip4/192.0.2.1/tcp/4741&nominate=early-input&later=1");
        let offer = Offer::of_line(line.as_bytes()).unwrap();
        assert!(offer.nominate);
        assert_eq!(offer.reference.to_string(), format!("murmir://{id}/pub?peer=/ip4/192.0.2.1/tcp/4741"));
        let plain = format!("murmir: murmir://{id}/pub");
        assert!(Offer::of_line(Offer::nominating(&plain).as_bytes()).unwrap().nominate);
        assert!(!Offer::of_txt(format!("murmir=murmir://{id}/pub").as_bytes()).unwrap().nominate);
        let link = format!("<https://x/>; rel=\"x\", <murmir://{id}/pub/a>; rel=\"alternate\"");
        assert_eq!(Offer::of_link(&link).unwrap().reference.to_string(), format!("murmir://{id}/pub/a"));
    }

    #[test]
    fn what_is_no_line_is_none() {
        let long = format!("murmir: murmir://{}/pub?peer=/ip4/192.0.2.1/tcp/4741{}", id(), "x".repeat(MAX_LINE));
        for line in ["", "murmir:", "murmir: x", "murmir: murmir://k51/pub", " murmir: murmir://", "Murmir: x", &long] {
            assert_eq!(Offer::of_line(line.as_bytes()), None, "{line}");
        }
        assert_eq!(Offer::of_line(b"murmir: \xff"), None);
        assert!(well_known(b"{}").is_err());
        let body = format!(
            r#"{{"modules":[{{"reference":"murmir://{}/pub","path":"/pub"}},{{"reference":"x","path":"/"}}]}}"#,
            id()
        );
        assert_eq!(well_known(body.as_bytes()).unwrap().len(), 1);
    }
}
