//! Questions to the DHT: which query belongs to which question, and who waits for the answer.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{self, GetProvidersOk, GetRecordOk, PeerRecord, QueryId, QueryResult, Quorum, Record, RecordKey},
};
use tokio::sync::oneshot;

use super::store::{Records, bundle_in, bundle_key, supersedes};
use crate::record::{CheckedBundle, ModuleId};

/// Questions at once, waiting ones included.
const MAX_QUESTIONS: usize = 64;
/// Bundles taken from the answers to one question, and providers from those about one of its keys: a key that is full of squatters
/// leaves room for those of the others.
const MAX_ANSWERS: usize = 64;
/// A question asked before any DHT peer is known waits this long for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys under which a module's providers may stand, so that squatters of one key's 20 places do not hide them all.
const SALTS: u8 = 4;

/// The module's provider key with one of the [`SALTS`].
fn provider_key(module: &ModuleId, salt: u8) -> RecordKey {
    let mut hasher = blake3::Hasher::new_derive_key("murmir provider key v1");
    hasher.update(module.as_bytes()).update(&[salt]);
    RecordKey::new(hasher.finalize().as_bytes())
}

/// The one key under which `peer` provides the module: its salt is a hash of its id.
pub(super) fn own_provider_key(module: &ModuleId, peer: &PeerId) -> RecordKey {
    let [first, ..] = *blake3::hash(&peer.to_bytes()).as_bytes();
    provider_key(module, first % SALTS)
}

/// All keys under which providers of the module may stand.
pub(super) fn provider_keys(module: &ModuleId) -> impl Iterator<Item = RecordKey> {
    (0..SALTS).map(|salt| provider_key(module, salt))
}

/// A question, and where its answer goes. Nobody may wait: then the answers only lead to connections.
pub(super) enum Question {
    /// Who provides this module?
    Providers(ModuleId, Option<oneshot::Sender<Vec<PeerId>>>),
    /// What is its newest bundle?
    Bundle(ModuleId, Option<oneshot::Sender<Vec<CheckedBundle>>>),
}

/// All open questions.
#[derive(Default)]
pub(super) struct Lookups {
    /// Asked before there was a DHT peer to ask.
    parked: Vec<(Instant, Question)>,
    /// A provider query, the question it is a part of, and how many providers it named.
    parts: HashMap<QueryId, (u64, usize)>,
    providers: HashMap<u64, Providers>,
    bundles: HashMap<QueryId, Bundles>,
    next: u64,
}

struct Providers {
    open: usize,
    found: BTreeSet<PeerId>,
    reply: Option<oneshot::Sender<Vec<PeerId>>>,
}

struct Bundles {
    module: ModuleId,
    answers: Vec<(Option<PeerId>, CheckedBundle)>,
    reply: Option<oneshot::Sender<Vec<CheckedBundle>>>,
}

/// What an event of the DHT means to the event loop.
#[derive(Default)]
pub(super) struct Found {
    /// Providers just named; their addresses are known to the DHT only until their query ends.
    pub(super) providers: HashSet<PeerId>,
    /// A valid bundle.
    pub(super) bundle: Option<CheckedBundle>,
}

type Kad = kad::Behaviour<Records>;

impl Lookups {
    /// Asks, or waits for a DHT peer to ask. Over the bound the answer is empty at once.
    pub(super) fn ask(&mut self, kad: &mut Kad, question: Question, now: Instant) {
        if self.parked.len() + self.providers.len() + self.bundles.len() >= MAX_QUESTIONS {
            tracing::debug!("too many questions to the DHT: one is not asked");
        } else if kad.kbuckets().next().is_none() {
            self.parked.push((now, question));
        } else {
            self.start(kad, question);
        }
    }

    /// Asks what waited for a first DHT peer, or for too long.
    pub(super) fn unpark(&mut self, kad: &mut Kad, now: Instant) {
        let known = kad.kbuckets().next().is_some();
        let (ready, parked) =
            self.parked.drain(..).partition(|(since, _)| known || now.saturating_duration_since(*since) >= PATIENCE);
        self.parked = parked;
        let ready: Vec<_> = ready;
        for (_, question) in ready {
            self.start(kad, question);
        }
    }

    fn start(&mut self, kad: &mut Kad, question: Question) {
        match question {
            Question::Providers(module, reply) => {
                let id = self.next;
                self.next += 1;
                for key in provider_keys(&module) {
                    self.parts.insert(kad.get_providers(key), (id, 0));
                }
                self.providers.insert(id, Providers { open: SALTS.into(), found: BTreeSet::new(), reply });
            }
            Question::Bundle(module, reply) => {
                let query = kad.get_record(bundle_key(&module));
                self.bundles.insert(query, Bundles { module, answers: Vec::new(), reply });
            }
        }
    }

    /// Takes the progress of a query.
    pub(super) fn progress(&mut self, kad: &mut Kad, query: QueryId, result: QueryResult, last: bool) -> Found {
        let mut found = Found::default();
        match result {
            QueryResult::GetProviders(answer) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = answer {
                    found.providers = self.add_providers(query, providers);
                }
                if last {
                    self.end_part(query);
                }
            }
            QueryResult::GetRecord(answer) => {
                if let Ok(GetRecordOk::FoundRecord(answer)) = answer {
                    found.bundle = self.add_bundle(query, answer);
                }
                if last {
                    self.end_bundles(kad, query);
                }
            }
            _ => {}
        }
        found
    }

    fn add_providers(&mut self, query: QueryId, providers: HashSet<PeerId>) -> HashSet<PeerId> {
        let Some((id, named)) = self.parts.get_mut(&query) else { return HashSet::new() };
        let Some(question) = self.providers.get_mut(id) else { return HashSet::new() };
        let room = MAX_ANSWERS.saturating_sub(*named);
        *named += providers.len().min(room);
        providers.into_iter().take(room).filter(|peer| question.found.insert(*peer)).collect()
    }

    fn end_part(&mut self, query: QueryId) {
        let Some((id, _)) = self.parts.remove(&query) else { return };
        let Some(question) = self.providers.get_mut(&id) else { return };
        question.open = question.open.saturating_sub(1);
        if question.open == 0
            && let Some(Providers { found, reply: Some(reply), .. }) = self.providers.remove(&id)
        {
            let _ = reply.send(found.into_iter().collect());
        }
    }

    fn add_bundle(&mut self, query: QueryId, answer: PeerRecord) -> Option<CheckedBundle> {
        let question = self.bundles.get_mut(&query)?;
        let bundle = bundle_in(&answer.record).ok()?;
        if question.answers.len() >= MAX_ANSWERS || bundle.module() != question.module {
            return None;
        }
        question.answers.push((answer.peer, bundle.clone()));
        Some(bundle)
    }

    /// Answers, and sends the newest bundle to those that answered with an older one.
    fn end_bundles(&mut self, kad: &mut Kad, query: QueryId) {
        let Some(Bundles { module, answers, reply }) = self.bundles.remove(&query) else { return };
        let newest = answers.iter().map(|(_, bundle)| bundle).max_by_key(|bundle| bundle.generation());
        if let Some(newest) = newest {
            let stale: Vec<PeerId> = answers
                .iter()
                .filter(|(_, bundle)| !supersedes(bundle, newest))
                .filter_map(|(peer, _)| *peer)
                .collect();
            if !stale.is_empty() {
                let record = Record::new(bundle_key(&module), newest.bytes().to_vec());
                kad.put_record_to(record, stale.into_iter(), Quorum::One);
            }
        }
        if let Some(reply) = reply {
            let _ = reply.send(answers.into_iter().map(|(_, bundle)| bundle).collect());
        }
    }
}
