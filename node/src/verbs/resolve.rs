//! `resolve`: the newest head that can be found, and what each source said.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracker_less::record::{CheckedBundle, Generation};

use super::inspect::{copy_of, origin_of};
use super::pass::reference;
use super::{Event, Output};
use crate::error::Failure;
use crate::reference::Reference;
use crate::service::Service;
use crate::sync::answer::{Answer, Way};
use crate::sync::resolve::{InPlace, resolve as find_head};
use crate::sync::source::Finder;
use crate::sync::unix_now;

/// What to resolve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolve {
    /// As text.
    pub reference: String,
    /// Show what each source said.
    pub verbose: bool,
}

/// The newest head that can be found, and who answered what.
///
/// # Errors
/// Nobody answered, or nobody knows the module.
pub async fn resolve(service: &Service, wish: &Resolve, out: &Output) -> Result<Value, Failure> {
    let reference = reference(&wish.reference)?;
    let node = &service.node;
    let hints = service.hints_with(&reference.peers);
    let known = node.seen(&reference.module)?;
    let mut finder = Finder::start(Arc::clone(node), reference.module.clone(), hints);
    let found = find_head(node, &reference.module, reference.at, &InPlace::default(), &mut finder).await;
    let cached = known.map(|head| Answer { head: Some(head), ..Answer::from("this machine", Way::Cache) });
    let answers: Vec<Answer> = cached.into_iter().chain(finder.answers()).collect();
    let rows: Vec<Value> = answers.iter().map(row).collect();
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            show(wish, &answers, out).await;
            out.say(Event::Row(json!({ "event": "answers", "answers": rows }))).await;
            return Err(error.into());
        }
    };
    let unofficial = origin_of(service, &reference, &found).await;
    let (bundle, now) = (&found.bundle, unix_now());
    let forked = node.fork(&reference.module)?.is_some();
    let exact = Reference { at: reference.at, peers: Vec::new(), ..reference.clone() };
    out.line(format!("{exact}  {}  {}", bundle.generation(), bundle.root())).await;
    if let Some(from) = &unofficial {
        out.line(copy_of(from)).await;
    }
    if bundle.is_from_future(now) {
        out.note("the head is dated in the future: check the clock").await;
    }
    if !bundle.is_fresh(now) {
        out.line("stale: no valid Fresh record").await;
    }
    if forked {
        out.line("forked: two heads with one number were seen; the last generation below counts").await;
    }
    show(wish, &answers, out).await;
    let Generation { epoch, seq } = bundle.generation();
    Ok(json!({
        "reference": reference.module.to_string(),
        "epoch": epoch,
        "seq": seq,
        "root": bundle.root().to_string(),
        "created": bundle.head().created,
        "unofficial": unofficial,
        "fresh_until": bundle.fresh().map(|fresh| fresh.until),
        "stale": !bundle.is_fresh(now),
        "forked": forked,
        "answers": rows,
    }))
}

/// `WHO  WAY (how it was found)  HEAD  fresh or stale  holds ...`, a line per source.
async fn show(wish: &Resolve, answers: &[Answer], out: &Output) {
    if !wish.verbose {
        return;
    }
    for answer in answers {
        let found = answer.found.map(|found| format!(" ({})", found.name())).unwrap_or_default();
        let said = match (&answer.error, &answer.head) {
            (Some(error), _) => error.clone(),
            (None, Some(head)) => {
                let age = if head.is_fresh(unix_now()) { "fresh" } else { "stale" };
                format!("{}  {age}{}", head.generation(), holds(answer))
            }
            (None, None) => "knows nothing of it".to_owned(),
        };
        out.line(format!("  {}  {}{found}  {said}", answer.who, answer.way.name())).await;
    }
}

fn holds(answer: &Answer) -> String {
    let one = |offer: &crate::sync::source::Offer| {
        format!("{}{}", offer.bundle.generation(), if offer.whole { "" } else { " in part" })
    };
    let all: Vec<String> = answer.holds.iter().map(one).collect();
    if all.is_empty() { String::new() } else { format!("  holds {}", all.join(", ")) }
}

fn row(answer: &Answer) -> Value {
    let generation = |bundle: &CheckedBundle| bundle.generation();
    let head = answer.head.as_ref();
    let held = answer.holds.iter().max_by_key(|offer| offer.bundle.generation());
    let mut row = json!({
        "way": answer.way.name(),
        "found": answer.found.map(crate::sync::answer::Found::name),
        "epoch": head.map(|head| generation(head).epoch),
        "seq": head.map(|head| generation(head).seq),
        "root": head.map(|head| head.root().to_string()),
        "fresh_until": head.and_then(|head| head.fresh()).map(|fresh| fresh.until),
        "stale": head.map(|head| !head.is_fresh(unix_now())),
        "held_seq": held.map(|held| generation(&held.bundle).seq),
        "whole": held.is_some_and(|held| held.whole),
        "error": answer.error,
    });
    let key = match answer.way {
        Way::Hello if answer.found.is_some() => "peer_id",
        Way::Hello => "address",
        Way::Web => "url",
        Way::Dht | Way::Cache => "who",
    };
    row[key] = answer.who.clone().into();
    row
}
