//! What ends an attempt, or one step of it, from outside.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Why an attempt or a step is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A step's own time is up.
    StepTimedOut,
    /// Its stage's time is up.
    TimedOut,
    /// The time that `notify` has after a cancel is up.
    Overdue,
    /// The orchestrator wants it to end.
    Cancelled,
    /// The orchestrator wants it to end at once.
    Killed,
    /// A newer fence of the attempt is known: nobody wants to hear of it.
    Superseded,
    /// It holds a lock, and nobody confirmed its lease: soon the lock may be another's.
    Unrenewed,
    /// The agent's disk is nearly full, and the stage has written the most.
    DiskFull,
    /// The agent itself ends.
    ShuttingDown,
}

impl Stop {
    /// Whether processes get no time to clear up.
    pub(crate) fn is_at_once(self) -> bool {
        match self {
            Self::Overdue | Self::Killed | Self::DiskFull => true,
            Self::StepTimedOut | Self::TimedOut | Self::Cancelled | Self::Superseded | Self::Unrenewed | Self::ShuttingDown => false,
        }
    }
}

/// What a cancel in order does.
#[derive(Debug, Clone, Copy)]
enum OnCancel {
    End,
    /// It leaves this much time.
    Leave(Duration),
    /// It has come, and its time runs.
    Heard,
}

/// Listens for the end. A clone listens to the same.
#[derive(Debug, Clone)]
pub(crate) struct Halt {
    /// When time is up, and whose; `None` if that is farther away than the clock reaches.
    deadline: Option<(Instant, Stop)>,
    on_cancel: OnCancel,
    told: watch::Receiver<Option<Stop>>,
}

impl Halt {
    /// Listens until `deadline`, which is the stage's. A closed channel is the agent's own end.
    pub(crate) fn new(deadline: Option<Instant>, told: watch::Receiver<Option<Stop>>) -> Self {
        Self { deadline: deadline.map(|at| (at, Stop::TimedOut)), on_cancel: OnCancel::End, told }
    }

    /// The same, and ended with [`Stop::StepTimedOut`] at `deadline`, if that comes first.
    pub(crate) fn until(&self, deadline: Option<Instant>) -> Self {
        let mut halt = self.clone();
        halt.shorten(deadline, Stop::StepTimedOut);
        halt
    }

    /// With time of its own in place of the stage's; a cancel, even one that has come, does not end it but leaves `after_cancel`.
    pub(crate) fn for_the_last_words(&self, time: Duration, after_cancel: Duration) -> Self {
        let deadline = Instant::now().checked_add(time).map(|at| (at, Stop::TimedOut));
        Self { deadline, on_cancel: OnCancel::Leave(after_cancel), told: self.told.clone() }
    }

    /// Whether it is to end already.
    pub(crate) fn now(&mut self) -> Option<Stop> {
        let told = *self.told.borrow();
        self.heed(told).or_else(|| self.deadline.filter(|(at, _)| Instant::now() >= *at).map(|(_, stop)| stop))
    }

    /// Returns when it is to end, and then each time. Cancel safe.
    pub(crate) async fn stopped(&mut self) -> Stop {
        loop {
            let told = *self.told.borrow_and_update();
            if let Some(stop) = self.heed(told) {
                return stop;
            }
            let deadline = self.deadline;
            tokio::select! {
                biased;
                changed = self.told.changed() => if changed.is_err() { return Stop::ShuttingDown },
                stop = due(deadline) => return stop,
            }
        }
    }

    /// Like [`Halt::stopped`], for somebody who knows of `stop` already: then only the wish that it ends at once is news. Cancel safe.
    pub(crate) async fn news(&mut self, stop: Option<Stop>) -> Stop {
        match stop {
            None => self.stopped().await,
            Some(stop) if stop.is_at_once() => pending().await,
            Some(_) => {
                let is_killed = self.told.wait_for(|stop| *stop == Some(Stop::Killed)).await.is_ok();
                if is_killed { Stop::Killed } else { pending().await }
            }
        }
    }

    fn heed(&mut self, told: Option<Stop>) -> Option<Stop> {
        match (told, self.on_cancel) {
            (Some(Stop::Cancelled), OnCancel::Leave(time)) => {
                self.on_cancel = OnCancel::Heard;
                self.shorten(Instant::now().checked_add(time), Stop::Overdue);
                None
            }
            (Some(Stop::Cancelled), OnCancel::Heard) => None,
            (told, _) => told,
        }
    }

    fn shorten(&mut self, deadline: Option<Instant>, stop: Stop) {
        if let Some(at) = deadline
            && self.deadline.is_none_or(|(known, _)| at < known)
        {
            self.deadline = Some((at, stop));
        }
    }
}

async fn due(deadline: Option<(Instant, Stop)>) -> Stop {
    match deadline {
        Some((at, stop)) => {
            sleep_until(at).await;
            stop
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn the_nearest_deadline_ends_it() {
        let (_told, hears) = watch::channel(None);
        let mut stage = Halt::new(Some(Instant::now() + LONG), hears.clone());
        let mut step = stage.until(Some(Instant::now() + SHORT));
        assert_eq!(step.stopped().await, Stop::StepTimedOut);
        assert_eq!((step.now(), stage.now()), (Some(Stop::StepTimedOut), None));
        let short = Halt::new(Some(Instant::now() + SHORT), hears);
        assert_eq!(short.until(Some(Instant::now() + LONG)).stopped().await, Stop::TimedOut);
    }

    #[tokio::test]
    async fn last_words_have_a_little_time_after_a_cancel() {
        let (told, hears) = watch::channel(None);
        let mut halt = Halt::new(None, hears);
        told.send_replace(Some(Stop::Cancelled));
        assert_eq!(halt.now(), Some(Stop::Cancelled));
        let mut last = halt.for_the_last_words(LONG, LONG);
        assert_eq!(last.now(), None);
        assert_eq!(halt.for_the_last_words(LONG, SHORT).stopped().await, Stop::Overdue);
        told.send_replace(Some(Stop::Killed));
        assert_eq!(last.stopped().await, Stop::Killed);
        assert_eq!(halt.news(Some(Stop::Cancelled)).await, Stop::Killed);
    }
}
