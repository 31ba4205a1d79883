//! `mirrors`: who holds a module, how well, and by whose word.

use std::sync::Arc;

use serde_json::{Value, json};
use tracker_less::book::{Mirror, Standing};
use tracker_less::record::{CheckedBundle, CheckedNomination};

use super::inspect::Target;
use super::pass::reference;
use super::{Event, Output};
use crate::error::Failure;
use crate::manifest::path::escape;
use crate::service::Service;
use crate::store::state::Role;
use crate::sync::SyncError;
use crate::sync::resolve::{InPlace, resolve};
use crate::sync::source::Finder;
use crate::sync::unix_now;

/// What is said of one mirror.
struct Row {
    nomination: CheckedNomination,
    last_seen: u64,
    rate: Option<u64>,
    by: &'static str,
    failed: bool,
}

impl Row {
    fn of(mirror: &Mirror, now: u64) -> Self {
        let standing = mirror.standing(now);
        let by = match standing {
            Standing::Measured | Standing::Failed => "own",
            Standing::Vouched => "tracker",
            Standing::Past | Standing::Met | Standing::Heard | Standing::Gone => "self",
        };
        let rate = mirror.rate().filter(|_| by != "self");
        let (nomination, last_seen) = (mirror.nomination().clone(), mirror.last_seen());
        Self { nomination, last_seen, rate, by, failed: standing == Standing::Failed }
    }

    /// This node itself.
    fn own(nomination: CheckedNomination) -> Self {
        let last_seen = nomination.nomination().issued;
        Self { nomination, last_seen, rate: None, by: "self", failed: false }
    }
}

/// The mirrors whose word has not expired, best first.
///
/// # Errors
/// The reference is none, or nobody answered and nothing is known.
pub async fn mirrors(service: &Service, wish: &Target, out: &Output) -> Result<Value, Failure> {
    let reference = reference(&wish.reference)?;
    let (node, module) = (&service.node, reference.module.id);
    let hints = service.hints_with(&reference.peers);
    let mut finder = Finder::start(Arc::clone(node), reference.module.clone(), hints);
    let found = resolve(node, &reference.module, reference.at, &InPlace::default(), &mut finder).await;
    let (heads, now) = (node.swarm.candidates(module).await, unix_now());
    let book = node.swarm.book(module).await;
    let mut rows: Vec<Row> =
        book.iter().filter(|mirror| mirror.is_current(now)).map(|mirror| Row::of(mirror, now)).collect();
    let own = node.swarm.mirrors(module).await.into_iter().find(|said| said.peer() == node.swarm.peer_id());
    rows.extend(own.map(Row::own));
    if rows.is_empty()
        && let Err(error) = found
    {
        return Err(error.into());
    }
    // This node's own tree, whatever its charter says.
    let publishes = node.marks(&reference.module)?.registration().map_err(SyncError::from)?;
    let publishes = publishes.is_some_and(|found| found.role == Role::Publisher);
    for row in rows {
        let peer = row.nomination.peer();
        let is_origin = (publishes && peer == node.swarm.peer_id())
            || heads.first().is_some_and(|newest| newest.charter().trackers.contains(&peer));
        say(&row, &heads, if is_origin { "origin" } else { "mirror" }, now, out).await;
    }
    Ok(Value::Null)
}

async fn say(row: &Row, heads: &[CheckedBundle], role: &str, now: u64, out: &Output) {
    let (peer, said) = (row.nomination.peer(), row.nomination.nomination());
    let part = f64::from(said.coverage.ten_thousandths()) / 10_000.0;
    let newest = heads.first().map_or(said.seq, |newest| newest.generation().seq);
    // Oldest first: of what is above what is held, the one that came out first.
    let lacked = heads.iter().rev().find(|bundle| bundle.generation() > said.generation());
    let lag_s = lacked.map_or(0, |oldest| now.saturating_sub(oldest.head().created));
    let rate = row.rate.map_or_else(|| "-".to_owned(), |rate| format!("{} KiB/s", rate >> 10));
    let word = if row.failed { "failed here" } else { row.by };
    let age = now.saturating_sub(row.last_seen);
    let share = part * 100.0;
    let place = if said.region.is_empty() { String::new() } else { format!(", {}", escape(said.region.as_bytes())) };
    out.line(format!(
        "{peer}  @{}  {share:.0} %  lag {lag_s} s  {rate}  {age} s ago  ({role}, {word}{place})",
        said.seq
    ))
    .await;
    out.say(Event::Row(json!({
        "peer_id": peer.to_string(),
        "role": role,
        "region": said.region,
        "contact": said.contact,
        "seq": said.seq,
        "lag": newest.saturating_sub(said.seq),
        "lag_s": lag_s,
        "coverage": part,
        "last_seen": row.last_seen,
        "rate": row.rate,
        "by": row.by,
        "failed": row.failed,
    })))
    .await;
}
