//! Ready stages that found no agent, the longest waiting first.

use std::collections::{BTreeSet, VecDeque};

use model::RunId;

use crate::core::shape::Index;

/// Stages that are remembered in the order in which they began to wait; the rest is asked again by its timer.
const STARVING_MAX: usize = 16 * 1024;

/// A queue that has each stage once.
#[derive(Debug, Default)]
pub(super) struct Starving {
    queue: VecDeque<(RunId, Index)>,
    queued: BTreeSet<(RunId, Index)>,
}

impl Starving {
    pub(super) fn push(&mut self, run: RunId, at: Index) {
        let entry = (run, at);
        if self.queue.len() < STARVING_MAX && self.queued.insert(entry.clone()) {
            self.queue.push_back(entry);
        }
    }

    pub(super) fn pop(&mut self) -> Option<(RunId, Index)> {
        let entry = self.queue.pop_front()?;
        self.queued.remove(&entry);
        Some(entry)
    }
}
