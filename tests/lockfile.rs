//! Floors under dependencies (docs/SAFETY.md): versions below them have faults that a remote peer can reach, and the usual
//! advisory tools do not list all of them.

use std::fs;
use std::path::Path;

/// Crate, lowest version without the fault.
const FLOORS: [(&str, [u64; 3]); 5] = [
    ("libp2p", [0, 57, 1]),
    ("libp2p-gossipsub", [0, 50, 1]),
    ("yamux", [0, 14, 0]),
    ("quinn-proto", [0, 11, 15]),
    ("hickory-proto", [0, 26, 1]),
];

fn version(text: &str) -> [u64; 3] {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse().expect("a number"));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

fn locked() -> Vec<(String, [u64; 3])> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock: toml::Table = fs::read_to_string(path).expect("Cargo.lock").parse().expect("TOML");
    let packages = lock["package"].as_array().expect("packages");
    let field = |package: &toml::Value, key: &str| package[key].as_str().expect("text").to_owned();
    packages.iter().map(|package| (field(package, "name"), version(&field(package, "version")))).collect()
}

#[test]
fn no_dependency_is_below_its_floor() {
    let locked = locked();
    assert!(locked.iter().any(|(name, _)| name == "libp2p-gossipsub"), "the list is read rightly");
    for (name, found) in &locked {
        for (wanted, floor) in FLOORS.iter().filter(|(wanted, _)| wanted == name) {
            assert!(found >= floor, "{wanted} {found:?} is below {floor:?}");
        }
    }
}

#[test]
fn sled_is_pinned() {
    let found: Vec<_> = locked().into_iter().filter(|(name, _)| name == "sled").collect();
    assert_eq!(found, [("sled".to_owned(), [0, 34, 7])]);
}
