//! Logs as earlier versions wrote them.

use std::sync::Arc;

use model::{
    RunOutcome, StageOutcome,
    event::run::{RunEvent, RunRecord},
    plan::PlanDocument,
};

use super::model_of_a_run::{table, table_of};
use crate::core::{AttemptEnd, Position, Shape, Status, decide::before};

const PLAN: &str = include_str!("../../../test_data/schema-1/plan.json");
const LOG: &str = include_str!("../../../test_data/schema-1/log.jsonl");

#[test]
fn a_log_of_the_first_form_replays() {
    let plan = PlanDocument::read(PLAN.as_bytes()).unwrap();
    let records: Vec<RunRecord> = LOG.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let RunEvent::RunAccepted { trigger, planned } = &records[0].events[0] else { panic!("a log begins with its acceptance") };
    let position = |sequence: usize, record: &RunRecord| Position { sequence: sequence as u64 + 1, at: record.at };
    let shape = Arc::new(Shape::new(plan.plan().clone()));
    let mut run = before(trigger, planned.clone(), shape, position(0, &records[0]));
    for (sequence, record) in records.iter().enumerate() {
        for event in record.events.iter().skip(usize::from(sequence == 0)) {
            run.apply(position(sequence, record), event).unwrap();
        }
        let so_far = records[..=sequence].iter().flat_map(|record| &record.events);
        assert_eq!(table_of(&run), table(so_far));
    }
    assert_eq!(run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Aborted));
    assert_eq!(
        (&run.stages[0].status, &run.stages[1].status),
        (&Status::Ended(StageOutcome::Success), &Status::Ended(StageOutcome::Aborted))
    );
    let ends: Vec<_> = run.stages[0].attempts.iter().map(|attempt| attempt.end.as_ref().unwrap()).collect();
    assert!(matches!(ends[..], [AttemptEnd::Declined { .. }, AttemptEnd::Lost { .. }, AttemptEnd::Finished { .. }]), "{ends:?}");
    assert_eq!(run.stages[0].attempts[2].log.as_ref().map(|log| log.length), Some(3));
}
