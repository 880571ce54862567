//! Ready stages that found no agent. Projects take turns, and of one project the longest waiting stage comes first: however many stages one
//! project has, the next slot but as many as there are other projects is another's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use model::{ProjectName, RunId};
use tokio::time::Instant;

use crate::core::shape::Index;

/// Stages of all projects that are remembered; the rest is asked again by its timer.
const STARVING_MAX: usize = 16 * 1024;
/// Stages of one project: it leaves room for others.
const STARVING_OF_A_PROJECT_MAX: usize = 4 * 1024;

/// A queue for each project that has each stage once.
#[derive(Debug, Default)]
pub(super) struct Starving {
    /// None is empty.
    queues: BTreeMap<ProjectName, VecDeque<Entry>>,
    /// The keys of `queues`, whose turn is next first.
    turns: VecDeque<ProjectName>,
    queued: BTreeSet<(RunId, Index)>,
}

#[derive(Debug)]
struct Entry {
    stage: (RunId, Index),
    since: Instant,
}

impl Starving {
    pub(super) fn push(&mut self, project: &ProjectName, run: RunId, at: Index, now: Instant) {
        let stage = (run, at);
        let of_project = self.queues.get(project).map_or(0, VecDeque::len);
        if self.queued.len() >= STARVING_MAX || of_project >= STARVING_OF_A_PROJECT_MAX || !self.queued.insert(stage.clone()) {
            return;
        }
        if of_project == 0 {
            self.turns.push_back(project.clone());
        }
        self.queues.entry(project.clone()).or_default().push_back(Entry { stage, since: now });
    }

    /// Whether the stage's turn will come.
    pub(super) fn has(&self, run: &RunId, at: Index) -> bool {
        self.queued.contains(&(run.clone(), at))
    }

    /// The stage whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(RunId, Index)> {
        let project = self.turns.front()?.clone();
        self.pop_of(&project)
    }

    /// The stage whose turn it is of those that have waited for so long.
    pub(super) fn pop_waited(&mut self, pause: Duration, now: Instant) -> Option<(RunId, Index)> {
        let waited = |project: &&ProjectName| self.queues[*project].front().is_some_and(|entry| now >= entry.since + pause);
        let project = self.turns.iter().find(waited)?.clone();
        self.pop_of(&project)
    }

    /// The stage does not wait any more.
    pub(super) fn remove(&mut self, project: &ProjectName, run: &RunId, at: Index) {
        let stage = (run.clone(), at);
        if !self.queued.remove(&stage) {
            return;
        }
        let Some(queue) = self.queues.get_mut(project) else { return };
        queue.retain(|entry| entry.stage != stage);
        if queue.is_empty() {
            self.queues.remove(project);
            self.turns.retain(|turn| turn != project);
        }
    }

    fn pop_of(&mut self, project: &ProjectName) -> Option<(RunId, Index)> {
        let queue = self.queues.get_mut(project)?;
        let Entry { stage, .. } = queue.pop_front()?;
        let is_empty = queue.is_empty();
        self.turns.retain(|turn| turn != project);
        if is_empty {
            self.queues.remove(project);
        } else {
            self.turns.push_back(project.clone());
        }
        self.queued.remove(&stage);
        Some(stage)
    }
}

#[cfg(test)]
mod tests {
    use model::TriggerId;

    use super::*;

    fn project(name: &str) -> ProjectName {
        name.parse().unwrap()
    }

    fn run(name: &str) -> RunId {
        RunId::of(&TriggerId::of("test", name))
    }

    #[test]
    fn a_project_that_floods_takes_every_other_slot_of_two() {
        let (mut starving, now) = (Starving::default(), Instant::now());
        for at in 0..1_000 {
            starving.push(&project("flood"), run("flood"), at, now);
        }
        for at in 0..3 {
            starving.push(&project("small"), run("small"), at, now);
        }
        let order: Vec<_> = std::iter::from_fn(|| starving.pop()).collect();
        let of_small: Vec<usize> = (0..order.len()).filter(|at| order[*at].0 == run("small")).collect();
        assert_eq!(of_small, [1, 3, 5]);
        let of_flood: Vec<Index> = order.iter().filter(|(of, _)| *of == run("flood")).map(|(_, at)| *at).collect();
        assert!(of_flood.iter().copied().eq(0..1_000), "the longest waiting first");
        assert!(starving.queues.is_empty() && starving.turns.is_empty() && starving.queued.is_empty());
    }

    #[test]
    fn a_stage_waits_once_and_no_project_takes_all_the_room() {
        let (mut starving, now) = (Starving::default(), Instant::now());
        for at in 0..2 * STARVING_OF_A_PROJECT_MAX {
            starving.push(&project("flood"), run("flood"), at, now);
            starving.push(&project("flood"), run("flood"), at, now);
        }
        assert_eq!(starving.queued.len(), STARVING_OF_A_PROJECT_MAX);
        starving.push(&project("small"), run("small"), 0, now);
        assert!(starving.has(&run("small"), 0) && !starving.has(&run("small"), 1));
    }

    #[test]
    fn who_has_not_waited_long_enough_does_not_hold_up_who_has() {
        let (mut starving, now, pause) = (Starving::default(), Instant::now(), Duration::from_secs(1));
        starving.push(&project("new"), run("new"), 0, now + pause / 2);
        starving.push(&project("old"), run("old"), 0, now);
        assert_eq!(starving.pop_waited(pause, now), None);
        assert_eq!(starving.pop_waited(pause, now + pause), Some((run("old"), 0)));
        assert_eq!(starving.pop_waited(pause, now + pause), None);
        assert_eq!(starving.pop(), Some((run("new"), 0)), "a free slot is for whoever waits");
        starving.push(&project("new"), run("new"), 0, now);
        starving.remove(&project("new"), &run("new"), 0);
        assert!(starving.pop().is_none() && starving.queues.is_empty() && starving.turns.is_empty());
    }
}
