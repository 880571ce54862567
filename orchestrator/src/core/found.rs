//! What a stage finds of what others have left: variables, artifacts, caches.
//!
//! A stage finds what the stages that it waits for have left, directly or through others; of two with one name, the one of the stage that
//! stands later in the plan. **Invariant:** stages that leave nothing share what was left before them, so a long run does not copy it.

use std::{collections::BTreeMap, sync::Arc};

use model::event::run::{Outputs, StoredTree};
use serde::{Deserialize, Serialize};

use super::{
    shape::{Index, Phase},
    stage::Stage,
    state::Run,
};

/// What a stage finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Variables that steps captured and people answered.
    pub variables: BTreeMap<String, String>,
    /// Artifacts.
    pub artifacts: BTreeMap<String, StoredTree>,
    /// The caches that the stage uses, of this run.
    pub caches: BTreeMap<String, StoredTree>,
}

/// What stages have left, each thing with the place of the stage that left it. A variable that was dropped has no value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    variables: BTreeMap<String, (Index, Option<String>)>,
    artifacts: BTreeMap<String, (Index, StoredTree)>,
}

impl Left {
    /// Adds what another list has, where it is later.
    fn merge(&mut self, other: &Self) {
        later(&mut self.variables, &other.variables);
        later(&mut self.artifacts, &other.artifacts);
    }

    /// Adds what the stage at `at` itself leaves.
    fn add(&mut self, at: Index, stage: &Stage) {
        let told = stage.told().map(|(name, text)| (name.clone(), (at, Some(text.clone()))));
        self.variables.extend(told);
        let Outputs { variables, artifacts, caches: _, tests: _, steps: _ } = &*stage.outputs;
        self.variables.extend(variables.iter().map(|(name, text)| (name.clone(), (at, text.clone()))));
        self.artifacts.extend(artifacts.iter().map(|(name, tree)| (name.clone(), (at, tree.clone()))));
    }

    fn is_empty(&self) -> bool {
        self.variables.is_empty() && self.artifacts.is_empty()
    }
}

fn later<T: Clone>(into: &mut BTreeMap<String, (Index, T)>, from: &BTreeMap<String, (Index, T)>) {
    for (name, (at, thing)) in from {
        if into.get(name).is_none_or(|(known, _)| known < at) {
            into.insert(name.clone(), (*at, thing.clone()));
        }
    }
}

fn leaves_anything(stage: &Stage) -> bool {
    !stage.outputs.variables.is_empty() || !stage.outputs.artifacts.is_empty() || stage.told().next().is_some()
}

impl Run {
    /// What the stage at `at` finds, or would find if it began now.
    pub fn found(&self, at: Index) -> Found {
        let before = match self.shape.phase(at) {
            Phase::Work | Phase::Undo => self.left_before(at),
            // It comes after all.
            Phase::Notify => {
                let mut all = Left::default();
                self.stages.iter().enumerate().for_each(|(other, stage)| all.add(other, stage));
                Arc::new(all)
            }
        };
        let Left { variables, artifacts } = Arc::unwrap_or_clone(before);
        let mut variables: BTreeMap<String, String> = variables.into_iter().filter_map(|(name, (_, text))| Some((name, text?))).collect();
        // What a person answered at its own gates, it finds itself.
        variables.extend(self.stages[at].told().map(|(name, text)| (name.clone(), text.clone())));
        let artifacts = artifacts.into_iter().map(|(name, (_, tree))| (name, tree)).collect();
        let caches = self.shape.stage(at).uses.iter().filter_map(|used| {
            let tree = self.stages[self.shape.find(&used.from)?].outputs.caches.get(&used.cache)?;
            Some((used.cache.clone(), tree.clone()))
        });
        Found { variables, artifacts, caches: caches.collect() }
    }

    /// What the stages have left that the one at `at` waits for.
    fn left_before(&self, at: Index) -> Arc<Left> {
        let mut merged: Arc<Left> = Arc::default();
        for need in self.shape.needs(at) {
            let Some(left) = self.stages[need].left.as_ref().filter(|left| !left.is_empty()) else { continue };
            if merged.is_empty() {
                merged = Arc::clone(left);
            } else if !Arc::ptr_eq(&merged, left) {
                Arc::make_mut(&mut merged).merge(left);
            }
        }
        merged
    }

    /// Brings what the stage at `at` leaves up to date, now that it is over or is not any more.
    pub(super) fn leave(&mut self, at: Index) {
        let mut changed = vec![at];
        while let Some(at) = changed.pop() {
            let left = self.stages[at].is_over().then(|| {
                let mut left = self.left_before(at);
                if leaves_anything(&self.stages[at]) {
                    Arc::make_mut(&mut left).add(at, &self.stages[at]);
                }
                left
            });
            Arc::make_mut(&mut self.stages[at]).left = left;
            // Only what was reused can be over before what it needs.
            changed.extend(self.shape.dependents(at).filter(|dependent| self.stages[*dependent].reused_from.is_some()));
        }
    }
}
