//! The event loop's second life. A panic in it (of ours, or of the stack) ends neither the handles nor what this node stands for:
//! a new loop listens where the old one did and is told what that was told.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    run::{Command, Run, unix_now},
    store::Saved,
};
use crate::machine::{Event, Verified};

/// A loop that ran for this long is replaced at once; one that fell sooner, after a pause.
const STEADY: Duration = Duration::from_secs(60);
/// The first pause; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Nominations that a new loop is told of one module.
const MAX_TOLD: usize = 64;

/// Runs the event loop, and another one after each panic, until it is told to stop or the last handle is gone.
pub(super) async fn keep_running(
    mut run: Run,
    mut commands: mpsc::Receiver<Command>,
    control: watch::Sender<libp2p_stream::Control>,
) {
    let (mut falls, mut began) = (0u32, Instant::now());
    loop {
        let life = AssertUnwindSafe(run.run(&mut commands)).catch_unwind().await;
        if life.is_ok() {
            return run.say_goodbye().await;
        }
        falls = if began.elapsed() >= STEADY { 0 } else { falls.saturating_add(1) };
        began = Instant::now();
        let pause = pause(falls);
        tracing::error!(?pause, "the swarm's task panicked: a new one takes its place");
        sleep(pause).await;
        run = successor(run).await;
        // Without handles nobody takes it, and the loop ends.
        let _ = control.send(run.control());
    }
}

/// How long to wait after this many falls that followed each other closely.
fn pause(falls: u32) -> Duration {
    match falls.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => PAUSE_MAX.min(PAUSE.saturating_mul(2u32.saturating_pow(doublings.min(16)))),
    }
}

/// A loop in the place of a fallen one. It is made again and again until there is one: nothing here depends on the network.
async fn successor(mut fallen: Run) -> Run {
    let legacy = Legacy::of(&mut fallen);
    let seed = fallen.seed.clone();
    // The sockets close here, before others are opened in their places.
    if catch_unwind(AssertUnwindSafe(|| drop(fallen))).is_err() {
        tracing::warn!("the fallen task could not be cleared away");
    }
    loop {
        match Run::new(seed.clone()) {
            Ok(mut run) => {
                run.listen_again().await;
                legacy.tell(&mut run);
                return run;
            }
            Err(error) => {
                tracing::error!(%error, "no new swarm yet");
                sleep(PAUSE_MAX).await;
            }
        }
    }
}

/// What is left of a fallen loop.
struct Legacy {
    events: Vec<Event>,
    saved: Saved,
}

impl Legacy {
    /// What it was told is kept apart from all that may have fallen. What it learned is taken as far as it can be read.
    fn of(fallen: &mut Run) -> Self {
        let mut events = fallen.duties.events();
        let learned = catch_unwind(AssertUnwindSafe(|| {
            let (own, now) = (fallen.peer_id(), unix_now());
            let machine = fallen.machine();
            let known = fallen.duties.modules().flat_map(|module| {
                machine.mirrors(&module, now).into_iter().filter(|said| said.peer() != own).take(MAX_TOLD)
            });
            let nominations = known.map(|said| Event::Nomination { bytes: said.bytes().to_vec(), from: said.peer() });
            let rosters = fallen.duties.modules().flat_map(|module| machine.rosters(&module));
            let rosters = rosters
                .map(|(roster, list)| Event::Verified { record: Verified::Roster(roster, Some(list)), from: own });
            (rosters.chain(nominations).collect(), fallen.saved())
        }));
        let (learned, saved): (Vec<Event>, Saved) = learned.unwrap_or_default();
        events.extend(learned);
        Self { events, saved }
    }

    fn tell(self, run: &mut Run) {
        run.restore(&self.saved);
        for event in self.events {
            run.feed(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_fall_costs_no_time_and_many_cost_little_work() {
        assert_eq!([0, 1, 2, 3, 4].map(|falls| pause(falls).as_secs()), [0, 0, 1, 2, 4]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
