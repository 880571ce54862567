//! What is due when: runs that wait for a time stand here, in its order, and cost nothing until then.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{RunId, Timestamp};

/// How long the engine sleeps at most before it looks at the clock again: the system's time may be set anew.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Things by the time at which they are due; each has one.
#[derive(Debug)]
pub(super) struct Agenda<T = RunId> {
    by_time: BTreeSet<(Timestamp, T)>,
    times: BTreeMap<T, Timestamp>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Agenda<T> {
    /// Notes when it is due next; never, where there is no time.
    pub(super) fn set(&mut self, what: &T, due: Option<Timestamp>) {
        if self.times.get(what).copied() == due {
            return;
        }
        if let Some(before) = self.times.remove(what) {
            self.by_time.remove(&(before, what.clone()));
        }
        if let Some(due) = due {
            self.times.insert(what.clone(), due);
            self.by_time.insert((due, what.clone()));
        }
    }

    /// Takes out what is due.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<T> {
        let mut due = Vec::new();
        while let Some((at, what)) = self.by_time.pop_first() {
            if at > now {
                self.by_time.insert((at, what));
                break;
            }
            self.times.remove(&what);
            due.push(what);
        }
        due
    }

    /// How long nothing is due, at most [`LOOK_MAX`]; `None` if nothing ever is.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Duration> {
        let (at, _) = self.by_time.first()?;
        Some(Duration::from_millis(at.0.saturating_sub(now.0)).min(LOOK_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_once() {
        let mut agenda = Agenda::default();
        for (what, at) in [("b", 20), ("a", 10), ("c", 30)] {
            agenda.set(&what, Some(Timestamp(at)));
        }
        agenda.set(&"b", Some(Timestamp(25)));
        agenda.set(&"c", None);
        assert_eq!(agenda.pause(Timestamp(4)), Some(Duration::from_millis(6)));
        assert_eq!(agenda.due(Timestamp(9)), Vec::<&str>::new());
        assert_eq!(agenda.due(Timestamp(25)), ["a", "b"]);
        assert_eq!(agenda.due(Timestamp(100)), Vec::<&str>::new());
        assert_eq!(agenda.pause(Timestamp(100)), None);
    }

    #[test]
    fn the_clock_is_looked_at_again_before_a_far_time() {
        let mut agenda = Agenda::default();
        agenda.set(&"a", Some(Timestamp(1_000_000_000)));
        assert_eq!(agenda.pause(Timestamp(0)), Some(LOOK_MAX));
        assert_eq!(agenda.pause(Timestamp(2_000_000_000)), Some(Duration::ZERO));
    }
}
