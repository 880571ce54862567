//! The state of a run as it is written down beside its log, and read again.
//!
//! Only what cannot be counted anew is written: the stages, and what was said of the run as a whole. What is derived from them is derived again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    RunId, RunOutcome, StageId, Timestamp,
    event::run::{Outputs, Planned, WaitKey},
    trigger::Trigger,
};
use serde::{Deserialize, Serialize};

use super::{
    found::Left,
    shape::{Index, Shape},
    stage::{Attempt, Stage, Status, WaitState},
    state::{Cancelled, Position, Run},
};

/// A run, written down.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    stages: Vec<KeptStage>,
    /// What stages have left: each once, though many stages may share it.
    left: Vec<Left>,
    held: Option<RunId>,
    cancelled: Option<Cancelled>,
    ended: Option<(RunOutcome, Timestamp)>,
    broken: BTreeSet<String>,
    failed: BTreeSet<Index>,
}

/// A stage, written down. One that nothing happened to is none.
#[derive(Debug, Serialize, Deserialize)]
struct KeptStage {
    at: Index,
    status: Status,
    attempts: Vec<Attempt>,
    waits: Vec<(WaitKey, WaitState)>,
    lock: Option<String>,
    outputs: Outputs,
    reason: Option<String>,
    over_at: Option<Timestamp>,
    reused_from: Option<RunId>,
    cancel_requested: Option<StageId>,
    /// Which of [`Kept::left`].
    left: Option<usize>,
}

impl Run {
    /// What is written down of it.
    pub(crate) fn kept(&self) -> Kept {
        let stages = self.stages.iter().enumerate().filter(|(_, stage)| ***stage != Stage::default());
        let (mut left, mut places): (Vec<Left>, BTreeMap<*const Left, usize>) = Default::default();
        let mut place = |shared: &Arc<Left>| {
            *places.entry(Arc::as_ptr(shared)).or_insert_with(|| {
                left.push(Left::clone(shared));
                left.len() - 1
            })
        };
        let stages = stages.map(|(at, stage)| KeptStage::of(at, stage, stage.left.as_ref().map(&mut place))).collect();
        Kept {
            stages,
            left,
            held: self.held.clone(),
            cancelled: self.cancelled.clone(),
            ended: self.ended,
            broken: self.broken.clone(),
            failed: self.failed.clone(),
        }
    }

    /// The run that was written down; `None` where it is not one of this plan.
    pub(crate) fn of_kept(kept: Kept, trigger: &Trigger, planned: Planned, shape: Arc<Shape>, position: Position) -> Option<Self> {
        let mut run = Self::accepted(trigger.run(), trigger.clone(), planned, shape, position);
        for stage in &kept.stages {
            *run.stages.get_mut(stage.at)? = Arc::new(stage.read());
        }
        (run.held, run.cancelled, run.ended, run.broken) = (kept.held, kept.cancelled, kept.ended, kept.broken);
        run.recount();
        // What a stage found when it was over, which is not what there is now.
        let left: Vec<Arc<Left>> = kept.left.into_iter().map(Arc::new).collect();
        for stage in &kept.stages {
            let left = stage.left.map(|place| left.get(place).cloned());
            Arc::make_mut(&mut run.stages[stage.at]).left = match left {
                Some(None) => return None,
                Some(left) => left,
                None => None,
            };
        }
        run.failed = kept.failed;
        Some(run)
    }
}

impl KeptStage {
    fn of(at: Index, stage: &Stage, left: Option<usize>) -> Self {
        let Stage { status, attempts, waits, lock, outputs, reason, over_at, reused_from, cancel_requested, left: _ } = stage.clone();
        let (waits, outputs) = (waits.into_iter().collect(), Outputs::clone(&outputs));
        Self { at, status, attempts, waits, lock, outputs, reason, over_at, reused_from, cancel_requested, left }
    }

    fn read(&self) -> Stage {
        Stage {
            status: self.status.clone(),
            attempts: self.attempts.clone(),
            waits: self.waits.iter().cloned().collect::<BTreeMap<_, _>>(),
            lock: self.lock.clone(),
            outputs: Arc::new(self.outputs.clone()),
            reason: self.reason.clone(),
            over_at: self.over_at,
            reused_from: self.reused_from.clone(),
            cancel_requested: self.cancel_requested.clone(),
            left: None,
        }
    }
}
