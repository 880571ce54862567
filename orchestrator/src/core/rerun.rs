//! What of an earlier run is not run again.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    RunId, StageOutcome,
    event::run::{Outputs, SkipReason, TestReport},
    plan::NeedReason,
    trigger::RerunStages,
};

use super::{
    shape::{Index, Phase},
    stage::Status,
    state::Run,
};

/// A stage that is as it was in an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reused {
    /// The run in which it ran.
    pub of: RunId,
    /// How it ended.
    pub outcome: StageOutcome,
    /// What it left.
    pub outputs: Outputs,
}

/// What a new run of the same plan takes from `old`, which has ended, when these stages are run again. Stages that were skipped for a
/// condition are not taken: the condition is asked again. What undoes and what tells is never taken.
pub fn reused(old: &Run, stages: &RerunStages) -> BTreeMap<Index, Reused> {
    let shape = &old.shape;
    let work = (0..shape.len()).filter(|at| shape.phase(*at) == Phase::Work);
    let again: BTreeSet<Index> = match stages {
        RerunStages::All => return BTreeMap::new(),
        RerunStages::Failed => {
            let failed = work.clone().filter(|at| !has_succeeded(old, *at)).chain(undone(old));
            failed.collect()
        }
        RerunStages::Stage(stage) => shape.find(stage).into_iter().collect(),
    };
    let again = with_dependents(old, again);
    work.filter(|at| !again.contains(at)).filter_map(|at| Some((at, as_it_was(old, at)?))).collect()
}

/// Skipped for a condition is as good.
fn has_succeeded(old: &Run, at: Index) -> bool {
    matches!(
        old.stages[at].status,
        Status::Ended(StageOutcome::Success | StageOutcome::Unstable) | Status::Skipped(SkipReason::Condition { .. })
    )
}

/// Stages that a rollback has undone, or has begun to.
fn undone(old: &Run) -> impl Iterator<Item = Index> {
    let ran = old.shape.rollbacks().iter().filter(|at| !old.stages[**at].attempts.is_empty());
    ran.flat_map(|at| {
        let needs = old.shape.stage(*at).needs.iter().filter(|need| need.reason == NeedReason::Rollback);
        needs.filter_map(|need| old.shape.find(&need.stage))
    })
}

fn with_dependents(old: &Run, stages: BTreeSet<Index>) -> BTreeSet<Index> {
    let mut open: Vec<Index> = stages.iter().copied().collect();
    let mut reached = stages;
    while let Some(at) = open.pop() {
        open.extend(old.shape.dependents(at).filter(|dependent| reached.insert(*dependent)));
    }
    reached
}

fn as_it_was(old: &Run, at: Index) -> Option<Reused> {
    let stage = &old.stages[at];
    let outcome = match &stage.status {
        Status::Ended(outcome) => *outcome,
        // How a lost one ended, only a person can say; that it did not succeed is what counts here.
        Status::Lost | Status::Skipped(SkipReason::Fanout { .. } | SkipReason::Stopped { .. }) => StageOutcome::Failure,
        Status::Skipped(SkipReason::Cancelled) => StageOutcome::Aborted,
        // Decided again, and alike.
        Status::Skipped(
            SkipReason::Condition { .. } | SkipReason::NeedFailed { .. } | SkipReason::NothingToUndo | SkipReason::NotWanted,
        )
        | Status::Waiting
        | Status::Gated { .. }
        | Status::Queued { .. }
        | Status::Ready { .. }
        | Status::Awarded
        | Status::Running
        | Status::Pausing { .. }
        | Status::Exiting { .. } => return None,
    };
    let mut outputs = Outputs::clone(&stage.outputs);
    outputs.variables.extend(stage.told().map(|(name, text)| (name.clone(), Some(text.clone()))));
    // What failed stands in the run where it did: the counts are enough here, and a record has a limit.
    outputs.tests = outputs.tests.map(|tests| TestReport { failures: Vec::new(), ..tests });
    outputs.steps.clear();
    Some(Reused { of: stage.reused_from.clone().unwrap_or_else(|| old.id.clone()), outcome, outputs })
}
