//! What `publish` asks another machine to sign: a small text file. It says everything that the signature covers, so that it
//! can be read before it is signed; nothing in it is believed that the former bundle does not bear out.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracker_less::record::{CheckedBundle, Generation, Hash32, Head, PublicKey};

use super::keys::{Keys, Terms};
use super::{ModuleRef, SyncError};
use crate::reference::Reference;

/// Largest file that is read as a request, bytes: two bundles in hex and some text.
pub const MAX_REQUEST: usize = 32 << 10;
/// Version of the file.
const VERSION: u32 = 1;
/// Most trackers and fresh keys of a request.
const MAX_LIST: usize = 16;

/// Why a request is not signed.
#[derive(Debug, Error)]
pub enum ProposalError {
    /// No request, or one of another version.
    #[error("no signing request: {why}")]
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// Head and former bundle do not belong together.
    #[error("the request contradicts itself: {why}")]
    Contradiction {
        /// How.
        why: &'static str,
    },
    /// This machine has signed something that the request does not go on from.
    #[error("the request goes on from {from}, but {signed} was signed here")]
    Passed {
        /// What it goes on from.
        from: String,
        /// The newest that was signed here.
        signed: Generation,
    },
    /// Signing failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// What changed, for people; not signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// New entries.
    pub added: u64,
    /// Entries with other content or attributes.
    pub changed: u64,
    /// Entries that are gone.
    pub deleted: u64,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    murmir_request: u32,
    module: String,
    epoch: u64,
    seq: u64,
    previous: Option<String>,
    root: String,
    entries: u64,
    bytes: u64,
    created: u64,
    fresh_for: u64,
    trackers: Vec<String>,
    fresh_keys: Vec<String>,
    changes: Changes,
    former: Option<String>,
    sibling: Option<String>,
}

/// A head that waits for a signature.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The module.
    pub module: ModuleRef,
    /// What is to be signed.
    pub head: Head,
    /// For a first charter, and the life of the Fresh record.
    pub terms: Terms,
    /// What changed.
    pub changes: Changes,
    /// The generation that it goes on from.
    pub former: Option<CheckedBundle>,
    /// Another module of the publisher.
    pub sibling: Option<CheckedBundle>,
}

impl Proposal {
    /// The file's text.
    pub fn text(&self) -> String {
        let hex_of = |bundle: &Option<CheckedBundle>| bundle.as_ref().map(|bundle| hex(bundle.bytes()));
        let raw = Raw {
            murmir_request: VERSION,
            module: self.module.to_string(),
            epoch: self.head.epoch,
            seq: self.head.seq,
            previous: self.head.previous.map(|hash| hash.to_string()),
            root: self.head.root.to_string(),
            entries: self.head.entries,
            bytes: self.head.bytes,
            created: self.head.created,
            fresh_for: self.terms.fresh_for,
            trackers: self.terms.trackers.iter().map(ToString::to_string).collect(),
            fresh_keys: self.terms.fresh.iter().map(|key| hex(key.as_bytes())).collect(),
            changes: self.changes,
            former: hex_of(&self.former),
            sibling: hex_of(&self.sibling),
        };
        serde_json::to_string_pretty(&raw).unwrap_or_default() + "\n"
    }

    /// Reads a request, and checks that its parts belong together.
    ///
    /// # Errors
    /// It is none, or contradicts itself.
    pub fn parse(text: &str) -> Result<Self, ProposalError> {
        let malformed = |why: &str| ProposalError::Malformed { why: why.to_owned() };
        if text.len() > MAX_REQUEST {
            return Err(malformed("too long"));
        }
        let raw: Raw = serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))?;
        if raw.murmir_request != VERSION {
            return Err(malformed("of another version"));
        }
        if raw.trackers.len().max(raw.fresh_keys.len()) > MAX_LIST {
            return Err(malformed("too many trackers or keys"));
        }
        let module = Reference::parse(&raw.module).map_err(|error| malformed(&error.to_string()))?.module;
        let hash = |text: &String| unhex(text)?.try_into().ok().map(Hash32);
        let previous = raw.previous.as_ref().map(|text| hash(text).ok_or_else(|| malformed("previous is no hash")));
        let key = |text: &String| PublicKey::from_bytes(&unhex(text)?);
        let terms = Terms {
            trackers: raw.trackers.iter().filter_map(|text| text.parse().ok()).collect(),
            fresh: raw.fresh_keys.iter().filter_map(key).collect(),
            fresh_for: raw.fresh_for,
        };
        if terms.trackers.len() != raw.trackers.len() || terms.fresh.len() != raw.fresh_keys.len() {
            return Err(malformed("no peer id or no key"));
        }
        let bundle = |text: &String| {
            let bytes = unhex(text).ok_or_else(|| malformed("a bundle is not hex"))?;
            CheckedBundle::verify(&bytes).map_err(|error| malformed(&error.to_string()))
        };
        let head = Head {
            module: module.id,
            epoch: raw.epoch,
            seq: raw.seq,
            previous: previous.transpose()?,
            root: raw.root.parse().map_err(|_| malformed("root is no CID"))?,
            entries: raw.entries,
            bytes: raw.bytes,
            created: raw.created,
        };
        let former = raw.former.as_ref().map(bundle).transpose()?;
        let sibling = raw.sibling.as_ref().map(bundle).transpose()?;
        let proposal = Self { module, head, terms, changes: raw.changes, former, sibling };
        proposal.check()?;
        Ok(proposal)
    }

    fn check(&self) -> Result<(), ProposalError> {
        let contradiction = |why| Err(ProposalError::Contradiction { why });
        let (former, sibling) = (self.former.as_ref(), self.sibling.as_ref());
        if former.is_some_and(|former| former.module() != self.module.id) {
            return contradiction("the former generation is of another module");
        }
        if sibling.is_some_and(|sibling| *sibling.publisher() != self.module.publisher) {
            return contradiction("the sibling is another publisher's");
        }
        if former.or(sibling).map_or(0, |bundle| bundle.generation().epoch) != self.head.epoch {
            return contradiction("the epoch is not the former one's");
        }
        let Some(former) = former else {
            return if self.head.previous.is_none() {
                Ok(())
            } else {
                contradiction("it names a former head it lacks")
            };
        };
        let is_same = *former.head() == self.head;
        let follows = self.head.previous == Some(former.head_hash()) && self.head.seq > former.generation().seq;
        if is_same || follows { Ok(()) } else { contradiction("it does not follow the former head") }
    }

    /// Signs, unless `seen` (the newest that was signed here) says that this would be a fork.
    ///
    /// # Errors
    /// The request does not go on from `seen`, or the keys may not sign it.
    pub fn sign(&self, keys: &Keys, seen: Option<&CheckedBundle>, now: u64) -> Result<CheckedBundle, ProposalError> {
        if let Some(seen) = seen {
            let again = *seen.head() == self.head;
            let follows = self.former.as_ref().is_some_and(|former| former.head_hash() == seen.head_hash());
            if !again && !follows {
                let from = self.former.as_ref().map_or("nothing".to_owned(), |one| one.generation().to_string());
                return Err(ProposalError::Passed { from, signed: seen.generation() });
            }
        }
        let former = seen.filter(|seen| *seen.head() == self.head).or(self.former.as_ref());
        let before = (former, self.sibling.as_ref());
        Ok(keys.sign(&self.module.name, self.head.clone(), before, (&self.terms, now))?)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let plain = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { text.as_bytes().chunks(2).map(pair).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use cid::Cid;
    use tracker_less::record::SecretKey;

    use super::*;

    fn keys() -> Keys {
        Keys::of_root("k", SecretKey::from_seed([7; 32]))
    }

    fn proposal() -> Proposal {
        let module = ModuleRef::new(keys().publisher, "m".parse().unwrap());
        let root: Cid = "bafyr4icpgnyhwbxxcdocmv2idvpbpm2yaflkjwyqbeflmmxdikndzquorm".parse().unwrap();
        let head = Head { module: module.id, epoch: 0, seq: 1, previous: None, root, entries: 3, bytes: 9, created: 5 };
        let terms = Terms { fresh_for: 60, ..Terms::default() };
        Proposal { module, head, terms, changes: Changes::default(), former: None, sibling: None }
    }

    fn next(of: &CheckedBundle) -> Proposal {
        let head = Head { seq: 2, previous: Some(of.head_hash()), ..of.head().clone() };
        Proposal { head, former: Some(of.clone()), ..proposal() }
    }

    #[test]
    fn what_is_signed_is_what_the_text_says() {
        let read = Proposal::parse(&proposal().text()).unwrap();
        let first = read.sign(&keys(), None, 10).unwrap();
        assert_eq!(*first.head(), proposal().head);
        assert!(first.is_fresh(70) && !first.is_fresh(71));
        let second = Proposal::parse(&next(&first).text()).unwrap().sign(&keys(), Some(&first), 11).unwrap();
        assert_eq!(second.generation(), Generation { epoch: 0, seq: 2 });
    }

    #[test]
    fn a_machine_signs_no_fork_of_its_own() {
        let first = proposal().sign(&keys(), None, 10).unwrap();
        let other = Proposal { head: Head { bytes: 10, ..proposal().head }, ..proposal() };
        assert!(matches!(other.sign(&keys(), Some(&first), 11), Err(ProposalError::Passed { .. })));
        let again = proposal().sign(&keys(), Some(&first), 11).unwrap();
        assert_eq!(again.head_hash(), first.head_hash(), "the same once more is no fork");
        let second = next(&first).sign(&keys(), Some(&first), 11).unwrap();
        assert!(
            matches!(next(&first).sign(&keys(), Some(&second), 12), Ok(same) if same.head_hash() == second.head_hash())
        );
        let other = Proposal { head: Head { bytes: 10, ..next(&first).head }, ..next(&first) };
        assert!(matches!(other.sign(&keys(), Some(&second), 12), Err(ProposalError::Passed { .. })));
    }

    #[test]
    fn requests_that_contradict_themselves_are_refused() {
        let first = proposal().sign(&keys(), None, 10).unwrap();
        let good = next(&first);
        let wrong = |head: Head| Proposal { head, ..good.clone() }.text();
        for text in [
            wrong(Head { epoch: 1, ..good.head.clone() }),
            wrong(Head { seq: 1, ..good.head.clone() }),
            wrong(Head { previous: None, ..good.head.clone() }),
            Proposal { former: None, ..good.clone() }.text(),
            good.text().replace("\"entries\"", "\"entry\""),
            good.text().replace("\"murmir_request\": 1", "\"murmir_request\": 2"),
            "x".repeat(MAX_REQUEST + 1),
            "{}".to_owned(),
        ] {
            assert!(Proposal::parse(&text).is_err(), "{text}");
        }
        let stranger = Keys::of_root("s", SecretKey::from_seed([8; 32]));
        assert!(good.sign(&stranger, None, 11).is_err());
        assert!(proposal().sign(&stranger, None, 11).is_err(), "a first head of another's module");
    }
}
