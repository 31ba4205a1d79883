//! Networks that addresses belong to, for bounds and diversity. Private ones do not count: a LAN is one network with many honest
//! mirrors.

use std::net::IpAddr;

use multiaddr::{Multiaddr, Protocol};

/// A /24 of IPv4 or a /48 of IPv6: a family byte and up to six more.
pub type Narrow = [u8; 7];
/// A /16 of IPv4 or a /32 of IPv6: what one operator easily has many narrow networks of. All zero for no public address.
pub type Wide = [u8; 5];

/// The public networks of these addresses, and the wide one of the first.
pub fn networks(addresses: &[Multiaddr]) -> (Vec<Narrow>, Wide) {
    let mut narrow: Vec<Narrow> = addresses.iter().filter_map(public).collect();
    narrow.sort_unstable();
    narrow.dedup();
    let wide = addresses.iter().find_map(public).map_or([0; 5], wide);
    (narrow, wide)
}

fn public(address: &Multiaddr) -> Option<Narrow> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) if is_public(ip.into()) => {
            let [a, b, c, _] = ip.octets();
            Some([4, a, b, c, 0, 0, 0])
        }
        Some(Protocol::Ip6(ip)) if is_public(ip.into()) => {
            let [a, b, c, d, e, f, ..] = ip.octets();
            Some([6, a, b, c, d, e, f])
        }
        _ => None,
    }
}

fn wide(narrow: Narrow) -> Wide {
    let [family, a, b, c, d, ..] = narrow;
    if family == 4 { [4, a, b, 0, 0] } else { [6, a, b, c, d] }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()),
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}
