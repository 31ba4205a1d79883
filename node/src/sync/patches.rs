//! New versions of files that stand here in an old one: a patch from a source that has both, else the sums of the new one
//! and what they do not find here. Whatever fails is fetched whole afterwards.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use cid::Cid;
use futures::stream::{self, StreamExt};
use tracker_less::record::ModuleId;

use super::pass::blocking;
use super::plan::Want;
use super::source::{Finder, Source};
use super::supply::SourceName;
use super::{SourceRow, SyncError};
use crate::delta::{MAX_FILE, blocks, patch};
use crate::manifest::ContentId;
use crate::manifest::path::TreePath;
use crate::store::files::Dir;
use crate::store::locate::locate;
use crate::store::stage::Stage;
use crate::wire::client::PeerClient;
use crate::wire::{Error as WireError, rules};

/// Files worked on at once: bounds memory to as many old and new files of [`MAX_FILE`].
const AT_ONCE: usize = 4;
/// Sources that lack the old versions of so many files in a row are asked for no more patches.
const MAX_ABSENT: u32 = 8;
/// Smallest file whose sums are worth a round trip.
const MIN_SUMS: u64 = 8 << 10;
/// Where more than this share (percent) of a file is missing, it is fetched whole.
const MAX_MISSING: u64 = 75;

/// A content to fetch, and the path where an old version of it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The content.
    pub want: Want,
    /// Path below the destination.
    pub path: TreePath,
}

/// One source's part.
struct Giver {
    name: SourceName,
    client: PeerClient,
    absent: AtomicU32,
    bad: AtomicBool,
    received: AtomicU64,
    requests: AtomicU64,
}

/// Why a file is left to be fetched whole.
enum Miss {
    /// Nothing to patch from, or nobody to ask.
    No,
    /// What came does not make the file.
    Lie,
    /// The local disk failed.
    Disk(SyncError),
}

impl From<WireError> for Miss {
    fn from(error: WireError) -> Self {
        if matches!(error, WireError::Lie { .. }) { Self::Lie } else { Self::No }
    }
}

/// Brings what can be patched into the stage. Sources that lie leave `sources`; the rows tell each one's part.
///
/// # Errors
/// The stage fails.
pub async fn run(
    (module, root): (ModuleId, Cid),
    dest: &Dir,
    stage: &Arc<Stage>,
    bases: Vec<Basis>,
    sources: &mut Vec<Source>,
    finder: &Finder,
) -> Result<Vec<SourceRow>, SyncError> {
    let whole = |source: &&Source| source.offers.iter().any(|offer| *offer.bundle.root() == root && offer.whole);
    let streams = sources.iter().filter(whole).filter_map(|source| Some((&source.name, source.supply.peer()?)));
    let givers: Vec<Giver> = streams.map(|(name, client)| Giver::new(name.clone(), client.clone())).collect();
    if givers.is_empty() {
        return Ok(Vec::new());
    }
    let givers = &givers;
    let work = bases.into_iter().enumerate().filter(|(_, basis)| basis.want.size <= MAX_FILE).map(|(turn, basis)| {
        let giver = &givers[turn % givers.len()];
        async move {
            let result = giver.bring(module, dest.clone(), stage, basis).await;
            if matches!(result, Err(Miss::Lie)) {
                giver.bad.store(true, Ordering::Relaxed);
            }
            result
        }
    });
    let mut work = stream::iter(work).buffer_unordered(AT_ONCE);
    while let Some(result) = work.next().await {
        if let Err(Miss::Disk(error)) = result {
            return Err(error);
        }
    }
    for liar in givers.iter().filter(|giver| giver.is_bad()) {
        tracing::warn!(source = %liar.name, "source dropped: its patches do not verify");
        finder.ban(&liar.name);
        sources.retain(|source| source.name != liar.name);
    }
    Ok(givers.iter().map(Giver::row).collect())
}

impl Giver {
    fn new(name: SourceName, client: PeerClient) -> Self {
        let (absent, bad) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { name, client, absent, bad, received: AtomicU64::new(0), requests: AtomicU64::new(0) }
    }

    fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed)
    }

    fn row(&self) -> SourceRow {
        SourceRow {
            received: self.received.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            bad: u64::from(self.is_bad()),
            banned: self.is_bad(),
            ..SourceRow::new(self.name.clone())
        }
    }

    async fn bring(&self, module: ModuleId, dest: Dir, stage: &Arc<Stage>, basis: Basis) -> Result<(), Miss> {
        if self.is_bad() {
            return Err(Miss::No);
        }
        let want = basis.want.clone();
        let old = blocking(move || Ok(read(&dest, &basis.path))).await.map_err(Miss::Disk)?.ok_or(Miss::No)?;
        let old = Arc::new(old);
        let new = match self.patched(module, &old, &want).await? {
            Some(new) => new,
            None => self.matched(module, &old, &want).await?,
        };
        let (stage, id) = (Arc::clone(stage), want.id);
        let staged = blocking(move || Ok(stage.put_whole(&id, &new)?)).await.map_err(Miss::Disk)?;
        if staged { Ok(()) } else { Err(Miss::Lie) }
    }

    /// By a patch from both versions; none where the source lacks the old one.
    async fn patched(&self, module: ModuleId, old: &Arc<Vec<u8>>, want: &Want) -> Result<Option<Vec<u8>>, Miss> {
        if self.absent.load(Ordering::Relaxed) >= MAX_ABSENT {
            return Ok(None);
        }
        let bytes = Arc::clone(old);
        let old_id = blocking(move || Ok(ContentId::of(&bytes))).await.map_err(Miss::Disk)?;
        let answer = self.client.patch(module, (old_id, old.len() as u64), (want.id, want.size)).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(patch) = answer else {
            self.absent.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        self.absent.store(0, Ordering::Relaxed);
        self.received.fetch_add(patch.len() as u64, Ordering::Relaxed);
        let (old, size) = (Arc::clone(old), usize::try_from(want.size).map_err(|_| Miss::No)?);
        let new = blocking(move || Ok(patch::apply(&old, &patch, size))).await.map_err(Miss::Disk)?;
        new.map(Some).ok_or(Miss::Lie)
    }

    /// By the sums of the new version.
    async fn matched(&self, module: ModuleId, old: &Arc<Vec<u8>>, want: &Want) -> Result<Vec<u8>, Miss> {
        if want.size < MIN_SUMS {
            return Err(Miss::No);
        }
        let (id, size, block) = (want.id, want.size, blocks::block_length(want.size));
        let client = &self.client;
        let sums = client.sums(module, id, size, block).await?.ok_or(Miss::No)?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.received.fetch_add(sums.len() as u64, Ordering::Relaxed);
        let bytes = Arc::clone(old);
        let found = blocking(move || Ok(blocks::find(&bytes, &sums, size, block))).await.map_err(Miss::Disk)?;
        let missing = blocks::missing(&found, size, block);
        let lacking: u64 = missing.iter().map(|range| range.end - range.start).sum();
        if lacking.saturating_mul(100) > size.saturating_mul(MAX_MISSING) {
            return Err(Miss::No);
        }
        let mut literal = Vec::new();
        for slices in requests(&missing) {
            let part = client.slices(module, id, size, slices).await?.ok_or(Miss::No)?;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.received.fetch_add(part.len() as u64, Ordering::Relaxed);
            literal.extend(part);
        }
        let old = Arc::clone(old);
        let new = blocking(move || Ok(blocks::assemble(&old, &found, &literal, size, block))).await;
        new.map_err(Miss::Disk)?.ok_or(Miss::Lie)
    }
}

/// Ranges as slices, as many to a request as one holds.
fn requests(missing: &[std::ops::Range<u64>]) -> Vec<Vec<(u64, u32)>> {
    let mut requests: Vec<Vec<(u64, u32)>> = Vec::new();
    let mut room = 0;
    for range in missing {
        let mut start = range.start;
        while start < range.end {
            if room == 0 || requests.last().is_none_or(|last| last.len() >= rules::MAX_SLICES) {
                requests.push(Vec::new());
                room = rules::MAX_BATCH;
            }
            let length = room.min(range.end - start);
            if let (Some(last), Ok(short)) = (requests.last_mut(), u32::try_from(length)) {
                last.push((start, short));
            }
            start += length;
            room -= length;
        }
    }
    requests
}

/// An old version; none where it is gone or too large.
fn read(dest: &Dir, path: &TreePath) -> Option<Vec<u8>> {
    let (dir, name) = locate(dest, path).ok()?;
    let mut bytes = Vec::new();
    dir.open_file(&name).ok()?.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_FILE && !bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_fill_requests() {
        let whole = rules::MAX_BATCH;
        let first = u32::try_from(whole).expect("it fits");
        assert_eq!(requests(&[]), Vec::<Vec<(u64, u32)>>::new());
        assert_eq!(requests(&[0..10, 20..30]), [vec![(0, 10), (20, 10)]]);
        assert_eq!(
            requests(&[0..whole + 5, whole + 7..whole + 8]),
            [vec![(0, first)], vec![(whole, 5), (whole + 7, 1)]]
        );
        let many: Vec<_> = (0..rules::MAX_SLICES as u64 + 1).map(|at| at * 2..at * 2 + 1).collect();
        assert_eq!(requests(&many).iter().map(Vec::len).collect::<Vec<_>>(), [rules::MAX_SLICES, 1]);
    }
}
