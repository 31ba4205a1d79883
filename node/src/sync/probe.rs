//! A probe: random proven ranges of what a mirror claims to hold. It believes nothing that the mirror says.

use std::ops::Range;
use std::time::{Duration, Instant};

use tracker_less::book::Outcome;
use tracker_less::record::Coverage;
use tracker_less::tracker::Probe;

use super::Node;
use crate::manifest::ContentId;
use crate::manifest::entry::Node as Kind;
use crate::manifest::page::RootNode;
use crate::manifest::rank;
use crate::store::index::Index;
use crate::store::proof;
use crate::wire::client::PeerClient;
use crate::wire::msg::Hello;
use crate::wire::rules::GROUP;
use crate::wire::{Deadlines, Error, Have};

/// Ranges asked for in one probe.
const SAMPLES: usize = 8;
/// Entries looked at to find so many files.
const TRIES: usize = 64;
/// Longest range, bytes: half a MiB a probe tells enough.
const LONGEST: u64 = 64 << 10;
/// A probe is over after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A range of a file.
struct Sample {
    id: ContentId,
    size: u64,
    range: Range<u64>,
}

/// Tries a mirror. None where nothing can be said: it is busy, or the tree is not known here.
pub async fn probe(node: &Node, probe: &Probe) -> Option<Outcome> {
    match tokio::time::timeout(PATIENCE, attempt(node, probe)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Error::Lie { .. })) => Some(Outcome::Lacking),
        Ok(Err(Error::Busy { .. })) => None,
        Ok(Err(_)) | Err(_) => Some(Outcome::Unreachable),
    }
}

async fn attempt(node: &Node, probe: &Probe) -> Result<Option<Outcome>, Error> {
    if !probe.addresses.is_empty() {
        // A failure shows when the stream is opened.
        let _ = node.swarm.connect(probe.peer, probe.addresses.clone()).await;
    }
    let stream = node.swarm.open(probe.peer).await.map_err(|_| Error::Closed)?;
    let client = PeerClient::start(stream, Hello::ours(), Deadlines::default());
    let reply = client.head(probe.module, None, None, 0, u64::MAX).await?;
    let held = reply.holds.iter().find(|held| held.generation() == probe.generation && held.root == probe.root);
    let Some(held) = held.filter(|held| held.whole || probe.coverage != Coverage::WHOLE) else {
        return Ok(Some(Outcome::Lacking));
    };
    let have = if held.whole { Have::Whole } else { client.have(probe.module, probe.root).await? };
    if have == Have::None || !gives_root(&client, probe).await? {
        return Ok(Some(Outcome::Lacking));
    }
    let Some(samples) = choose(&node.index, probe, &have) else { return Ok(None) };
    let (start, mut bytes) = (Instant::now(), 0);
    for Sample { id, size, range } in samples {
        let answer = client.range(probe.module, id, size, range.clone()).await?;
        let Some(encoded) = answer else { return Ok(Some(Outcome::Lacking)) };
        let length = range.end - range.start;
        if proof::decode_range(&id, size, range, &encoded).is_err() {
            return Ok(Some(Outcome::Lacking));
        }
        bytes += length;
    }
    let micros = start.elapsed().as_micros().max(1);
    let rate = u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX);
    Ok(Some(Outcome::Good { rate }))
}

async fn gives_root(client: &PeerClient, probe: &Probe) -> Result<bool, Error> {
    let answer = client.pages(probe.module, &[probe.root]).await?.into_iter().next().flatten();
    Ok(answer.is_some_and(|bytes| RootNode::decode(&probe.root, &bytes).is_ok()))
}

/// Random ranges of random files among those that are claimed; none where the tree is not known here.
fn choose(index: &Index, probe: &Probe, have: &Have) -> Option<Vec<Sample>> {
    let mut random = blake3::Hasher::new_keyed(&probe.seed).finalize_xof();
    let mut below = move |bound: u64| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    };
    let entries = rank::count(index, &probe.root).ok()?;
    let claimed = match have {
        Have::Whole => entries,
        Have::None => 0,
        Have::Runs(runs) | Have::Partly(runs, _) => {
            runs.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count))
        }
    };
    let mut samples = Vec::new();
    for _ in 0..TRIES.min(usize::try_from(claimed.saturating_mul(8)).unwrap_or(TRIES)) {
        let number = nth(have, below(claimed));
        let entry = rank::entry(index, &probe.root, number).ok()?;
        let Some(Kind::File { size, id, .. }) = entry.map(|entry| entry.node).filter(is_probed) else { continue };
        let start = below(size.div_ceil(GROUP)) * GROUP;
        samples.push(Sample { id, size, range: start..size.min(start.saturating_add(LONGEST)) });
        if samples.len() == SAMPLES {
            break;
        }
    }
    Some(samples)
}

fn is_probed(node: &Kind) -> bool {
    matches!(node, Kind::File { size, .. } if *size > 0)
}

/// The number of the claimed entry with this rank among the claimed ones.
fn nth(have: &Have, mut rank: u64) -> u64 {
    let (Have::Runs(runs) | Have::Partly(runs, _)) = have else { return rank };
    for (start, count) in runs {
        if rank < *count {
            return start.saturating_add(rank);
        }
        rank -= count;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_entries_are_counted_over_their_gaps() {
        let have = Have::Runs(vec![(2, 2), (7, 1), (10, 3)]);
        let numbers: Vec<u64> = (0..6).map(|rank| nth(&have, rank)).collect();
        assert_eq!(numbers, [2, 3, 7, 10, 11, 12]);
        assert_eq!(nth(&have, 6), u64::MAX, "beyond");
        assert_eq!(nth(&Have::Whole, 5), 5);
    }
}
