//! Runs of one pipeline for one branch or pull request, all as trusted, in their order: what a newer one means to the older ones.
//!
//! An older run's plan says what a newer run does to it ([`Newer`]). The order is that of the runs' first records.

use std::collections::BTreeMap;

use model::{
    ProjectName, RunId,
    context::EventKind,
    plan::Newer,
    trigger::{Trigger, Trust},
};

/// What the runs of a series have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    project: ProjectName,
    pipeline_path: String,
    of: Of,
    /// What anybody may have written for a branch takes the place of nothing that was pushed to it.
    trust: Trust,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Branch(String),
    PullRequest(u64),
}

impl Key {
    /// Whose runs they are.
    pub(super) fn project(&self) -> &ProjectName {
        &self.project
    }

    /// The series of the run that this trigger causes. A tag stands for itself, and each state of a merge queue, too: they have none.
    pub(super) fn of(trigger: &Trigger) -> Option<Self> {
        let context = &trigger.context;
        let of = match (&context.pull_request, context.event) {
            (Some(pull_request), _) => Of::PullRequest(pull_request.number),
            (None, EventKind::MergeQueue | EventKind::Tag) => return None,
            (None, EventKind::Push | EventKind::PullRequest | EventKind::Cron | EventKind::Manual) if context.branch.is_empty() => {
                return None;
            }
            (None, EventKind::Push | EventKind::PullRequest | EventKind::Cron | EventKind::Manual) => Of::Branch(context.branch.clone()),
        };
        Some(Self { project: trigger.project.clone(), pipeline_path: trigger.pipeline_path.clone(), of, trust: trigger.claims.trust })
    }
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    run: RunId,
    newer: Option<Newer>,
    /// It waits for the end of older ones.
    held: bool,
    /// Its end was asked for because of a newer one.
    cancelled: bool,
}

/// What is to be done to a run because of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Consequence {
    /// A newer one takes its place.
    Cancel { run: RunId, newer: RunId },
    /// No older one is left to wait for.
    Release { run: RunId },
}

/// All series that have an open run.
#[derive(Debug, Default)]
pub(super) struct AllSeries(BTreeMap<Key, Series>);

#[derive(Debug, Default)]
struct Series {
    /// Runs that have begun, by the sequence of their first record.
    open: BTreeMap<u64, Open>,
    /// The first sequence of the newest run that was ever seen, ended or not.
    newest: Option<(u64, RunId)>,
    /// The run whose first record is on its way.
    beginning: Option<RunId>,
}

/// What is known of a run when it is put among the others.
pub(super) struct Seen<'a> {
    pub(super) run: &'a RunId,
    pub(super) first: u64,
    pub(super) newer: Option<Newer>,
    pub(super) held: bool,
    pub(super) ended: bool,
}

impl AllSeries {
    /// Whether a run of this series may begin now: one begins at a time, so that each knows those before it. Call [`AllSeries::begun`] when
    /// its first record is stored, or is not.
    pub(super) fn may_begin(&mut self, key: &Key, run: &RunId) -> bool {
        let series = self.0.entry(key.clone()).or_default();
        if series.beginning.is_some() {
            return false;
        }
        series.beginning = Some(run.clone());
        true
    }

    /// The newest run that a run which begins now waits for.
    pub(super) fn older(&self, key: &Key) -> Option<RunId> {
        let series = self.0.get(key)?;
        series.open.values().rev().find(|open| open.newer == Some(Newer::Wait)).map(|open| open.run.clone())
    }

    /// The newest run that one waits for whose first record is this.
    pub(super) fn older_than(&self, key: &Key, first: u64) -> Option<RunId> {
        let mut older = self.0.get(key)?.open.range(..first).rev().map(|(_, open)| open);
        older.find(|open| open.newer == Some(Newer::Wait)).map(|open| open.run.clone())
    }

    /// The run whose first record is on its way.
    pub(super) fn beginning(&self, key: &Key) -> Option<&RunId> {
        self.0.get(key)?.beginning.as_ref()
    }

    /// The run has begun, or not: whether it was its turn, so that the next one may.
    pub(super) fn begun(&mut self, key: &Key, run: &RunId) -> bool {
        let ended = self.0.get_mut(key).and_then(|series| series.beginning.take_if(|beginning| beginning == run));
        self.tidy(key);
        ended.is_some()
    }

    /// Takes up a run as it is now.
    pub(super) fn see(&mut self, key: &Key, seen: &Seen<'_>) {
        let series = self.0.entry(key.clone()).or_default();
        if series.newest.as_ref().is_none_or(|(first, _)| *first < seen.first) {
            series.newest = Some((seen.first, seen.run.clone()));
        }
        if seen.ended {
            series.open.remove(&seen.first);
        } else {
            let cancelled = series.open.get(&seen.first).is_some_and(|open| open.cancelled);
            series.open.insert(seen.first, Open { run: seen.run.clone(), newer: seen.newer, held: seen.held, cancelled });
        }
    }

    /// What follows from how the series is now; each cancel is named once.
    pub(super) fn consequences(&mut self, key: &Key) -> Vec<Consequence> {
        let mut consequences = Vec::new();
        let Some(series) = self.0.get_mut(key) else { return consequences };
        if let Some((newest, newer)) = &series.newest {
            let replaced = series.open.range_mut(..*newest).map(|(_, open)| open);
            for open in replaced.filter(|open| open.newer == Some(Newer::Cancel) && !open.cancelled) {
                open.cancelled = true;
                consequences.push(Consequence::Cancel { run: open.run.clone(), newer: newer.clone() });
            }
        }
        for open in series.open.values() {
            if open.held {
                consequences.push(Consequence::Release { run: open.run.clone() });
            }
            if open.newer == Some(Newer::Wait) {
                break;
            }
        }
        self.tidy(key);
        consequences
    }

    /// What was said of the runs of these projects is not known to be in their logs: it is said again to whom it concerns then.
    pub(super) fn forget_words(&mut self, is_of: impl Fn(&ProjectName) -> bool) {
        for (_, series) in self.0.iter_mut().filter(|(key, _)| is_of(&key.project)) {
            series.open.values_mut().for_each(|open| open.cancelled = false);
        }
    }

    fn tidy(&mut self, key: &Key) {
        if self.0.get(key).is_some_and(|series| series.open.is_empty() && series.beginning.is_none()) {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{TriggerId, context::TriggerContext, trigger::Claims};

    use super::*;

    fn trigger(context: TriggerContext) -> Trigger {
        Trigger { context, ..crate::core::tests::trigger() }
    }

    fn key() -> Key {
        Key::of(&trigger(TriggerContext { branch: "main".to_owned(), ..TriggerContext::default() })).unwrap()
    }

    fn run(number: u64) -> RunId {
        RunId::of(&TriggerId::of("t", &number.to_string()))
    }

    /// How a run is seen.
    #[derive(Clone, Copy, PartialEq)]
    enum As {
        Running,
        Held,
        Ended,
    }

    fn see(all: &mut AllSeries, first: u64, newer: Newer, now: As) {
        all.see(&key(), &Seen { run: &run(first), first, newer: Some(newer), held: now == As::Held, ended: now == As::Ended });
    }

    #[test]
    fn a_newer_run_cancels_the_older_ones_once() {
        let mut all = AllSeries::default();
        see(&mut all, 1, Newer::Cancel, As::Running);
        assert_eq!(all.consequences(&key()), []);
        see(&mut all, 2, Newer::Cancel, As::Running);
        assert_eq!(all.consequences(&key()), [Consequence::Cancel { run: run(1), newer: run(2) }]);
        assert_eq!(all.consequences(&key()), []);
        see(&mut all, 3, Newer::Cancel, As::Ended);
        assert_eq!(all.consequences(&key()), [Consequence::Cancel { run: run(2), newer: run(3) }], "also one that has ended since");
    }

    #[test]
    fn runs_that_wait_go_on_one_after_the_other() {
        let mut all = AllSeries::default();
        see(&mut all, 1, Newer::Wait, As::Running);
        assert_eq!(all.older(&key()), Some(run(1)));
        see(&mut all, 2, Newer::Wait, As::Held);
        assert_eq!(all.older(&key()), Some(run(2)));
        see(&mut all, 3, Newer::Wait, As::Held);
        assert_eq!(all.consequences(&key()), []);
        see(&mut all, 2, Newer::Wait, As::Ended);
        assert_eq!(all.consequences(&key()), [], "the first still runs");
        see(&mut all, 1, Newer::Wait, As::Ended);
        assert_eq!(all.consequences(&key()), [Consequence::Release { run: run(3) }]);
        see(&mut all, 3, Newer::Wait, As::Ended);
        assert_eq!(all.consequences(&key()), []);
        assert!(all.0.is_empty());
    }

    #[test]
    fn what_somebody_typed_for_a_branch_takes_the_place_of_no_push_to_it() {
        let of = |event, trust| {
            let context = TriggerContext { event, branch: "main".to_owned(), ..TriggerContext::default() };
            let claims = Claims { trust, ..Claims::default() };
            Key::of(&Trigger { claims, ..trigger(context) }).unwrap()
        };
        let pushed = of(EventKind::Push, Trust::Trusted);
        assert_ne!(of(EventKind::Manual, Trust::Untrusted), pushed);
        assert_eq!(of(EventKind::Manual, Trust::Trusted), pushed, "of the project's own code");
    }

    #[test]
    fn one_run_of_a_series_begins_at_a_time() {
        let mut all = AllSeries::default();
        assert!(all.may_begin(&key(), &run(1)));
        assert!(!all.may_begin(&key(), &run(2)));
        assert!(!all.begun(&key(), &run(2)), "it was not its turn");
        assert!(all.begun(&key(), &run(1)));
        assert!(all.may_begin(&key(), &run(2)));
    }

    #[test]
    fn what_has_no_branch_has_no_series() {
        assert_eq!(Key::of(&trigger(TriggerContext::default())), None);
        let tag = TriggerContext { event: EventKind::Tag, tag: "v1".to_owned(), ..TriggerContext::default() };
        assert_eq!(Key::of(&trigger(tag)), None);
        let queue = TriggerContext { event: EventKind::MergeQueue, branch: "main".to_owned(), ..TriggerContext::default() };
        assert_eq!(Key::of(&trigger(queue)), None);
    }
}
