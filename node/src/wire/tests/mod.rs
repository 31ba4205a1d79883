//! Both sides against honest, lying and hostile ones, in memory.

mod deltas;
mod golden;
mod hostile;
mod liars;
mod pairs;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cid::Cid;
use libp2p::PeerId;
use multihash::Multihash;
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use tracker_less::record::{Charter, Fresh, Head, SecretKey};

use super::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use super::msg::{Held, Hello};
use super::*;

/// Short, so that a test that waits for one ends soon.
const QUICK: Deadlines = Deadlines {
    hello: Duration::from_millis(200),
    silence: Duration::from_millis(200),
    idle: Duration::from_millis(400),
};
/// Long enough never to matter.
const PATIENT: Deadlines =
    Deadlines { hello: Duration::from_secs(60), silence: Duration::from_secs(60), idle: Duration::from_secs(60) };

fn module() -> ModuleId {
    bundle().module()
}

fn content(number: u32) -> ContentId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContentId(bytes)
}

fn page_id(number: u32) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x1e, &content(number).0).unwrap())
}

/// Generation 41 of epoch 1, signed by a fixed key.
fn bundle() -> CheckedBundle {
    let key = SecretKey::from_seed([7; 32]);
    let name = "golden".parse().unwrap();
    let module = ModuleId::new(&key.public().publisher(), &name);
    let charter = Charter {
        epoch: 1,
        heads: vec![key.public()],
        fresh: Vec::new(),
        trackers: Vec::new(),
        fresh_for: 1_209_600,
        nomination_for: 86_400,
        accepted: Vec::new(),
        successor: None,
    };
    let (previous, root) = (Some(Hash32([8; 32])), page_id(0));
    let head = Head { module, epoch: 1, seq: 41, previous, root, entries: 3, bytes: 700, created: 1_750_000_000 };
    let unfresh = CheckedBundle::sign(&key, &key, &name, &charter, head, None).unwrap();
    let (issued, until) = (1_760_000_000, 1_761_209_600);
    let fresh = Fresh { module, epoch: 1, seq: 41, head: unfresh.head_hash(), issued, until };
    unfresh.with_fresh(&key, &fresh).unwrap()
}

/// A holder of one module; counts what it is asked for.
#[derive(Default)]
struct Shelf {
    small: BTreeMap<ContentId, Vec<u8>>,
    pages: HashMap<Cid, Vec<u8>>,
    nominations: Vec<Vec<u8>>,
    asked: AtomicUsize,
    heard: std::sync::Mutex<Vec<Vec<u8>>>,
    /// The answer to whoever asks for patches.
    lately: Option<Made>,
}

impl Shelf {
    fn find(&self, short: &Short) -> Option<&Vec<u8>> {
        self.small.iter().find(|(id, _)| Short::from(*id) == *short).map(|(_, bytes)| bytes)
    }
}

impl Provider for Shelf {
    fn bundle(&self, id: &ModuleId) -> Option<CheckedBundle> {
        (*id == module()).then(bundle)
    }

    fn held(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.bundle(module)
    }

    fn holds(&self, _: &ModuleId) -> Vec<Held> {
        vec![Held { epoch: 1, seq: 41, root: page_id(1), whole: true }]
    }

    fn nominations(&self, _: &ModuleId) -> Vec<Vec<u8>> {
        self.nominations.clone()
    }

    fn page(&self, _: &ModuleId, cid: &Cid) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.pages.get(cid).cloned()
    }

    fn page_patches(&self, _: &ModuleId, pages: &[(Short, Short)]) -> PagePatches {
        PagePatches { sizes: vec![Some(3); pages.len()], frame: b"frame".to_vec() }
    }

    fn small(&self, _: &ModuleId, id: &Short, size: u64) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (found, bytes) = self.small.range(id.least()..).next()?;
        (id.begins(found) && bytes.len() as u64 == size).then(|| bytes.clone())
    }

    fn range(&self, _: &ModuleId, id: &ContentId, _: u64, range: Range<u64>) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let whole = self.small.get(id)?;
        whole.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?).map(<[u8]>::to_vec)
    }

    fn patches(&self, _: &ModuleId, pairs: &[Pair]) -> Made {
        let slots =
            pairs.iter().map(|pair| self.find(&pair.old).and(self.find(&pair.id)).map(|_| Vec::new())).collect();
        Made { slots, frame: b"frame".to_vec() }
    }

    fn outboard(&self, _: &ModuleId, id: &ContentId, _: u64, start: u64) -> Option<Vec<u8>> {
        let hashed = self.small.contains_key(id).then(|| vec![7; 32 * usize::try_from(4 - start).unwrap()]);
        hashed.filter(|bytes| !bytes.is_empty())
    }

    fn sums(&self, _: &ModuleId, part: &Part) -> Option<Vec<u8>> {
        Some(part.form.sums(self.find(&part.id)?))
    }

    fn slices(&self, _: &ModuleId, parts: &[Lacking]) -> Made {
        let slots = parts.iter().map(|part| self.find(&part.id).map(|_| Vec::new())).collect();
        Made { slots, frame: b"frame".to_vec() }
    }

    fn made_lately(&self, request: &Message) -> Option<Message> {
        matches!(request, Message::GetPatches(_)).then(|| self.lately.clone().map(Message::Patches)).flatten()
    }

    fn have(&self, _: &ModuleId, _: &Cid) -> Have {
        Have::of((0..20_000).map(|number| number * 2))
    }

    fn heard(&self, _: PeerId, bundles: Vec<Vec<u8>>, nominations: Vec<Vec<u8>>) {
        self.heard.lock().unwrap().extend(bundles.into_iter().chain(nominations));
    }
}

/// Both ends of a stream with a window of 64 KiB.
fn duplex() -> (Compat<DuplexStream>, Compat<DuplexStream>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    (near.compat(), far.compat())
}

/// A client of a server that gives what is on `shelf`.
async fn served(shelf: &Arc<Shelf>, deadlines: Deadlines) -> PeerClient {
    let (near, far) = duplex();
    tokio::spawn(serve_stream(far, PeerId::random(), shelf.clone(), Limits::new(deadlines)));
    PeerClient::start(near, Hello::ours(), deadlines)
}
