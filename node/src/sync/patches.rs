//! New versions of files that stand here in an old one: patches from a source that has both, else the sums of the new one
//! and what they do not find here. Whatever fails is fetched whole afterwards.

mod large;
mod old;
mod small;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tracker_less::record::ModuleId;

use super::plan::Want;
use super::source::{Finder, Source};
use super::supply::SourceName;
use super::{SourceRow, SyncError};
use crate::delta::{self, MAX_NEW, MAX_OLD, WINDOW};
use crate::manifest::path::TreePath;
use crate::store::files::Dir;
use crate::store::stage::Stage;
use crate::wire::Error as WireError;
use crate::wire::client::PeerClient;
use crate::wire::throttle::Pace;

/// Requests worked on at once: bounds memory to as many times [`MAX_OLD`] and some [`MAX_NEW`].
const AT_ONCE: usize = 4;
/// Files of the first request, which shows who has the old versions.
const FIRST: usize = 64;
/// Most files of one request.
const MAX_FILES: usize = 2048;
/// So many results of one source's sums may be wrong by chance.
const MAX_CHANCES: u32 = 3;

/// A content to fetch, and the old version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The content.
    pub want: Want,
    /// Path of the old version below the destination.
    pub path: TreePath,
    /// Its size in bytes.
    pub old_size: u64,
}

/// What everything works with.
pub struct Ground {
    /// Whose files.
    pub module: ModuleId,
    /// Where the old versions stand.
    pub dest: Dir,
    /// Where the new ones are collected.
    pub stage: Arc<Stage>,
    /// `--bwlimit`.
    pub pace: Option<Pace>,
}

/// One source's part.
struct Giver {
    name: SourceName,
    client: PeerClient,
    pace: Option<Pace>,
    /// It does not have the old versions.
    lacks: AtomicBool,
    bad: AtomicBool,
    chances: AtomicU32,
    received: AtomicU64,
    requests: AtomicU64,
}

/// Why files are left to be fetched whole.
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
    ground: &Ground,
    bases: Vec<Basis>,
    whole: impl Fn(&Source) -> bool,
    sources: &mut Vec<Source>,
    finder: &Finder,
) -> Result<Vec<SourceRow>, SyncError> {
    let streams =
        sources.iter().filter(|source| whole(source)).filter_map(|source| Some((&source.name, source.supply.peer()?)));
    let givers: Vec<Giver> =
        streams.map(|(name, client)| Giver::new(name.clone(), client.clone(), ground.pace.clone())).collect();
    if givers.is_empty() {
        return Ok(Vec::new());
    }
    bring(ground, &givers, bases).await?;
    for liar in givers.iter().filter(|giver| giver.is_bad()) {
        tracing::warn!(source = %liar.name, "source dropped: its patches do not verify");
        finder.ban(&liar.name);
        sources.retain(|source| source.name != liar.name);
    }
    Ok(givers.iter().map(Giver::row).collect())
}

/// Small files by the group, the first of them to every source until one turns out to have the old versions; then large ones.
async fn bring(ground: &Ground, givers: &[Giver], bases: Vec<Basis>) -> Result<(), SyncError> {
    let (small, large): (Vec<Basis>, Vec<Basis>) = bases.into_iter().partition(|basis| basis.want.size <= WINDOW);
    let mut groups = groups(small).into_iter();
    if let Some(first) = groups.next() {
        let mut pieces = small::read(ground, first).await?;
        for giver in givers {
            let before = pieces.len();
            pieces = giver.note(small::patched(ground, giver, pieces).await)?.unwrap_or_default();
            giver.lacks.store(pieces.len() == before, Ordering::Relaxed);
            if pieces.len() < before {
                break;
            }
        }
        let giver = giver_of(givers, 0);
        giver.note(small::matched(ground, giver, pieces).await)?;
    }
    let mut work = stream::iter(groups.enumerate().map(|(turn, group)| async move {
        let giver = giver_of(givers, turn);
        giver.note(small::bring(ground, giver, group).await)
    }))
    .buffer_unordered(AT_ONCE);
    while let Some(result) = work.next().await {
        result?;
    }
    for (turn, basis) in large.into_iter().enumerate() {
        let giver = giver_of(givers, turn);
        if !giver.is_bad() {
            giver.note(large::bring(ground, giver, basis).await)?;
        }
    }
    Ok(())
}

/// Whose turn it is: one of those who have the old versions, if there are any, and in any case no liar.
fn giver_of(givers: &[Giver], turn: usize) -> &Giver {
    let honest = || givers.iter().filter(|giver| !giver.is_bad());
    let both: Vec<&Giver> = honest().filter(|giver| !giver.lacks()).collect();
    let best = if both.is_empty() { honest().collect() } else { both };
    best.get(turn % best.len().max(1)).copied().unwrap_or(&givers[0])
}

/// Cuts a list of small files into requests; the first is a short one.
fn groups(bases: Vec<Basis>) -> Vec<Vec<Basis>> {
    let mut groups: Vec<Vec<Basis>> = Vec::new();
    let (mut new, mut old) = (0, 0);
    for basis in bases {
        let (more, help) = (basis.want.size, delta::help(basis.old_size));
        let most = if groups.len() <= 1 { FIRST } else { MAX_FILES };
        let full = groups.last().is_none_or(|last| last.len() >= most);
        if full || new + more > MAX_NEW || old + help > MAX_OLD {
            groups.push(Vec::new());
            (new, old) = (0, 0);
        }
        (new, old) = (new + more, old + help);
        if let Some(last) = groups.last_mut() {
            last.push(basis);
        }
    }
    groups
}

impl Giver {
    fn new(name: SourceName, client: PeerClient, pace: Option<Pace>) -> Self {
        let (lacks, bad, chances) = (AtomicBool::default(), AtomicBool::default(), AtomicU32::default());
        Self { name, client, pace, lacks, bad, chances, received: AtomicU64::default(), requests: AtomicU64::default() }
    }

    /// The way to it, as soon as more may be asked for.
    async fn client(&self) -> &PeerClient {
        tokio::time::sleep(self.pace.as_ref().map_or(Duration::ZERO, Pace::wait)).await;
        &self.client
    }

    fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed)
    }

    fn lacks(&self) -> bool {
        self.lacks.load(Ordering::Relaxed)
    }

    /// A wrong match may be chance; many are not.
    fn had_bad_luck(&self) -> Result<(), Miss> {
        let often = self.chances.fetch_add(1, Ordering::Relaxed) >= MAX_CHANCES;
        if often { Err(Miss::Lie) } else { Ok(()) }
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.received.fetch_add(bytes, Ordering::Relaxed);
        if let Some(pace) = &self.pace {
            pace.take(bytes);
        }
    }

    /// Takes note of how it went; what was missed comes whole.
    fn note<T>(&self, result: Result<T, Miss>) -> Result<Option<T>, SyncError> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(Miss::No) => Ok(None),
            Err(Miss::Lie) => {
                self.bad.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(Miss::Disk(error)) => Err(error),
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ContentId;
    use crate::store::files::Attributes;

    fn basis(size: u64, old_size: u64) -> Basis {
        Basis {
            want: Want { id: ContentId([0; 32]), size, number: 0, attributes: Attributes::default() },
            path: TreePath::root(),
            old_size,
        }
    }

    #[test]
    fn requests_hold_what_a_frame_may() {
        let lengths = |bases| groups(bases).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(Vec::new()), [0; 0]);
        assert_eq!(lengths(vec![basis(1, 1); 5000]), [FIRST, MAX_FILES, MAX_FILES, 5000 - FIRST - 2 * MAX_FILES]);
        assert_eq!(lengths(vec![basis(WINDOW, 1); 5]), [2, 2, 1]);
        assert_eq!(lengths(vec![basis(1, WINDOW + 1); 5]), [2, 2, 1]);
    }
}
