//! The plan as the state machine walks it: stages by their index, with their neighbours.

use std::collections::BTreeMap;

use graph::Graph;
use model::{
    StageId,
    plan::{NeedReason, Plan, Stage},
};

/// A stage's place in [`Plan::stages`].
pub type Index = usize;

/// A plan and its graph. It never changes, so the states of a run share one.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    plan: Plan,
    index: BTreeMap<StageId, Index>,
    graph: Graph<Index, NeedReason>,
}

impl Shape {
    /// Reads the edges of a plan, as [`model::plan::PlanDocument`] has checked it: every need stands before its stage.
    pub fn new(plan: Plan) -> Self {
        let index: BTreeMap<StageId, Index> = plan.stages.iter().enumerate().map(|(at, stage)| (stage.id.clone(), at)).collect();
        let mut graph = Graph::new();
        for (at, stage) in plan.stages.iter().enumerate() {
            graph.add_node(at);
            // One edge is enough to wait, however many reasons there are.
            let mut before: Vec<(Index, NeedReason)> = stage.needs.iter().map(|need| (index[&need.stage], need.reason.clone())).collect();
            before.sort_unstable();
            before.dedup_by_key(|(need, _)| *need);
            for (need, reason) in before {
                graph.add_edge(&need, &at, reason).expect("both stages were added");
            }
        }
        Self { plan, index, graph }
    }

    /// How many stages there are.
    pub fn len(&self) -> usize {
        self.plan.stages.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.plan.stages.is_empty()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The stage at `at`.
    pub fn stage(&self, at: Index) -> &Stage {
        &self.plan.stages[at]
    }

    /// Where the stage stands.
    pub fn find(&self, id: &StageId) -> Option<Index> {
        self.index.get(id).copied()
    }

    /// What must succeed before the stage at `at`; each once.
    pub fn needs(&self, at: Index) -> impl Iterator<Item = Index> {
        self.graph.needs(&at).map(|(need, _)| *need).collect::<Vec<_>>().into_iter()
    }

    /// What waits for the stage at `at`; each once.
    pub fn dependents(&self, at: Index) -> impl Iterator<Item = Index> {
        self.graph.dependents(&at).copied().collect::<Vec<_>>().into_iter()
    }

    /// Everything that waits for the stage at `at`, directly or through others.
    pub fn transitive_dependents(&self, at: Index) -> Vec<Index> {
        self.graph.transitive_dependents(&at).into_iter().copied().collect()
    }
}
