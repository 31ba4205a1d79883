//! Deterministic records for tests.

use cid::Cid;
use multihash::Multihash;

use super::{Charter, CheckedBundle, Fresh, Hash32, Head, ModuleId, ModuleName, SecretKey};

/// The publisher of all fixtures.
pub fn root_key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

/// A root CID made from a number.
pub fn root(number: u64) -> Cid {
    let hash = blake3::hash(&number.to_be_bytes());
    Cid::new_v1(0x71, Multihash::wrap(0x1e, hash.as_bytes()).unwrap())
}

/// A charter of this epoch that lets the root key sign heads.
pub fn charter(epoch: u64) -> Charter {
    Charter {
        epoch,
        heads: vec![root_key().public()],
        fresh: Vec::new(),
        trackers: Vec::new(),
        fresh_for: 14 * 24 * 3600,
        nomination_for: 24 * 3600,
        accepted: Vec::new(),
        successor: None,
    }
}

/// Name and id of fixture module `number`.
pub fn module(number: u8) -> (ModuleName, ModuleId) {
    let name: ModuleName = format!("m{number}").parse().unwrap();
    let id = ModuleId::new(&root_key().public().publisher(), &name);
    (name, id)
}

/// A head of fixture module `number`.
pub fn head(number: u8, epoch: u64, seq: u64, previous: Option<Hash32>) -> Head {
    let (_, module) = module(number);
    Head {
        module,
        epoch,
        seq,
        previous,
        root: root(seq),
        entries: seq,
        bytes: seq.saturating_mul(10),
        created: 1_000_000,
    }
}

/// The bundle of generation `seq` of fixture module `number`, chained from the first.
pub fn bundle(number: u8, seq: u64) -> CheckedBundle {
    let mut previous = None;
    let mut at = 0;
    loop {
        at += 1;
        let head = head(number, 0, at, previous);
        let (name, _) = module(number);
        let bundle = CheckedBundle::sign(&root_key(), &root_key(), &name, &charter(0), head, None).unwrap();
        if at == seq {
            return bundle;
        }
        previous = Some(bundle.head_hash());
    }
}

/// The same bundle with a Fresh record.
pub fn fresh(bundle: &CheckedBundle, issued: u64, until: u64) -> CheckedBundle {
    let (generation, head) = (bundle.generation(), bundle.head_hash());
    let record = Fresh { module: bundle.module(), epoch: generation.epoch, seq: generation.seq, head, issued, until };
    bundle.with_fresh(&root_key(), &record).unwrap()
}
