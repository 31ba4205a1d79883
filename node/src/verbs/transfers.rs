//! `transfers`: what the node brings and serves now.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Event, Output};
use crate::error::Failure;
use crate::manifest::path::escape;
use crate::service::Service;

/// A row per pass under way, then one per peer with open streams.
///
/// # Errors
/// None of its own.
pub async fn transfers(service: &Service, out: &Output) -> Result<Value, Failure> {
    for pass in service.passes().all() {
        let done = pass.progress.done.load(Ordering::Relaxed);
        let total = pass.progress.total.load(Ordering::Relaxed);
        let rate = rate(done, pass.since.elapsed());
        let dest = escape(pass.dest.as_os_str().as_encoded_bytes());
        out.line(format!("in   {}  {dest}  {done} of {total} bytes  {rate} bytes/s", pass.reference)).await;
        out.say(Event::Row(json!({
            "kind": "pass", "reference": pass.reference, "dest": dest, "done": done, "total": total, "rate": rate,
            "seconds": pass.since.elapsed().as_secs(),
        })))
        .await;
    }
    for row in service.served() {
        let rate = rate(row.bytes, row.span);
        out.line(format!("out  {}  {} streams  {} bytes  {rate} bytes/s", row.peer, row.streams, row.bytes)).await;
        out.say(Event::Row(json!({
            "kind": "serve", "peer_id": row.peer.to_string(), "streams": row.streams, "bytes": row.bytes, "rate": rate,
            "seconds": row.span.as_secs(),
        })))
        .await;
    }
    Ok(Value::Null)
}

/// Bytes per second, whole.
fn rate(bytes: u64, span: Duration) -> u64 {
    let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}
