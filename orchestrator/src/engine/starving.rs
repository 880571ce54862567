//! Ready stages that found no agent. Projects take turns, and of one project the longest waiting stage comes first: however many stages one
//! project has, the next slot but as many as there are other projects is another's.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::{ProjectName, RunId};
use tokio::time::Instant;

use crate::core::shape::Index;

/// Stages of all projects that are remembered: more than admission lets wait at once. The rest is asked again by its timer, each by itself.
const STARVING_MAX: usize = 64 * 1024;
/// Stages of one project: it leaves room for others.
const STARVING_OF_A_PROJECT_MAX: usize = 56 * 1024;
/// Entries of a queue that may be of stages which do not wait any more, beside as many as do.
const GONE_MAX: usize = 64;

/// A queue for each project that has each stage once.
#[derive(Debug, Default)]
pub(super) struct Starving {
    /// In none is nobody who waits.
    queues: BTreeMap<ProjectName, Queue>,
    /// The keys of `queues`, whose turn is next first.
    turns: VecDeque<ProjectName>,
    /// Who waits, with the number of its entry: other entries are of those that have left.
    queued: BTreeMap<(RunId, Index), u64>,
    /// Of the last entry.
    number: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// The first is of a stage that waits.
    entries: VecDeque<Entry>,
    /// How many of them wait.
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    stage: (RunId, Index),
    number: u64,
    since: Instant,
}

impl Starving {
    pub(super) fn push(&mut self, project: &ProjectName, run: RunId, at: Index, now: Instant) {
        let stage = (run, at);
        let of_project = self.queues.get(project).map_or(0, |queue| queue.waiting);
        if self.queued.len() >= STARVING_MAX || of_project >= STARVING_OF_A_PROJECT_MAX || self.queued.contains_key(&stage) {
            return;
        }
        self.number += 1;
        self.queued.insert(stage.clone(), self.number);
        if !self.queues.contains_key(project) {
            self.turns.push_back(project.clone());
        }
        let queue = self.queues.entry(project.clone()).or_default();
        queue.entries.push_back(Entry { stage, number: self.number, since: now });
        queue.waiting += 1;
    }

    /// Whether the stage's turn will come.
    pub(super) fn has(&self, run: &RunId, at: Index) -> bool {
        self.queued.contains_key(&(run.clone(), at))
    }

    /// The stage whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(RunId, Index)> {
        let project = self.turns.front()?.clone();
        self.pop_of(&project)
    }

    /// The stage whose turn it is of those that have waited for so long.
    pub(super) fn pop_waited(&mut self, pause: Duration, now: Instant) -> Option<(RunId, Index)> {
        let waited = |project: &&ProjectName| self.queues[*project].entries.front().is_some_and(|entry| now >= entry.since + pause);
        let project = self.turns.iter().find(waited)?.clone();
        self.pop_of(&project)
    }

    /// The stage does not wait any more.
    pub(super) fn remove(&mut self, project: &ProjectName, run: &RunId, at: Index) {
        if self.queued.remove(&(run.clone(), at)).is_none() {
            return;
        }
        let Some(queue) = self.queues.get_mut(project) else { return };
        queue.waiting -= 1;
        if queue.waiting == 0 {
            self.queues.remove(project);
            self.turns.retain(|turn| turn != project);
        } else {
            queue.tidy(&self.queued);
        }
    }

    fn pop_of(&mut self, project: &ProjectName) -> Option<(RunId, Index)> {
        let queue = self.queues.get_mut(project)?;
        let Entry { stage, .. } = queue.entries.pop_front()?;
        self.queued.remove(&stage);
        queue.waiting -= 1;
        let is_empty = queue.waiting == 0;
        queue.tidy(&self.queued);
        self.turns.retain(|turn| turn != project);
        if is_empty {
            self.queues.remove(project);
        } else {
            self.turns.push_back(project.clone());
        }
        Some(stage)
    }
}

impl Queue {
    /// Forgets entries of stages that do not wait any more: at the front, and all of them where they are many.
    fn tidy(&mut self, queued: &BTreeMap<(RunId, Index), u64>) {
        if self.entries.len() > 2 * self.waiting + GONE_MAX {
            self.entries.retain(|entry| waits(queued, entry));
        }
        while self.entries.front().is_some_and(|entry| !waits(queued, entry)) {
            self.entries.pop_front();
        }
    }
}

fn waits(queued: &BTreeMap<(RunId, Index), u64>, entry: &Entry) -> bool {
    queued.get(&entry.stage) == Some(&entry.number)
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
    fn a_stage_that_left_and_came_again_waits_behind_the_others_and_what_left_is_forgotten() {
        let (mut starving, now) = (Starving::default(), Instant::now());
        for at in 0..1_000 {
            starving.push(&project("a"), run("a"), at, now);
        }
        for _ in 0..10 {
            for at in 0..500 {
                starving.remove(&project("a"), &run("a"), at);
                starving.push(&project("a"), run("a"), at, now);
            }
        }
        assert!(starving.queues[&project("a")].entries.len() <= 2 * 1_000 + GONE_MAX);
        let order: Vec<Index> = std::iter::from_fn(|| starving.pop()).map(|(_, at)| at).collect();
        assert!(order.into_iter().eq((500..1_000).chain(0..500)));
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
