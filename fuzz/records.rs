//! Records and bundles: as they come, and with payloads that their keys signed all the same.

use cid::Cid;
use ed25519_dalek::{Signer, SigningKey};
use multihash::Multihash;
use serde_bytes::ByteBuf;
use tracker_less::record::{
    Charter, CheckedBundle, CheckedNomination, CheckedRoster, Coverage, Fresh, Head, ModuleId, Nomination, Roster,
    SecretKey,
};

use super::runner::Target;

/// Payload, key, signature.
type Raw = (ByteBuf, ByteBuf, ByteBuf);
/// Root key, name, charter, head, fresh.
type RawBundle = (ByteBuf, String, Raw, Raw, Option<Raw>);

const SEED: [u8; 32] = [7; 32];

fn key() -> SecretKey {
    SecretKey::from_seed(SEED)
}

fn root() -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x1e, blake3::hash(b"root").as_bytes()).unwrap())
}

fn bundle(fresh: bool) -> CheckedBundle {
    let (key, name) = (key(), "tree".parse().unwrap());
    let module = ModuleId::new(&key.public().publisher(), &name);
    let trackers = key.public().peer_id().into_iter().collect();
    let charter = Charter {
        epoch: 1,
        heads: vec![key.public()],
        fresh: vec![key.public()],
        trackers,
        fresh_for: 100,
        nomination_for: 100,
        accepted: Vec::new(),
        successor: None,
    };
    let head =
        Head { module, epoch: 1, seq: 3, previous: None, root: root(), entries: 5, bytes: 50, created: 1_000_000 };
    let bundle = CheckedBundle::sign(&key, &key, &name, &charter, head, None).unwrap();
    if !fresh {
        return bundle;
    }
    let head = bundle.head_hash();
    bundle.with_fresh(&key, &Fresh { module, epoch: 1, seq: 3, head, issued: 1_000_000, until: 2_000_000 }).unwrap()
}

fn nomination() -> CheckedNomination {
    let text = |text: &str| text.to_owned();
    CheckedNomination::sign(
        &key(),
        &Nomination {
            module: bundle(false).module(),
            epoch: 1,
            seq: 3,
            root: root(),
            coverage: Coverage::share(4, 10),
            addresses: vec!["/ip4/192.0.2.1/tcp/4741".parse().unwrap(), "/dns4/example.org/tcp/443".parse().unwrap()],
            http: vec![text("https://example.org/pub")],
            rsync: vec![text("rsync://example.org/pub")],
            region: text("eu"),
            contact: text("admin@example.org"),
            issued: 1_000_000,
            until: 1_100_000,
        },
    )
    .unwrap()
}

fn roster() -> CheckedRoster {
    let top = key().public().peer_id().into_iter().collect();
    let module = bundle(false).module();
    CheckedRoster::sign(&key(), &Roster { module, list: root(), count: 1, top, issued: 1_000_000, until: 1_100_000 })
        .unwrap()
}

#[test]
fn records_as_they_come() {
    let bundles = vec![bundle(false).bytes().to_vec(), bundle(true).bytes().to_vec()];
    Target { name: "bundles", corpus: bundles, words: &[], spare: 0, slow: 1 }.run(|input| {
        let Ok(bundle) = CheckedBundle::verify(input) else { return false };
        assert_eq!(bundle.bytes(), input);
        true
    });
    Target { name: "nominations", corpus: vec![nomination().bytes().to_vec()], words: &[], spare: 0, slow: 1 }
        .run(|input| CheckedNomination::verify(input).is_ok_and(|one| one.bytes() == input));
    Target { name: "rosters", corpus: vec![roster().bytes().to_vec()], words: &[], spare: 0, slow: 1 }
        .run(|input| CheckedRoster::verify(input).is_ok_and(|one| one.bytes() == input));
}

/// A thief's or a careless publisher's payload: whatever it says, it is signed.
fn signed(tag: &[u8], payload: &[u8]) -> Raw {
    let key = SigningKey::from_bytes(&SEED);
    let signature = key.sign(&[tag, payload].concat()).to_bytes().to_vec();
    let public = key.verifying_key().to_bytes().to_vec();
    (ByteBuf::from(payload), ByteBuf::from(public), ByteBuf::from(signature))
}

fn raw_bundle() -> RawBundle {
    serde_ipld_dagcbor::from_slice(bundle(true).bytes()).unwrap()
}

#[test]
fn signed_payloads_of_bundles() {
    type Place = fn(&mut RawBundle) -> &mut Raw;
    let kinds: [(&str, &[u8], Place); 3] = [
        ("charters", b"murmir charter v1", |bundle| &mut bundle.2),
        ("heads", b"murmir head v1", |bundle| &mut bundle.3),
        ("fresh records", b"murmir fresh v1", |bundle| bundle.4.as_mut().unwrap()),
    ];
    for (name, tag, place) in kinds {
        let corpus = vec![place(&mut raw_bundle()).0.to_vec()];
        Target { name, corpus, words: &[], spare: 0, slow: 1 }.run(|input| {
            let mut bundle = raw_bundle();
            *place(&mut bundle) = signed(tag, input);
            let bytes = serde_ipld_dagcbor::to_vec(&bundle).unwrap();
            // A head of another hash has no Fresh record.
            bundle.4 = None;
            let without = serde_ipld_dagcbor::to_vec(&bundle).unwrap();
            let with = CheckedBundle::verify(&bytes).is_ok();
            CheckedBundle::verify(&without).is_ok() & (tag != b"murmir fresh v1") | with
        });
    }
}

#[test]
fn signed_payloads_of_nominations_and_rosters() {
    let payload = |bytes: &[u8]| serde_ipld_dagcbor::from_slice::<Raw>(bytes).unwrap().0.into_vec();
    let sealed = |tag, input: &[u8]| serde_ipld_dagcbor::to_vec(&signed(tag, input)).unwrap();
    Target { name: "signed nominations", corpus: vec![payload(nomination().bytes())], words: &[], spare: 0, slow: 1 }
        .run(|input| CheckedNomination::verify(&sealed(b"murmir nomination v1", input)).is_ok());
    Target { name: "signed rosters", corpus: vec![payload(roster().bytes())], words: &[], spare: 0, slow: 1 }
        .run(|input| CheckedRoster::verify(&sealed(b"murmir roster v1", input)).is_ok());
}
