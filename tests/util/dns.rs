//! A name server on loopback that knows TXT records, and nothing else.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Most bytes of one string in a TXT record (RFC 1035).
const STRING: usize = 255;

/// Answers for these names (with a dot at the end); gives its address.
pub fn name_server(records: &[(&str, &[&str])]) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = socket.local_addr().expect("its address");
    let own = |(name, texts): &(&str, &[&str])| {
        ((*name).to_ascii_lowercase(), texts.iter().map(|text| (*text).to_owned()).collect())
    };
    let records: HashMap<String, Vec<String>> = records.iter().map(own).collect();
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            if let Some(answer) = answer(&packet[..length], &records) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    address
}

fn answer(query: &[u8], records: &HashMap<String, Vec<String>>) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let texts = records.get(&name).map(Vec::as_slice);
    // The name's own code where nothing is known of it: there is no such name.
    let flags: u16 = if texts.is_some() { 0x8580 } else { 0x8583 };
    let texts = texts.unwrap_or_default();
    let mut out = query.get(..2)?.to_vec();
    out.extend(flags.to_be_bytes());
    for count in [1, texts.len() as u16, 0, 0] {
        out.extend(count.to_be_bytes());
    }
    out.extend(query.get(12..end)?);
    for text in texts {
        let strings: Vec<u8> =
            text.as_bytes().chunks(STRING).flat_map(|part| [&[part.len() as u8], part].concat()).collect();
        // The name asked for, TXT, IN, a minute.
        out.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        out.extend((strings.len() as u16).to_be_bytes());
        out.extend(strings);
    }
    Some(out)
}

/// The name in a query, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at + 4));
        }
        name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        name.push('.');
        at += length;
    }
}
