//! Mirrors that fetch new heads by themselves, on a running node.

use std::time::Duration;

use super::Output;
use super::pass::{Pass, pass};
use crate::error::Failure;
use crate::service::Service;
use crate::store::state::{Registration, Role};
use crate::sync::SyncError;
use crate::sync::plan::Rules;

/// How long after a failed pass the next is tried, without any news.
const RETRY: Duration = Duration::from_secs(60);

/// Runs for as long as the node: whenever a head is heard of, every watching mirror below it makes a pass.
pub async fn watch(service: &Service, out: &Output) {
    let news = service.news();
    loop {
        // News may be missed while a pass runs: the time-out looks again.
        let _ = tokio::time::timeout(RETRY, news.notified()).await;
        match behind(service) {
            Ok(waiting) => {
                for registration in waiting {
                    follow(service, &registration, out).await;
                }
            }
            Err(error) => tracing::error!(%error, "registrations"),
        }
    }
}

/// Watching mirrors whose newest head is not the one placed.
fn behind(service: &Service) -> Result<Vec<Registration>, SyncError> {
    let node = &service.node;
    let mut waiting = Vec::new();
    for (publisher, name) in node.state.registered()? {
        let marks = node.state.module(&publisher, &name)?;
        let Some(registration) = marks.registration()?.filter(|found| found.watch && found.role == Role::Mirror) else {
            continue;
        };
        let placed = marks.placed()?.map(|placed| (placed.epoch, placed.seq));
        let seen = marks.seen()?.and_then(|bytes| tracker_less::record::CheckedBundle::verify(&bytes).ok());
        let seen = seen.map(|bundle| (bundle.generation().epoch, bundle.generation().seq));
        if seen > placed {
            waiting.push(registration);
        }
    }
    Ok(waiting)
}

async fn follow(service: &Service, registration: &Registration, out: &Output) {
    let wish = of(registration);
    let reference = wish.reference.clone();
    match pass(service, wish, out).await {
        Ok(_) => tracing::info!(reference, "followed the newest head"),
        Err(Failure { message, .. }) => tracing::warn!(reference, message, "could not follow the newest head"),
    }
}

/// The pass that a registration stands for.
pub fn of(registration: &Registration) -> Pass {
    Pass {
        mirror: true,
        reference: registration.reference.clone(),
        dest: registration.directory.clone(),
        dest_slash: true,
        rules: Rules { delete: true, safe_links: true, ..Rules::archive() },
        selection: registration.selection.clone(),
        late: registration.late.clone(),
        watch: registration.watch,
        by_itself: true,
        ..Pass::default()
    }
}
