//! What ends an attempt from outside.

use std::future::pending;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Why an attempt is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its stage's time is up.
    TimedOut,
    /// The orchestrator wants it to end.
    Cancelled,
    /// A newer fence of the attempt is known: nobody wants to hear of it.
    Superseded,
    /// It holds a lock, and nobody confirmed its lease: soon the lock may be another's.
    Unrenewed,
    /// The agent itself ends.
    ShuttingDown,
}

/// Listens for the end.
#[derive(Debug)]
pub(crate) struct Halt {
    /// When the stage's time is up; `None` if that is farther away than the clock reaches.
    deadline: Option<Instant>,
    told: watch::Receiver<Option<Stop>>,
}

impl Halt {
    /// Listens until `deadline`. A closed channel is the agent's own end.
    pub(crate) fn new(deadline: Option<Instant>, told: watch::Receiver<Option<Stop>>) -> Self {
        Self { deadline, told }
    }

    /// Whether it is to end already.
    pub(crate) fn now(&self) -> Option<Stop> {
        let timed_out = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        self.told.borrow().or_else(|| timed_out.then_some(Stop::TimedOut))
    }

    /// Returns when the attempt is to end, and then each time. Cancel safe.
    pub(crate) async fn stopped(&mut self) -> Stop {
        let deadline = self.deadline;
        let timed_out = async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            told = self.told.wait_for(Option::is_some) => told.ok().and_then(|stop| *stop).unwrap_or(Stop::ShuttingDown),
            () = timed_out => Stop::TimedOut,
        }
    }
}
