//! When a node says what it holds: at once, again before the word expires, and once more to take it back.

use multiaddr::Multiaddr;

use crate::record::nomination::{MAX_ADDRESSES, MAX_TEXT, MAX_URLS};
use crate::record::{CheckedBundle, CheckedNomination, Coverage, Nomination, RecordError, SecretKey};

/// How long a nomination lasts where the charter says nothing, seconds.
const DEFAULT_LIFETIME: u64 = 24 * 3600;
/// Bounds of what a charter may ask for, seconds.
const LIFETIMES: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;
/// How long the word of one run lasts, seconds.
const PASSING: u64 = 600;

/// What a node says of itself with each of its nominations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
    /// Where in the world, in the operator's words; 200 bytes at most.
    pub region: String,
    /// How to reach the operator; 200 bytes at most.
    pub contact: String,
}

/// One module that this node holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The head of the generation held.
    pub bundle: CheckedBundle,
    /// How much of it.
    pub coverage: Coverage,
    /// For the time of one run only.
    passing: bool,
    /// Web addresses where the same tree stands.
    http: Vec<String>,
    /// When it was last said, seconds since the epoch; `issued` of the last nomination.
    said: Option<u64>,
    /// The last nomination, for those who ask.
    last: Option<CheckedNomination>,
}

impl Held {
    /// Not said yet.
    pub fn new(bundle: CheckedBundle, coverage: Coverage, http: Vec<String>) -> Self {
        Self { bundle, coverage, passing: false, http, said: None, last: None }
    }

    /// The same for the time of one run.
    pub fn passing(bundle: CheckedBundle, coverage: Coverage) -> Self {
        Self { passing: true, ..Self::new(bundle, coverage, Vec::new()) }
    }

    /// True unless it is for the time of one run.
    pub fn lasts(&self) -> bool {
        !self.passing
    }

    /// The same in the place of what was held before.
    #[must_use]
    pub fn after(self, before: Option<&Self>) -> Self {
        // `issued` must grow, also where one second brings two changes.
        Self { said: before.and_then(|held| held.said), ..self }
    }

    /// True if the last word is half over, or none was given.
    pub fn is_due(&self, now: u64) -> bool {
        self.said.is_none_or(|said| now >= said.saturating_add(self.lifetime() / 2) || now.saturating_add(60) < said)
    }

    /// The next nomination.
    ///
    /// # Errors
    /// The record would not be valid.
    pub fn nominate(&mut self, key: &SecretKey, profile: &Profile, now: u64) -> Result<CheckedNomination, RecordError> {
        let issued = self.said.map_or(now, |said| now.max(said + 1));
        let head = self.bundle.head();
        let nomination = Nomination {
            module: head.module,
            epoch: head.epoch,
            seq: head.seq,
            root: head.root,
            coverage: self.coverage,
            addresses: profile.addresses.iter().take(MAX_ADDRESSES).cloned().collect(),
            http: self.http.iter().filter(|url| url.len() <= MAX_TEXT).take(MAX_URLS).cloned().collect(),
            rsync: Vec::new(),
            region: profile.region.clone(),
            contact: profile.contact.clone(),
            issued,
            until: issued.saturating_add(self.lifetime()),
        };
        let checked = CheckedNomination::sign(key, &nomination)?;
        self.said = Some(issued);
        self.last = Some(checked.clone());
        Ok(checked)
    }

    /// The word that counts now.
    pub fn last(&self) -> Option<&CheckedNomination> {
        self.last.as_ref()
    }

    fn lifetime(&self) -> u64 {
        match self.bundle.charter().nomination_for {
            _ if self.passing => PASSING,
            0 => DEFAULT_LIFETIME,
            asked => asked.clamp(*LIFETIMES.start(), *LIFETIMES.end()),
        }
    }
}
