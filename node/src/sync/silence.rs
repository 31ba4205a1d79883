//! `--timeout`: an end to waiting for bytes that do not come.

use std::time::{Duration, Instant};

use super::SyncError;
use crate::wire::pulse::Pulse;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long nothing has come. Pure: the time is passed in.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    heard: u64,
    since: Instant,
}

impl Silence {
    fn new(limit: Duration, heard: u64, now: Instant) -> Self {
        Self { limit, heard, since: now }
    }

    /// True if nothing has come for too long, `heard` bytes having come in all.
    fn is_over(&mut self, heard: u64, now: Instant) -> bool {
        if heard != self.heard {
            (self.heard, self.since) = (heard, now);
        }
        now.duration_since(self.since) >= self.limit
    }
}

/// Does `work`, unless nothing comes from anybody for as long as the limit, if there is one.
///
/// # Errors
/// [`SyncError::Silent`], and those of the work.
pub async fn unless_silent<T>(
    limit: Option<Duration>,
    pulse: &Pulse,
    work: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, SyncError> {
    let Some(limit) = limit else { return work.await };
    let mut silence = Silence::new(limit, pulse.count(), Instant::now());
    let over = async {
        while !silence.is_over(pulse.count(), Instant::now()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = over => Err(SyncError::Silent { seconds: limit.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_now_and_then_is_enough() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut silence = Silence::new(3 * second, 7, start);
        assert!(!silence.is_over(7, start + 2 * second));
        assert!(!silence.is_over(8, start + 3 * second));
        assert!(!silence.is_over(8, start + 5 * second));
        assert!(silence.is_over(8, start + 6 * second));
    }
}
