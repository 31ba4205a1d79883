//! News by gossip: one topic per module, and the newest word kept until somebody has heard it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    gossipsub::{
        self, CallbackSubscriptionFilter, Config, ConfigBuilder, IdentTopic, IdentityTransform,
        MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
        PublishError, TopicHash, TopicScoreParams, ValidationMode, score_parameter_decay_with_base,
    },
    identity::Keypair,
};

use crate::record::ModuleId;

/// Topics are this and the module id in hex.
const TOPIC: &str = "murmir/1/";
/// Bytes of one gossip message: a bundle with its envelope.
const MAX_MESSAGE: usize = 8 * 1024;
/// Topics one peer may subscribe to.
const MAX_TOPICS: usize = 1024;
/// An invalid message is held against its sender for about this long.
const GRUDGE: Duration = Duration::from_secs(3600);
/// News that a peer was the first to bring speaks for it for about this long.
const THANKS: Duration = Duration::from_secs(600);
/// Scores fade at this pace.
const FADING: Duration = Duration::from_secs(10);
/// The same bytes are not sent or taken again for this long; older news is refused by the machine.
const REMEMBERED: Duration = Duration::from_secs(5);

type Filter = MaxCountSubscriptionFilter<CallbackSubscriptionFilter<fn(&TopicHash) -> bool>>;

/// gossipsub as we use it.
pub(super) type Gossip = gossipsub::Behaviour<IdentityTransform, Filter>;

/// Strict and signed, every message validated by the machine before it travels on, named by its content.
pub(super) fn behaviour(key: Keypair) -> Result<Gossip, String> {
    let filter: Filter = MaxCountSubscriptionFilter {
        filter: CallbackSubscriptionFilter(|topic| module_of(topic).is_some()),
        max_subscribed_topics: MAX_TOPICS,
        max_subscriptions_per_request: MAX_TOPICS,
    };
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Signed(key), config()?, filter)
        .map_err(str::to_owned)?;
    // Many honest nodes share one address (a LAN, a test): that is no fault.
    let scores = PeerScoreParams {
        topic_score_cap: 15.0,
        ip_colocation_factor_weight: 0.0,
        decay_interval: FADING,
        ..PeerScoreParams::default()
    };
    gossip.with_peer_score(scores, PeerScoreThresholds::default())?;
    Ok(gossip)
}

fn config() -> Result<Config, String> {
    ConfigBuilder::default()
        .protocol_id_prefix("/murmir/gossip")
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(|message: &Message| MessageId::new(blake3::hash(&message.data).as_bytes()))
        .max_transmit_size(MAX_MESSAGE)
        .duplicate_cache_time(REMEMBERED)
        .build()
        .map_err(|error| error.to_string())
}

/// What counts in a topic. A good record is worth 15 points at most, whereas the defaults let a few seconds in the mesh outweigh
/// dozens of invalid messages. One of these costs 30 points: no gossip from there (-10); a second 120: nothing at all (-80).
/// Modules are silent for weeks, which is no fault.
fn topic_scores() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 500.0,
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: score_parameter_decay_with_base(THANKS, FADING, 0.1),
        first_message_deliveries_cap: 10.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -30.0,
        invalid_message_deliveries_decay: score_parameter_decay_with_base(GRUDGE, FADING, 0.1),
        ..TopicScoreParams::default()
    }
}

/// The topic of a module.
pub(super) fn topic(module: &ModuleId) -> IdentTopic {
    IdentTopic::new(format!("{TOPIC}{module}"))
}

/// The module of a topic, if it is one of ours.
pub(super) fn module_of(topic: &TopicHash) -> Option<ModuleId> {
    let hex = topic.as_str().strip_prefix(TOPIC)?;
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() || !hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(ModuleId::from_bytes(bytes))
}

/// The newest word of each kind for each module, sent again until at least one peer took it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    news: BTreeMap<(ModuleId, u8), News>,
}

#[derive(Debug)]
struct News {
    payload: Vec<u8>,
    /// When it goes out, once more.
    due: Option<Instant>,
    sent: Option<Instant>,
}

impl Outbox {
    /// Puts newer news in the place of older news of its kind (its first byte), and sends it.
    pub(super) fn put(&mut self, gossip: &mut Gossip, module: ModuleId, payload: Vec<u8>, now: Instant) {
        self.keep(module, payload, now);
        self.flush(gossip, now);
    }

    /// The same, to be sent later.
    pub(super) fn keep(&mut self, module: ModuleId, payload: Vec<u8>, now: Instant) {
        if let Some(kind) = payload.first().copied() {
            self.news.insert((module, kind), News { payload, due: Some(now), sent: None });
        }
    }

    /// A peer came to the module's topic: what we know goes out again, at a bounded rate.
    pub(super) fn repeat(&mut self, gossip: &mut Gossip, module: ModuleId, now: Instant) {
        for (_, news) in self.news.range_mut((module, 0)..=(module, u8::MAX)) {
            let earliest = news.sent.map_or(now, |sent| sent + 2 * REMEMBERED);
            news.due = Some(earliest.max(now));
        }
        self.flush(gossip, now);
    }

    /// Whether just this is kept for the module.
    pub(super) fn holds(&self, module: ModuleId, payload: &[u8]) -> bool {
        self.news.range((module, 0)..=(module, u8::MAX)).any(|(_, news)| news.payload == payload)
    }

    /// Forgets a module.
    pub(super) fn drop(&mut self, module: ModuleId) {
        self.news.retain(|(held, _), _| *held != module);
    }

    /// Sends what is due.
    pub(super) fn flush(&mut self, gossip: &mut Gossip, now: Instant) {
        for ((module, _), news) in &mut self.news {
            if news.due.is_none_or(|due| due > now) {
                continue;
            }
            match gossip.publish(topic(module), news.payload.clone()) {
                Ok(_) => (news.due, news.sent) = (None, Some(now)),
                // Nobody is there, or the network holds the same bytes: later.
                Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {}
                Err(PublishError::Duplicate) => news.due = Some(now + REMEMBERED),
                Err(error) => {
                    tracing::warn!(%module, %error, "news not sent");
                    news.due = None;
                }
            }
        }
    }
}

/// Subscribes, and sets the topic's scores.
pub(super) fn subscribe(gossip: &mut Gossip, module: &ModuleId) {
    let topic = topic(module);
    if let Err(error) = gossip.subscribe(&topic) {
        tracing::warn!(%module, %error, "not subscribed");
    }
    if let Err(error) = gossip.set_topic_params(topic, topic_scores()) {
        tracing::warn!(%module, %error, "topic not scored");
    }
}

/// How many connected peers follow each of our topics.
pub(super) fn followers(gossip: &Gossip) -> HashMap<ModuleId, HashSet<PeerId>> {
    let mut followers: HashMap<ModuleId, HashSet<PeerId>> =
        gossip.topics().filter_map(module_of).map(|module| (module, HashSet::new())).collect();
    for (peer, topics) in gossip.all_peers() {
        for module in topics.into_iter().filter_map(module_of) {
            if let Some(known) = followers.get_mut(&module) {
                known.insert(*peer);
            }
        }
    }
    followers
}
