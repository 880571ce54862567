//! Stories of runs that are run again.

use model::{
    RunOutcome, StageId, StageOutcome,
    event::run::{Answer, WaitKey},
    plan::{Condition, Need, NeedReason, Stage, StageKind, Value, Wait},
    trigger::RerunStages,
};

use super::driven::{Driven, cancel, kinds, sh, stage, trigger, variable, waiting};
use crate::core::{Beginning, Input, Status, rerun::reused};

fn again(old: &Driven, stages: &RerunStages) -> Driven {
    let beginning = Beginning { reused: reused(&old.run, stages), ..Beginning::default() };
    Driven::of(old.shape.plan().clone(), &trigger(), &beginning)
}

#[test]
fn what_succeeded_is_taken_over_with_what_it_left_and_the_rest_runs() {
    let uses = Stage { steps: vec![sh(variable("version"))], ..stage("b", &["a"]) };
    let mut old = Driven::new(vec![stage("a", &[]), uses, stage("c", &["b"])]);
    old.leaving("a", &[("version", Some("1.2"))]);
    old.through("b", StageOutcome::Failure);
    let mut run = again(&old, &RerunStages::Failed);
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "stage_reused", "stage_ready"]);
    assert_eq!(run.run.found(1).variables["version"], "1.2");
    assert_eq!(run.run.stages[0].reused_from, Some(old.run.id.clone()));
    run.through("b", StageOutcome::Success);
    run.through("c", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Success));
    let third = again(&run, &RerunStages::Stage(StageId::of("c")));
    assert_eq!(third.run.stages[0].reused_from, Some(old.run.id.clone()), "where it ran");
}

#[test]
fn one_stage_starts_again_with_what_waits_for_it_and_nothing_else() {
    let mut old = Driven::new(vec![stage("a", &[]), stage("b", &["a"]), stage("c", &["b"]), stage("d", &[]), stage("e", &["d"])]);
    old.through("a", StageOutcome::Success);
    old.through("b", StageOutcome::Success);
    old.through("d", StageOutcome::Failure);
    old.input(cancel("ann"));
    let mut run = again(&old, &RerunStages::Stage(StageId::of("b")));
    let ready: Vec<usize> = run.run.active.iter().copied().collect();
    assert_eq!(ready, [1]);
    run.through("b", StageOutcome::Success);
    run.through("c", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure), "d is as it was");
}

#[test]
fn a_lost_once_stage_starts_again_when_a_person_says_so() {
    let once = Stage { effect: model::plan::Effect::Once, retry: None, ..stage("b", &["a"]) };
    let mut old = Driven::new(vec![stage("a", &[]), once, stage("c", &["b"])]);
    old.through("a", StageOutcome::Success);
    old.start("b");
    let lease = old.lease("b");
    old.input(Input::LeaseLapsed(lease));
    assert_eq!(old.outcome(), Some(RunOutcome::Unknown));
    let mut run = again(&old, &RerunStages::Stage(StageId::of("b")));
    run.through("b", StageOutcome::Success);
    run.through("c", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Success));
}

#[test]
fn what_was_undone_runs_again() {
    let mut undo = Stage { kind: StageKind::Rollback, ..stage("undo", &["b"]) };
    undo.needs = vec![Need { stage: StageId::of("b"), reason: NeedReason::Rollback }];
    let mut old = Driven::new(vec![stage("a", &[]), stage("b", &["a"]), undo, stage("c", &["b"])]);
    old.through("a", StageOutcome::Success);
    old.through("b", StageOutcome::Success);
    old.through("c", StageOutcome::Failure);
    old.through("undo", StageOutcome::Success);
    let run = again(&old, &RerunStages::Failed);
    assert!(run.run.stages[0].reused_from.is_some() && matches!(run.status("b"), Status::Ready { .. }));
}

#[test]
fn answers_are_taken_over_and_conditions_are_asked_again() {
    let ask = Wait::Prompt { message: "Go?".into(), into: "go".to_owned(), options: Vec::new(), by: Vec::new(), timeout_ms: None };
    let ask = Stage { kind: StageKind::Wait(ask), ..waiting("ask", &[]) };
    let maybe =
        |path: &str, text: &str| Stage { conditions: vec![Condition::Equal(variable("go"), Value::from(text))], ..stage(path, &["ask"]) };
    let mut old = Driven::new(vec![ask, maybe("yes", "yes"), maybe("no", "no"), stage("after", &["yes", "no"])]);
    old.answer("ask", WaitKey::Itself, Answer::Text { text: "yes".to_owned() });
    old.through("yes", StageOutcome::Success);
    old.through("after", StageOutcome::Failure);
    let run = again(&old, &RerunStages::Failed);
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "stage_reused", "stage_reused", "stage_skipped", "stage_ready"]);
    assert_eq!(run.run.found(3).variables["go"], "yes");
}

#[test]
fn all_stages_start_again_if_all_are_asked_for() {
    let mut old = Driven::new(vec![stage("a", &[])]);
    old.through("a", StageOutcome::Success);
    assert!(reused(&old.run, &RerunStages::All).is_empty());
}
