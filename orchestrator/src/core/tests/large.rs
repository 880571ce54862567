//! Runs of as many stages as a plan may have.

use model::{
    StageOutcome,
    plan::{Skip, Stage, StageKind, Wait},
};

use super::driven::{Driven, kinds, stage, waiting};
use crate::core::{Input, Status};

/// As many as the language allows.
const STAGES: usize = 5_000;
/// The bus takes no larger message.
const RECORD_BYTES_MAX: usize = 1024 * 1024;

fn records_fit(run: &Driven) {
    for (_, events) in &run.log {
        let bytes = serde_json::to_vec(events).unwrap().len();
        assert!(bytes < RECORD_BYTES_MAX * 3 / 4, "a record of {} events has {bytes} bytes", events.len());
    }
}

/// Gives the run its time as long as it says that something is due now.
fn at_once(run: &mut Driven) {
    while run.run.next_due().is_some_and(|due| due.0 <= run.now) {
        assert!(!run.input(Input::TimePassed).events.is_empty(), "what is due happens");
    }
}

#[test]
fn five_thousand_waits_open_and_end_in_records_that_the_bus_takes() {
    let stages = (0..STAGES).map(|at| Stage { kind: StageKind::Wait(Wait::Time { ms: 1_000 }), ..waiting(&at.to_string(), &[]) });
    let shape_of_all: Vec<Stage> = stages.collect();
    let mut run = Driven::new(shape_of_all);
    at_once(&mut run);
    assert!(run.run.stages.iter().all(|stage| matches!(stage.status, Status::Gated { .. })));
    run.now += 2_000;
    at_once(&mut run);
    assert_eq!(run.run.ended.map(|(outcome, _)| outcome), Some(model::RunOutcome::Success));
    records_fit(&run);
    assert_eq!(run.replayed(run.log.len()), run.run);
}

#[test]
fn a_chain_of_five_thousand_stages_falls_and_is_skipped_link_by_link() {
    let skip = Skip { condition: "tag".to_owned(), because: "there is no tag".to_owned() };
    let link = |at: usize| {
        let before = at.checked_sub(1).map(|before| before.to_string());
        stage(&at.to_string(), &before.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut failed = Driven::new((0..STAGES).map(link).collect());
    failed.through("0", StageOutcome::Failure);
    at_once(&mut failed);
    assert!(failed.run.ended.is_some());
    records_fit(&failed);
    let skipped = |at: usize| if at == 0 { link(0) } else { Stage { skipped: Some(skip.clone()), ..link(at) } };
    let mut passed = Driven::new((0..STAGES).map(skipped).collect());
    passed.leaving("0", &[("x", Some("1"))]);
    at_once(&mut passed);
    assert_eq!(passed.run.found(STAGES - 1).variables["x"], "1");
    assert_eq!(kinds(&passed.log.last().unwrap().1).last(), Some(&"run_finished"));
    records_fit(&passed);
}
