//! Who signs: a publisher's root key, and the head key that stands in for it since the last `rotate`.

use tracker_less::record::{Charter, CheckedBundle, Fresh, Generation, Head, ModuleName, PublicKey, PublisherId};
use tracker_less::record::{RecordError, SecretKey};

use super::SyncError;
use crate::store::state::{HeadKey, State};

/// How long a nomination lasts by this publisher's charter, seconds.
const NOMINATION_FOR: u64 = 24 * 3600;

/// A publisher whose heads this machine can sign.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What its key is called here.
    pub name: String,
    /// Who it is: its root key.
    pub publisher: PublisherId,
    /// The root key, where it is on this machine.
    pub root: Option<SecretKey>,
    /// The key that signs heads, where it is another than the root key.
    pub head: Option<SecretKey>,
}

/// What a charter says beside its keys.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Nodes that track.
    pub trackers: Vec<libp2p::PeerId>,
    /// Keys that may call a head fresh, and sign nothing else.
    pub fresh: Vec<PublicKey>,
    /// How long a Fresh record lasts, seconds.
    pub fresh_for: u64,
}

impl Keys {
    /// A root key alone: it signs heads too.
    pub fn of_root(name: &str, root: SecretKey) -> Self {
        Self { name: name.to_owned(), publisher: root.public().publisher(), root: Some(root), head: None }
    }

    /// The keys of this name; none if there are none.
    ///
    /// # Errors
    /// The state fails, or the two keys are of different publishers.
    pub fn load(state: &State, name: &str) -> Result<Option<Self>, SyncError> {
        let root = state.key(name)?.map(SecretKey::from_seed);
        let Some(HeadKey { root: publisher, seed }) = state.head_key(name)? else {
            return Ok(root.map(|root| Self::of_root(name, root)));
        };
        let publisher = PublicKey::from_bytes(&publisher).map(|key| key.publisher());
        let fits = publisher.filter(|publisher| root.as_ref().is_none_or(|root| root.public() == *publisher.key()));
        let publisher =
            fits.ok_or_else(|| SyncError::BadState { reason: format!("keys/{name}.head is of another publisher") })?;
        Ok(Some(Self { name: name.to_owned(), publisher, root, head: Some(SecretKey::from_seed(seed)) }))
    }

    /// The keys of this publisher, whatever they are called.
    ///
    /// # Errors
    /// The state fails.
    pub fn find(state: &State, publisher: &PublisherId) -> Result<Option<Self>, SyncError> {
        for name in state.key_names()? {
            if let Some(keys) = Self::load(state, &name)?.filter(|keys| keys.publisher == *publisher) {
                return Ok(Some(keys));
            }
        }
        Ok(None)
    }

    /// The key that signs under a charter.
    ///
    /// # Errors
    /// None of these may.
    pub fn signer(&self, charter: &Charter) -> Result<&SecretKey, SyncError> {
        let mut mine = [&self.head, &self.root].into_iter().flatten();
        let name = self.name.clone();
        mine.find(|key| charter.heads.contains(&key.public())).ok_or(SyncError::NotASigner { name })
    }

    /// The head as a bundle: after `former`, else under the charter of `sibling` (another module of this publisher), else
    /// under a first charter.
    ///
    /// # Errors
    /// No key here may sign it.
    pub fn sign(
        &self,
        name: &ModuleName,
        head: Head,
        (former, sibling): (Option<&CheckedBundle>, Option<&CheckedBundle>),
        (terms, now): (&Terms, u64),
    ) -> Result<CheckedBundle, SyncError> {
        let bundle = match (former, sibling) {
            // Nothing but a later word that this is the newest.
            (Some(former), _) if *former.head() == head => former.clone(),
            (Some(former), _) => former.next(self.signer(former.charter())?, head, None)?,
            (None, Some(sibling)) => sibling.sibling(self.signer(sibling.charter())?, name, head)?,
            (None, None) => {
                let root = self.root.as_ref().ok_or_else(|| SyncError::NoRoot { name: self.name.clone() })?;
                let signer = self.head.as_ref().unwrap_or(root);
                CheckedBundle::sign(root, signer, name, &first_charter(signer.public(), terms), head, None)?
            }
        };
        Ok(refresh(self.signer(bundle.charter())?, &bundle, terms.fresh_for, now)?)
    }
}

fn first_charter(head: PublicKey, terms: &Terms) -> Charter {
    Charter {
        epoch: 0,
        heads: vec![head],
        fresh: terms.fresh.clone(),
        trackers: terms.trackers.clone(),
        fresh_for: terms.fresh_for,
        nomination_for: NOMINATION_FOR,
        accepted: Vec::new(),
        successor: None,
    }
}

/// The same generation with a Fresh record from now on; `issued` grows also where the clock does not.
///
/// # Errors
/// The key may not sign for this module.
pub fn refresh(key: &SecretKey, bundle: &CheckedBundle, lasts: u64, now: u64) -> Result<CheckedBundle, RecordError> {
    let issued = bundle.fresh().map_or(now, |fresh| now.max(fresh.issued.saturating_add(1)));
    let (head, Generation { epoch, seq }) = (bundle.head_hash(), bundle.generation());
    let fresh = Fresh { module: bundle.module(), epoch, seq, head, issued, until: issued.saturating_add(lasts) };
    bundle.with_fresh(key, &fresh)
}
