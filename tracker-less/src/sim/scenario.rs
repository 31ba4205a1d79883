//! What happens in a run, as data.

/// One run's circumstances.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Plain nodes that watch the module: the origin and all below come on top.
    pub(super) watchers: usize,
    /// Honest mirrors.
    pub(super) mirrors: usize,
    /// Nodes that claim everything and hold nothing.
    pub(super) sybils: usize,
    /// Mirrors that took the first generation and claim every later one.
    pub(super) liars: usize,
    /// Nodes that repeat old nominations of others, and send junk.
    pub(super) replayers: usize,
    /// No tracker is named: there is never a roster.
    pub(super) untracked: bool,
    /// Gossip messages lost, of a thousand.
    pub(super) loss: u64,
    /// Nodes whose clock is up to ten years off, of a thousand.
    pub(super) skewed: u64,
    /// Nodes other than the origin that leave at a tick, of a thousand; they come back at the next.
    pub(super) churn: u64,
    /// Seconds between two ticks of a node.
    pub(super) tick: u64,
    /// What happens when, seconds.
    pub(super) script: Vec<(u64, Step)>,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The origin publishes the next generation.
    Publish,
    /// The origin publishes, and dies before anybody has fetched it.
    PublishAndDie,
    /// The origin is gone for good.
    OriginDies,
    /// The network falls apart.
    Part(usize),
    /// It is whole again.
    Heal,
    /// Mirrors of an odd number leave without a word; they come back when this is said again.
    ToggleOdd,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "",
            watchers: 0,
            mirrors: 0,
            sybils: 0,
            liars: 0,
            replayers: 0,
            untracked: false,
            loss: 10,
            skewed: 0,
            churn: 0,
            tick: 60,
            script: Vec::new(),
        }
    }
}
