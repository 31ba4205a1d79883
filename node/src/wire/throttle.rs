//! `--bwlimit`: how much may be asked for, or sent, by now. The machine is pure: the time is passed in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much may be saved up for a burst.
const BURST: Duration = Duration::from_millis(500);

/// A limit of bytes per second, kept on average: a request may begin while nothing is owed, and its bytes are owed from then.
#[derive(Debug, Clone)]
pub struct Throttle {
    /// Bytes per second.
    rate: u64,
    /// When everything asked for so far is paid off.
    free: Instant,
}

impl Throttle {
    /// A limit of `rate` bytes per second, one at least.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(1), free: now }
    }

    /// How long nothing more may be asked for.
    pub fn wait(&self, now: Instant) -> Duration {
        self.free.saturating_duration_since(now)
    }

    /// Takes note of bytes asked for.
    pub fn take(&mut self, bytes: u64, now: Instant) {
        let start = now.checked_sub(BURST).map_or(self.free, |earliest| self.free.max(earliest));
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.rate);
        let owed = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.free = start.checked_add(owed).unwrap_or(start);
    }
}

/// One limit for all that share it.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Mutex<Throttle>>);

impl Pace {
    /// A limit of `rate` bytes per second.
    pub fn new(rate: u64) -> Self {
        Self(Arc::new(Mutex::new(Throttle::new(rate, Instant::now()))))
    }

    /// Bytes per second.
    pub fn rate(&self) -> u64 {
        self.lock().rate
    }

    /// How long nothing more may move.
    pub fn wait(&self) -> Duration {
        self.lock().wait(Instant::now())
    }

    /// Takes note of bytes.
    pub fn take(&self, bytes: u64) {
        self.lock().take(bytes, Instant::now());
    }

    /// Takes note of bytes, and waits until they may move: first come, first served.
    pub async fn turn(&self, bytes: u64) {
        let wait = {
            let (mut throttle, now) = (self.lock(), Instant::now());
            let wait = throttle.wait(now);
            throttle.take(bytes, now);
            wait
        };
        tokio::time::sleep(wait).await;
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        // A sum stays a sum, whatever happened to the holder of the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_kept() {
        let start = Instant::now();
        let (mut throttle, mut now, mut bytes) = (Throttle::new(1 << 20, start), start, 0u64);
        while now < start + Duration::from_secs(10) {
            if throttle.wait(now).is_zero() {
                throttle.take(300_000, now);
                bytes += 300_000;
            }
            now += Duration::from_millis(10);
        }
        let limit = 10 << 20;
        assert!((limit - 300_000..limit + 900_000).contains(&bytes), "{bytes} of {limit}");
    }
}
