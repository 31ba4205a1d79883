//! The bundle: root key, name, charter, head and Fresh record in one, complete in itself.

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use super::charter::{self, Accepted, Charter, MAX_LIST};
use super::envelope::{Domain, Envelope, Hash32, Raw, RecordError, decode, encode};
use super::fresh::Fresh;
use super::head::{self, Head};
use super::id::{Generation, ModuleId, ModuleName, PublisherId};
use super::key::{PublicKey, SecretKey};

/// Nothing longer is parsed, stored or passed on.
pub const MAX_BUNDLE: usize = 4096;
const DOMAIN: Domain = Domain { what: "bundle", tag: b"murmir bundle v1", max: MAX_BUNDLE };
/// A Fresh record issued further in the future than this, in seconds, makes nothing fresh: somebody's clock is wrong.
const CLOCK_SLACK: u64 = 600;

#[derive(Serialize, Deserialize)]
struct RawBundle(ByteBuf, String, Raw, Raw, Option<Raw>);

/// A bundle whose every part was verified: charter by root key, head by a head key, Fresh by a head or fresh key, all for the
/// module that root key and name make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBundle {
    module: ModuleId,
    publisher: PublisherId,
    name: ModuleName,
    charter: Charter,
    charter_seal: Envelope,
    head: Head,
    head_seal: Envelope,
    fresh: Option<(Fresh, Envelope)>,
    bytes: Vec<u8>,
}

impl CheckedBundle {
    /// Verifies a bundle from anywhere. Time plays no part in it.
    ///
    /// # Errors
    /// Whatever is wrong first: size, form, signatures, signers, parts that do not belong together.
    pub fn verify(bytes: &[u8]) -> Result<Self, RecordError> {
        let RawBundle(root, name, charter, head, fresh) = decode(DOMAIN, bytes)?;
        let root = PublicKey::from_bytes(&root).ok_or(DOMAIN.malformed())?;
        let name: ModuleName = name.parse().map_err(|_| DOMAIN.invalid("not a module name"))?;
        let publisher = PublisherId::new(root);
        let module = ModuleId::new(&publisher, &name);
        let (charter, charter_seal) = Charter::open(charter, &root)?;
        let (head, head_seal) = Head::open(head)?;
        let fresh = fresh.map(Fresh::open).transpose()?;
        let bytes = bytes.to_vec();
        let bundle = Self { module, publisher, name, charter, charter_seal, head, head_seal, fresh, bytes };
        bundle.check()?;
        Ok(bundle)
    }

    /// Signs the parts of a new generation. `root` may be the head key as well.
    ///
    /// # Errors
    /// The parts do not belong together, or are too long.
    pub fn sign(
        root: &SecretKey,
        head_key: &SecretKey,
        name: &ModuleName,
        charter: &Charter,
        head: Head,
        fresh: Option<Fresh>,
    ) -> Result<Self, RecordError> {
        let charter_seal = charter.seal(root);
        Self::assemble(root.public(), name, charter_seal, head.seal(head_key), fresh.map(|fresh| fresh.seal(head_key)))
    }

    /// The next generation under the same charter.
    ///
    /// # Errors
    /// The key may not sign for this charter, or the head is of another module or epoch.
    pub fn next(&self, head_key: &SecretKey, head: Head, fresh: Option<Fresh>) -> Result<Self, RecordError> {
        let fresh = fresh.map(|fresh| fresh.seal(head_key));
        Self::assemble(*self.publisher.key(), &self.name, self.charter_seal.clone(), head.seal(head_key), fresh)
    }

    /// The first generation of another module of this publisher, under the same charter: the root key need not be at hand.
    ///
    /// # Errors
    /// The key may not sign for this charter, or the head is of another module or epoch.
    pub fn sibling(&self, head_key: &SecretKey, name: &ModuleName, head: Head) -> Result<Self, RecordError> {
        Self::assemble(*self.publisher.key(), name, self.charter_seal.clone(), head.seal(head_key), None)
    }

    /// The same tree as the first generation of a higher epoch, signed by another head key. The new charter names this
    /// generation as the last that counts of its own epoch: whatever else the old keys signed at or above it does not.
    ///
    /// # Errors
    /// The root key is another publisher's, or the epoch is not higher.
    pub fn rotate(
        &self,
        root: &SecretKey,
        head_key: &SecretKey,
        epoch: u64,
        created: u64,
    ) -> Result<Self, RecordError> {
        let Generation { epoch: old, seq } = self.generation();
        let last = Accepted { epoch: old, module: self.module, seq, head: self.head_hash() };
        let older = self.charter.accepted.iter().filter(|one| one.module == self.module).cloned();
        let accepted = std::iter::once(last).chain(older).take(MAX_LIST).collect();
        let charter = Charter { epoch, heads: vec![head_key.public()], accepted, ..self.charter.clone() };
        // A number is a generation's name for people, so it goes on; where there is none left, the epoch tells them apart.
        let seq = seq.checked_add(1).unwrap_or(1);
        let head = Head { epoch, seq, previous: Some(self.head_hash()), created, ..self.head.clone() };
        if root.public() != *self.publisher.key() {
            return Err(RecordError::Signer { what: "charter" });
        }
        Self::sign(root, head_key, &self.name, &charter, head, None)
    }

    /// Who signed the head.
    pub fn signer(&self) -> &PublicKey {
        self.head_seal.key()
    }

    /// The same generation with another Fresh record.
    ///
    /// # Errors
    /// The key may not sign for this charter, or the record is of another head.
    pub fn with_fresh(&self, key: &SecretKey, fresh: &Fresh) -> Result<Self, RecordError> {
        let (charter, head) = (self.charter_seal.clone(), self.head_seal.clone());
        Self::assemble(*self.publisher.key(), &self.name, charter, head, Some(fresh.seal(key)))
    }

    fn assemble(
        root: PublicKey,
        name: &ModuleName,
        charter: Envelope,
        head: Envelope,
        fresh: Option<Envelope>,
    ) -> Result<Self, RecordError> {
        let fresh = fresh.as_ref().map(Envelope::raw);
        let bytes = encode(&(Bytes::new(root.as_bytes()), name.as_str(), charter.raw(), head.raw(), fresh));
        Self::verify(&bytes)
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.head.module != self.module {
            return Err(DOMAIN.invalid("the head is of another module"));
        }
        if self.head.epoch != self.charter.epoch {
            return Err(DOMAIN.invalid("the head is of another epoch than the charter"));
        }
        if !self.charter.heads.contains(self.head_seal.key()) {
            return Err(RecordError::Signer { what: head::DOMAIN.what });
        }
        let Some((fresh, seal)) = &self.fresh else { return Ok(()) };
        let same = fresh.module == self.module && fresh.epoch == self.head.epoch && fresh.seq == self.head.seq;
        if !same || fresh.head != self.head_hash() {
            return Err(DOMAIN.invalid("the fresh record is of another head"));
        }
        let signers = self.charter.heads.iter().chain(&self.charter.fresh);
        if signers.into_iter().any(|key| key == seal.key()) {
            Ok(())
        } else {
            Err(RecordError::Signer { what: "fresh record" })
        }
    }

    /// The module's id.
    pub fn module(&self) -> ModuleId {
        self.module
    }

    /// Whose.
    pub fn publisher(&self) -> &PublisherId {
        &self.publisher
    }

    /// The module's name.
    pub fn name(&self) -> &ModuleName {
        &self.name
    }

    /// The charter.
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The head's hash: what the next head and Fresh records name.
    pub fn head_hash(&self) -> Hash32 {
        head::DOMAIN.hash(self.head_seal.payload())
    }

    /// The charter's hash: two charters of one epoch are as bad as two heads of one number.
    pub fn charter_hash(&self) -> Hash32 {
        charter::DOMAIN.hash(self.charter_seal.payload())
    }

    /// Epoch and number.
    pub fn generation(&self) -> Generation {
        self.head.generation()
    }

    /// CID of the root node.
    pub fn root(&self) -> &Cid {
        &self.head.root
    }

    /// The Fresh record, valid or not.
    pub fn fresh(&self) -> Option<&Fresh> {
        self.fresh.as_ref().map(|(fresh, _)| fresh)
    }

    /// True if a Fresh record covers `now` (seconds since the epoch).
    pub fn is_fresh(&self, now: u64) -> bool {
        self.fresh().is_some_and(|fresh| fresh.until >= now && !self.is_from_future(now))
    }

    /// True if head or Fresh record are dated in the future: "check the clock".
    pub fn is_from_future(&self, now: u64) -> bool {
        let latest = self.fresh().map_or(0, |fresh| fresh.issued).max(self.head.created);
        latest > now.saturating_add(CLOCK_SLACK)
    }

    /// The bundle as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
