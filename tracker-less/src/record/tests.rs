//! Golden vectors, round trips and refusals of the signed records.

use proptest::prelude::*;

use super::bundle::MAX_BUNDLE;
use super::fixtures::{bundle, charter, fresh, head, module, root, root_key};
use super::nomination::MAX_LIFETIME;
use super::*;

/// The format's document names the BLAKE3 hash of every golden record: a change of format shows here.
const FORMAT: &str = include_str!("../../../docs/FORMAT.md");

fn nomination() -> Nomination {
    Nomination {
        module: module(1).1,
        epoch: 0,
        seq: 3,
        root: root(3),
        coverage: Coverage::share(1, 2),
        addresses: vec!["/ip4/192.0.2.1/tcp/4741".parse().unwrap()],
        http: vec!["https://mirror.example.org/pub/".to_owned()],
        rsync: Vec::new(),
        region: "eu".to_owned(),
        contact: "ops@example.org".to_owned(),
        issued: 1_000_000,
        until: 1_086_400,
    }
}

fn roster() -> Roster {
    let top = vec![root_key().public().peer_id().unwrap()];
    Roster { module: module(1).1, list: root(9), count: 1, top, issued: 1_000_000, until: 1_003_600 }
}

#[test]
fn the_format_is_as_documented() {
    let signed = CheckedNomination::sign(&root_key(), &nomination()).unwrap();
    let rostered = CheckedRoster::sign(&root_key(), &roster()).unwrap();
    let golden = [
        ("publisher id", root_key().public().publisher().to_string()),
        ("module id", module(1).1.to_string()),
        ("head hash", bundle(1, 1).head_hash().to_string()),
        ("bundle", blake3::hash(bundle(1, 2).bytes()).to_string()),
        ("bundle with fresh", blake3::hash(fresh(&bundle(1, 2), 1_000_000, 2_000_000).bytes()).to_string()),
        ("nomination", blake3::hash(signed.bytes()).to_string()),
        ("roster", blake3::hash(rostered.bytes()).to_string()),
    ];
    let missing: Vec<String> =
        golden.iter().map(|(name, value)| format!("{name}: {value}")).filter(|line| !FORMAT.contains(line)).collect();
    assert!(missing.is_empty(), "docs/FORMAT.md lacks\n{}", missing.join("\n"));
}

#[test]
fn records_read_back_as_they_were_signed() {
    let signed = CheckedNomination::sign(&root_key(), &nomination()).unwrap();
    let read = CheckedNomination::verify(signed.bytes()).unwrap();
    assert_eq!(read.nomination(), &nomination());
    assert_eq!(Some(read.peer()), root_key().public().peer_id());
    let made = fresh(&bundle(1, 2), 10, 20);
    let read = CheckedBundle::verify(made.bytes()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.generation(), Generation { epoch: 0, seq: 2 });
    assert_eq!(read.head().previous, Some(bundle(1, 1).head_hash()));
    assert_eq!(
        CheckedRoster::verify(CheckedRoster::sign(&root_key(), &roster()).unwrap().bytes()).unwrap().roster(),
        &roster()
    );
}

#[test]
fn ids_have_one_spelling() {
    let id = root_key().public().publisher();
    let text = id.to_string();
    assert!(text.starts_with("k51"));
    assert_eq!(text.parse::<PublisherId>().unwrap(), id);
    for wrong in
        [text.to_uppercase(), text[..text.len() - 1].to_owned(), format!("{text}a"), "k51".to_owned(), String::new()]
    {
        assert!(wrong.parse::<PublisherId>().is_err(), "{wrong}");
    }
    for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
        assert!(name.parse::<ModuleName>().is_err(), "{name}");
    }
    assert!("x".repeat(64).parse::<ModuleName>().is_ok());
}

#[test]
fn parts_must_belong_together() {
    let (name, _) = module(1);
    let sign =
        |charter: &Charter, head: Head| CheckedBundle::sign(&root_key(), &root_key(), &name, charter, head, None);
    assert!(sign(&charter(0), head(1, 0, 1, None)).is_ok());
    assert!(sign(&charter(0), head(2, 0, 1, None)).is_err(), "another module's head");
    assert!(sign(&charter(1), head(1, 0, 1, None)).is_err(), "another epoch's charter");
    let mut closed = charter(0);
    closed.heads = vec![SecretKey::from_seed([9; 32]).public()];
    assert!(sign(&closed, head(1, 0, 1, None)).is_err(), "a key that the charter does not name");
    let stranger = SecretKey::from_seed([9; 32]);
    let made = CheckedBundle::sign(&stranger, &root_key(), &name, &charter(0), head(1, 0, 1, None), None);
    assert!(made.is_err(), "a charter that the root key did not sign");
    let other = bundle(1, 2);
    let record = Fresh { module: other.module(), epoch: 0, seq: 2, head: other.head_hash(), issued: 1, until: 2 };
    assert!(bundle(1, 1).with_fresh(&root_key(), &record).is_err(), "another head's fresh record");
    assert!(other.with_fresh(&stranger, &record).is_err(), "a fresh record by a stranger");
}

#[test]
fn nominations_keep_their_bounds() {
    let sign = |change: &dyn Fn(&mut Nomination)| {
        let mut nomination = nomination();
        change(&mut nomination);
        CheckedNomination::sign(&root_key(), &nomination)
    };
    assert!(sign(&|_| ()).is_ok());
    assert!(sign(&|one| one.until = one.issued - 1).is_err());
    assert!(sign(&|one| one.until = one.issued + MAX_LIFETIME + 1).is_err());
    assert!(sign(&|one| one.addresses = vec![one.addresses[0].clone(); 9]).is_err());
    assert!(sign(&|one| one.contact = "x".repeat(201)).is_err());
    let urls = vec!["https://x".repeat(20); 4];
    assert!(sign(&|one| (one.http, one.rsync) = (urls.clone(), urls.clone())).is_err(), "over 1 KiB in all");
}

#[test]
fn dates_make_stale_but_never_wrong() {
    let made = fresh(&bundle(1, 1), 2_000_000, 3_000_000);
    assert!(made.is_fresh(2_500_000));
    assert!(!made.is_fresh(3_000_001), "over");
    assert!(!made.is_fresh(1_000_000), "issued in the future: check the clock");
    assert!(made.is_from_future(1_000_000));
    assert!(!bundle(1, 1).is_fresh(1_000_000), "no record");
}

#[test]
fn the_size_is_looked_at_first() {
    let long = vec![0; MAX_BUNDLE + 1];
    assert!(matches!(CheckedBundle::verify(&long), Err(RecordError::TooLong { .. })));
    assert!(matches!(CheckedNomination::verify(&long), Err(RecordError::TooLong { .. })));
    assert!(matches!(CheckedRoster::verify(&long), Err(RecordError::TooLong { .. })));
}

#[test]
fn a_record_of_one_kind_is_none_of_another() {
    let signed = CheckedNomination::sign(&root_key(), &nomination()).unwrap();
    assert!(CheckedRoster::verify(signed.bytes()).is_err());
    let rostered = CheckedRoster::sign(&root_key(), &roster()).unwrap();
    assert!(CheckedNomination::verify(rostered.bytes()).is_err());
}

#[test]
fn every_truncation_and_every_tail_is_refused() {
    let whole = fresh(&bundle(1, 2), 10, 20).bytes().to_vec();
    for length in 0..whole.len() {
        assert!(CheckedBundle::verify(&whole[..length]).is_err(), "{length} bytes");
    }
    assert!(CheckedBundle::verify(&[whole.as_slice(), &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn every_changed_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = fresh(&bundle(1, 2), 10, 20).bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(CheckedBundle::verify(&bytes).is_err());
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(CheckedBundle::verify(&bytes).is_err());
        prop_assert!(CheckedNomination::verify(&bytes).is_err());
        prop_assert!(CheckedRoster::verify(&bytes).is_err());
    }
}
