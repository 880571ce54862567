//! Time: what is due, what is late, and what is to be asked again.
//!
//! A run that only waits stands in the agenda and is not looked at until its time. Only runs that an agent is busy with, or that have just
//! changed, are looked through at each tick.

use std::time::Duration;

use model::{
    RunId, Timestamp,
    event::run::{Answer as WaitAnswer, WaitKey},
};
use service::clock;
use tokio::time::Instant;
use tracing::{debug, trace};

use super::{Done, Engine, STALL, polls::PollError};
use crate::core::{Effect, Input, shape::Index};

/// Before time is given to a run again that had nothing to say to it.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// A wait that asks an address.
pub(super) type PollKey = (RunId, Index, WaitKey);

/// What came of asking an address.
pub(super) type Polled = Result<u16, PollError>;

impl Engine {
    /// How long nothing is due; `None` if nothing ever is.
    pub(super) fn pause(&self) -> Option<Duration> {
        let now = Timestamp(clock::unix_ms());
        [self.agenda.pause(now), self.polls.pause(now)].into_iter().flatten().min()
    }

    /// What is due happens.
    pub(super) fn on_time(&mut self) {
        let now = Timestamp(clock::unix_ms());
        for run in self.agenda.due(now) {
            self.input(&run, Input::TimePassed);
        }
        for key in self.polls.due(now) {
            self.poll(key);
        }
    }

    /// Notes when something happens to the run by itself.
    pub(super) fn schedule(&mut self, run: &RunId) {
        let due = self.open.get(run).filter(|open| open.is_own()).and_then(|open| open.run.next_due());
        self.agenda.set(run, due);
    }

    /// Time passed, and nothing came of it: a run must not keep the engine busy with that.
    pub(super) fn schedule_later(&mut self, run: &RunId) {
        let soon = Timestamp(clock::unix_ms()) + IDLE_PAUSE;
        let due = self.open.get(run).and_then(|open| open.run.next_due()).map(|due| due.max(soon));
        self.agenda.set(run, due);
    }

    /// Looks at the runs that are not idle: what is late is said again, given up, or forgotten.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        let stalled = now - std::mem::replace(&mut self.ticked, now) >= STALL;
        // Whoever could not be heard is not late.
        let heard = self.bus.is_connected() && !stalled;
        if !heard {
            self.leases.excuse(now);
        }
        for lease in self.leases.lapsed(now) {
            let run = lease.attempt.run.clone();
            debug!(attempt = %lease.attempt, "the lease lapsed");
            self.input(&run, Input::LeaseLapsed(lease));
        }
        self.wake_waited();
        let runs: Vec<RunId> = self.awake.iter().cloned().collect();
        for run in runs {
            let Some(open) = self.open.get_mut(&run) else {
                self.awake.remove(&run);
                continue;
            };
            if !open.is_own() {
                // It leaves memory when it has ended, and is not looked at otherwise.
            } else if heard {
                for input in open.not_taken_up(now) {
                    open.push(input, now);
                }
            } else {
                open.excuse(now);
            }
            if open.is_done(now) {
                self.leases.forget(&run);
                self.snapshots.forget(&run);
                self.forget_among_others(&run);
                self.open.remove(&run);
                continue;
            }
            if open.is_idle() {
                self.awake.remove(&run);
            }
            self.speak_again(&run);
            self.advance(&run);
        }
    }

    /// Asks an address, if its wait is still open.
    pub(super) fn poll(&mut self, key: PollKey) {
        let (run, at, wait) = &key;
        let Some(open) = self.open.get(run).filter(|open| open.is_own()) else { return };
        let asked = crate::core::effects::effects_of(&open.run, *at).into_iter().find_map(|effect| match effect {
            Effect::Poll { wait: asked, url, status, every_ms, .. } if asked == *wait => Some((url, status, every_ms)),
            Effect::Poll { .. } | Effect::Auction { .. } | Effect::Assign { .. } | Effect::Cancel { .. } => None,
        });
        let Some((url, status, every_ms)) = asked else { return };
        let poller = self.poller.clone();
        self.work.push(Box::pin(async move {
            let outcome = poller.ask(&url).await;
            Done::Polled { key, expected: status, every: Duration::from_millis(every_ms), outcome }
        }));
    }

    /// An address answered, or did not.
    pub(super) fn polled(&mut self, key: &PollKey, expected: u16, every: Duration, outcome: &Polled) {
        let (run, at, wait) = key;
        match outcome {
            Ok(status) if *status == expected => {
                self.input(run, Input::Answered { at: *at, wait: *wait, answer: WaitAnswer::Polled, by: None });
                // Should the log not take it now, the input waits; should the run be read again, the address is asked again.
                self.polls.set(key, Some(Timestamp(clock::unix_ms()) + every.max(IDLE_PAUSE)));
            }
            answered => {
                trace!(%run, ?answered, "an address does not answer as expected yet");
                self.polls.set(key, Some(Timestamp(clock::unix_ms()) + every));
            }
        }
    }
}
