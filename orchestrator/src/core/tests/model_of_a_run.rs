//! A second, much simpler account of a run: a table from stage to a word, made from nothing but the events. It shares no code with the
//! state machine, and knows no effect, no offer and no fence.

use std::collections::BTreeMap;

use model::{StageId, StageOutcome, event::run::RunEvent};

use crate::core::{Run, Status};

/// The word for each stage, and the run's outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) stages: BTreeMap<StageId, String>,
    pub(super) outcome: Option<String>,
    pub(super) cancelled: bool,
}

/// The table after these events. Stages that no event speaks of are not in it.
pub(super) fn table<'a>(events: impl Iterator<Item = &'a RunEvent>) -> Table {
    let mut table = Table::default();
    for event in events {
        let (stage, word) = match event {
            RunEvent::RunFinished { outcome } => {
                table.outcome = Some(outcome.to_string());
                continue;
            }
            RunEvent::CancelRequested { .. } => {
                table.cancelled = true;
                continue;
            }
            RunEvent::StageReady { stage, attempt } | RunEvent::StageDeclined { stage, attempt, .. } => (stage, format!("ready {attempt}")),
            RunEvent::StageAwarded { stage, attempt, agent, .. } => (stage, format!("awarded {attempt} {agent}")),
            RunEvent::StageStarted { stage, attempt, .. } => (stage, format!("running {attempt}")),
            RunEvent::StageFinished { stage, outcome, .. } => (stage, outcome.to_string()),
            RunEvent::StageLost { stage, .. } => (stage, "lost".to_owned()),
            RunEvent::StageSkipped { stage, .. } => (stage, "skipped".to_owned()),
            _ => continue,
        };
        table.stages.insert(stage.clone(), word);
    }
    table
}

/// The same table, read off the state machine.
pub(super) fn table_of(run: &Run) -> Table {
    let mut stages = BTreeMap::new();
    for (at, stage) in run.stages.iter().enumerate() {
        let last = stage.attempts.last();
        let word = match &stage.status {
            Status::Waiting | Status::Gated { .. } | Status::Queued { .. } | Status::Pausing { .. } | Status::Exiting { .. } => continue,
            Status::Ready { attempt, .. } => format!("ready {attempt}"),
            Status::Awarded => last.map(|last| format!("awarded {} {}", last.number, last.agent)).unwrap(),
            Status::Running => last.map(|last| format!("running {}", last.number)).unwrap(),
            Status::Ended(StageOutcome::Success) => "success".to_owned(),
            Status::Ended(StageOutcome::Unstable) => "unstable".to_owned(),
            Status::Ended(StageOutcome::Failure) => "failure".to_owned(),
            Status::Ended(StageOutcome::Aborted) => "aborted".to_owned(),
            Status::Lost => "lost".to_owned(),
            Status::Skipped(_) => "skipped".to_owned(),
        };
        stages.insert(run.shape.stage(at).id.clone(), word);
    }
    Table { stages, outcome: run.ended.map(|(outcome, _)| outcome.to_string()), cancelled: run.cancelled.is_some() }
}
