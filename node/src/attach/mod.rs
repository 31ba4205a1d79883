//! Attach: from the name of an rsync daemon or a web address to a reference, by what the other side says of itself. A hint for
//! addresses and a key; whether the key is trusted is decided elsewhere, and no byte is believed for it.

pub mod daemon;
pub mod dns;
pub mod doorkeeper;
pub mod greeting;
pub mod offer;
pub mod origin;
pub mod web;

use std::net::SocketAddr;

use libp2p::Multiaddr;
use tracker_less::net::believable;

use crate::manifest::path::TreePath;
use crate::reference::{Reference, unquote};
use crate::web::client::client;
use daemon::hear;
use offer::Offer;
use origin::{Daemon, Origin, Web};

/// What an origin offers.
#[derive(Debug, Default)]
pub struct Found {
    /// The module, the path that was named in it, and whom to ask.
    pub reference: Option<Reference>,
    /// Mirrors may nominate themselves there by `--early-input`.
    pub nominate: bool,
    /// What was tried, and what each said.
    pub tried: Vec<String>,
}

/// Asks an origin in every way there is, until one leads somewhere.
pub async fn ask(origin: &Origin) -> Found {
    ask_by(origin, None).await
}

/// The same, by another name server than the system's.
pub async fn ask_by(origin: &Origin, names: Option<SocketAddr>) -> Found {
    let mut found = Found::default();
    match origin {
        Origin::Daemon(daemon) => ask_daemon(daemon, names, &mut found).await,
        Origin::Web(web) => ask_web(web, names, &mut found).await,
    }
    found
}

impl Found {
    fn take(&mut self, offer: Offer, from: Option<&Multiaddr>, path: Option<(TreePath, bool)>) {
        let Offer { mut reference, nominate } = offer;
        reference.peers.retain(|peer| believable(from, peer));
        if let Some((path, slash)) = path {
            let Some(full) = below(&reference.path, &path) else {
                self.tried.push("the path there is too long".to_owned());
                return;
            };
            (reference.path, reference.slash) = (full, slash);
        }
        (self.reference, self.nominate) = (Some(reference), nominate);
    }
}

async fn ask_daemon(daemon: &Daemon, names: Option<SocketAddr>, found: &mut Found) {
    if daemon.module.is_empty() {
        return;
    }
    let path = Some((daemon.path.clone(), daemon.slash));
    let proxy = std::env::var("RSYNC_PROXY").ok();
    match hear(daemon, proxy.as_deref()).await {
        Ok(heard) => {
            if let Some(offer) = heard.greeting.offer(&daemon.module) {
                return found.take(offer.clone(), heard.from.as_ref(), path);
            }
            let said = heard.greeting.refusal.unwrap_or_else(|| "no line for this module".to_owned());
            found.tried.push(format!("{}:{}: {said}", daemon.host, daemon.port));
        }
        Err(error) => found.tried.push(error),
    }
    let is_it = |offer: &Offer| offer.reference.module.name.as_str() == daemon.module;
    let host = if daemon.host.contains(':') { format!("[{}]", daemon.host) } else { daemon.host.clone() };
    let base = format!("https://{host}");
    let (web, dns) = tokio::join!(well_known(&base), dns::offers(&daemon.host, names));
    let (modules, from) = web.map_or_else(|error| (Err(error), None), |heard| (Ok(heard.modules), heard.from));
    let modules = modules.map(|modules| modules.into_iter().map(|(_, offer)| offer).collect());
    let named = format!("_murmir.{host}");
    for (place, offers, from) in [(&base, modules, from.as_ref()), (&named, dns, None)] {
        match offers.map(|offers| offers.into_iter().find(is_it)) {
            Ok(Some(offer)) => return found.take(offer, from, path),
            Ok(None) => found.tried.push(format!("{place}: not for this module")),
            Err(error) => found.tried.push(error),
        }
    }
}

async fn well_known(base: &str) -> Result<web::Heard, String> {
    web::modules(&client()?, base).await
}

async fn ask_web(web: &Web, names: Option<SocketAddr>, found: &mut Found) {
    let client = match client() {
        Ok(ready) => ready,
        Err(error) => return found.tried.push(error),
    };
    let (modules, link, dns) =
        tokio::join!(web::modules(&client, &web.base), web::link(&client, web), dns::offers(&web.host, names));
    match modules {
        Ok(heard) => match longest(heard.modules, &web.path) {
            Some((offer, rest)) => return found.take(offer, heard.from.as_ref(), Some(rest)),
            None => found.tried.push(format!("{}: no module stands at {}", web.base, web.path)),
        },
        Err(error) => found.tried.push(error),
    }
    match link {
        Ok((offer, from)) => return found.take(offer, from.as_ref(), None),
        Err(error) => found.tried.push(error),
    }
    match dns {
        Ok(offers) => {
            let named = offers.into_iter().map(|offer| (format!("/{}", offer.reference.module.name), offer));
            if let Some((offer, rest)) = longest(named.collect(), &web.path) {
                return found.take(offer, None, Some(rest));
            }
            found.tried.push(format!("_murmir.{}: no module for {}", web.host, web.path));
        }
        Err(error) => found.tried.push(error),
    }
}

/// What is kept of an offer: a daemon's module whole, a web address as it is.
pub fn to_pin(offered: &Reference, origin: &Origin) -> Reference {
    match origin {
        Origin::Daemon(_) => Reference { peers: offered.peers.clone(), ..Reference::of(&offered.module) },
        Origin::Web(_) => offered.clone(),
    }
}

/// The reference for an origin by what was kept of its last offer.
pub fn from_pin(kept: &Reference, origin: &Origin) -> Option<Reference> {
    match origin {
        Origin::Daemon(daemon) => {
            let path = below(&kept.path, &daemon.path)?;
            Some(Reference { path, slash: daemon.slash, ..kept.clone() })
        }
        Origin::Web(_) => Some(kept.clone()),
    }
}

fn below(base: &TreePath, path: &TreePath) -> Option<TreePath> {
    path.components().try_fold(base.clone(), |path, name| path.join(&name).ok())
}

/// The module whose place is the longest beginning of a path, and what is left of the path.
fn longest(modules: Vec<(String, Offer)>, path: &str) -> Option<(Offer, (TreePath, bool))> {
    let rest = |place: &str| {
        let rest = path.strip_prefix(place.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    let fits = modules.into_iter().filter_map(|(place, offer)| Some((rest(&place)?, offer)));
    let (rest, offer) = fits.min_by_key(|(rest, _)| rest.len())?;
    let slash = rest.is_empty() || rest.ends_with('/');
    let path = TreePath::new(&unquote(rest.trim_matches('/'))?).ok()?;
    Some((offer, (path, slash)))
}

#[cfg(test)]
mod tests {
    use tracker_less::record::SecretKey;

    use super::*;

    #[test]
    fn the_longest_place_wins() {
        let id = SecretKey::from_seed([1; 32]).public().publisher();
        let row = |place: &str, name: &str| {
            (place.to_owned(), Offer::of_txt(format!("murmir=murmir://{id}/{name}").as_bytes()).unwrap())
        };
        let modules = vec![row("/", "all"), row("/pub/", "pub"), row("/pub/deb", "deb")];
        for (path, name, rest, slash) in [
            ("/pub/deb/a%20b", "deb", "a b", false),
            ("/pub/debian/", "pub", "debian", true),
            ("/pub", "pub", "", true),
            ("/x/y/", "all", "x/y", true),
        ] {
            let (offer, (found, slashed)) = longest(modules.clone(), path).unwrap();
            assert_eq!(offer.reference.module.name.as_str(), name, "{path}");
            assert_eq!((found.to_string().as_str(), slashed), (rest, slash), "{path}");
        }
        assert!(longest(modules[1..].to_vec(), "/x").is_none());
        assert!(longest(modules, "/pub/../x").is_none());
    }
}
