//! The plan as the state machine walks it: stages by their index, with their neighbours.

use std::collections::{BTreeMap, BTreeSet};

use graph::Graph;
use model::{
    StageId,
    plan::{NeedReason, Notify, Plan, Stage, StageKind},
};

/// A stage's place in [`Plan::stages`].
pub type Index = usize;

/// The path of the stage that runs the pipeline's `notify`.
const NOTIFY_PATH: &str = "notify";
/// How long the pipeline's `notify` may take, in milliseconds: it tells others, and a run is not over before.
const NOTIFY_TIMEOUT_MS: u64 = 10 * 60 * 1_000;

/// When in a run a stage has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// As soon as what it needs has ended well.
    Work,
    /// When all work is over: it undoes.
    Undo,
    /// At the very end: it tells of the outcome.
    Notify,
}

/// A plan and its graph. It never changes, so the states of a run share one.
///
/// The pipeline's `notify` is a stage of its own in it, the last one.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    plan: Plan,
    index: BTreeMap<StageId, Index>,
    graph: Graph<Index, NeedReason>,
    /// The stages of each `fanout`.
    fanouts: BTreeMap<String, Vec<Index>>,
    /// In the plan's order.
    rollbacks: Vec<Index>,
    notify: Option<Index>,
}

impl Shape {
    /// Reads the edges of a plan, as [`model::plan::PlanDocument`] has checked it: every need stands before its stage.
    pub fn new(mut plan: Plan) -> Self {
        let notify = notify_stage(&plan);
        plan.stages.extend(notify);
        let notify = (!plan.notify.is_empty()).then(|| plan.stages.len() - 1);
        let index: BTreeMap<StageId, Index> = plan.stages.iter().enumerate().map(|(at, stage)| (stage.id.clone(), at)).collect();
        let mut graph = Graph::new();
        let mut fanouts: BTreeMap<String, Vec<Index>> = BTreeMap::new();
        for (at, stage) in plan.stages.iter().enumerate() {
            graph.add_node(at);
            // One edge is enough to wait, however many reasons there are.
            let mut before: Vec<(Index, NeedReason)> = stage.needs.iter().map(|need| (index[&need.stage], need.reason.clone())).collect();
            before.sort_unstable();
            before.dedup_by_key(|(need, _)| *need);
            for (need, reason) in before {
                graph.add_edge(&need, &at, reason).expect("both stages were added");
            }
            for block in &stage.fanouts {
                fanouts.entry(block.clone()).or_default().push(at);
            }
        }
        let rollbacks = (0..plan.stages.len()).filter(|at| plan.stages[*at].kind == StageKind::Rollback).collect();
        Self { plan, index, graph, fanouts, rollbacks, notify }
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

    /// What must end well before the stage at `at`; each once.
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

    /// Everything that the stage at `at` waits for, directly or through others.
    pub fn transitive_needs(&self, at: Index) -> BTreeSet<Index> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<Index> = self.needs(at).collect();
        while let Some(need) = open.pop() {
            if reached.insert(need) {
                open.extend(self.needs(need));
            }
        }
        reached
    }

    /// When the stage at `at` has its turn.
    pub fn phase(&self, at: Index) -> Phase {
        if self.notify == Some(at) {
            return Phase::Notify;
        }
        match self.stage(at).kind {
            StageKind::Work | StageKind::Wait(_) => Phase::Work,
            StageKind::Rollback => Phase::Undo,
        }
    }

    /// The stages that undo, in the plan's order.
    pub fn rollbacks(&self) -> &[Index] {
        &self.rollbacks
    }

    /// The stage that runs the pipeline's `notify`.
    pub fn notify(&self) -> Option<Index> {
        self.notify
    }

    /// The stages of a `fanout`.
    pub fn fanout(&self, block: &str) -> &[Index] {
        self.fanouts.get(block).map_or(&[], Vec::as_slice)
    }
}

/// The stage that runs the pipeline's `notify`, with all steps that it may come to.
fn notify_stage(plan: &Plan) -> Option<Stage> {
    if plan.notify.is_empty() {
        return None;
    }
    let taken: BTreeSet<&str> = plan.stages.iter().map(|stage| stage.path.as_str()).collect();
    let numbered = (2_u32..).map(|number| format!("{NOTIFY_PATH}-{number}"));
    let path = std::iter::once(NOTIFY_PATH.to_owned()).chain(numbered).find(|path| !taken.contains(path.as_str()));
    let path = path.expect("a plan does not have all numbers");
    let Notify { success, failure, complete } = &plan.notify;
    let steps = success.iter().chain(failure).chain(complete).cloned().collect();
    Some(Stage { steps, timeout_ms: NOTIFY_TIMEOUT_MS, ..Stage::new(&path) })
}
