//! The tasks of a running node: a panic in one is told in the log, and the task is begun anew.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};

/// A task that ran for this long is begun anew at once; one that fell sooner, after a pause.
const STEADY: Duration = Duration::from_secs(60);
/// The first pause; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs a task until it ends by itself, and begins it again after each panic.
pub async fn watched<F: Future<Output = ()>>(name: &str, mut task: impl FnMut() -> F) {
    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        // What panicked is dropped with all it held; what it shares is behind locks that survive a panic.
        let Err(panic) = AssertUnwindSafe(task()).catch_unwind().await else { return };
        let why = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(why = why.unwrap_or("unknown"), "the task of {name} panicked and is begun anew");
        pause = next_pause(pause, began.elapsed());
        sleep(pause).await;
    }
}

fn next_pause(last: Duration, ran: Duration) -> Duration {
    if ran >= STEADY { Duration::ZERO } else { PAUSE_MAX.min(2 * last).max(PAUSE) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::{Mutex, mpsc};

    use super::*;

    #[tokio::test]
    async fn a_panic_loses_one_message_and_not_the_task() {
        let (sender, receiver) = mpsc::channel(8);
        let (receiver, sum) = (Arc::new(Mutex::new(receiver)), Arc::new(AtomicU32::new(0)));
        for number in [1, 0, 2] {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        watched("adding", || {
            let (receiver, sum) = (Arc::clone(&receiver), Arc::clone(&sum));
            async move {
                let mut receiver = receiver.lock().await;
                while let Some(number) = receiver.recv().await {
                    assert!(number > 0, "on purpose");
                    sum.fetch_add(number, Ordering::Relaxed);
                }
            }
        })
        .await;
        assert_eq!(sum.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn whoever_falls_at_once_waits_longer_each_time() {
        let soon = |last| next_pause(last, Duration::ZERO);
        let pauses: Vec<u64> = std::iter::successors(Some(soon(Duration::ZERO)), |last| Some(soon(*last)))
            .take(8)
            .map(|p| p.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(next_pause(PAUSE_MAX, STEADY), Duration::ZERO);
    }
}
