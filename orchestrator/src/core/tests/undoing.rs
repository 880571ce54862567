//! Stories of the end of a run: what is undone, and who is told.

use model::{
    RunId, RunOutcome, StageOutcome, TriggerId,
    event::run::{CancelReason, SkipReason},
    plan::{Effect as StageEffect, Need, NeedReason, Notify, Plan, Skip, Stage, StageKind, Step, Value},
    trigger::Trigger,
};

use super::driven::{Driven, cancel, kinds, sh, stage, trigger, variable};
use crate::core::{Beginning, Effect, Input, Status, effects, resolve};

fn rollback(path: &str, needs: &[&str]) -> Stage {
    let mut undo = Stage { kind: StageKind::Rollback, ..stage(path, needs) };
    undo.needs = undo.needs.into_iter().map(|need| Need { reason: NeedReason::Rollback, ..need }).collect();
    undo
}

/// Two stages with something to undo each, and one after them.
fn deploys() -> Vec<Stage> {
    vec![stage("a", &[]), rollback("undo-a", &["a"]), stage("b", &["a"]), rollback("undo-b", &["b"]), stage("c", &["b"])]
}

fn telling(stages: Vec<Stage>) -> Plan {
    let step = |word: &str| vec![sh(Value::from(word))];
    Plan { notify: Notify { success: step("well"), failure: step("ill"), complete: step("done") }, ..Plan::new(stages) }
}

fn scripts(steps: &[Step]) -> Vec<&str> {
    steps.iter().filter_map(|step| step.parameters["script"].as_text()).collect()
}

/// What the pipeline's `notify` does now.
fn told(run: &Driven) -> (Vec<String>, Vec<String>) {
    let stage = resolve::stage(&run.run, run.at("notify")).unwrap();
    let owned = |steps: &[Step]| scripts(steps).into_iter().map(str::to_owned).collect();
    (owned(&stage.steps), owned(&stage.notify.complete))
}

#[test]
fn what_succeeded_before_a_failure_is_undone_one_by_one_and_the_last_first() {
    let mut run = Driven::new(deploys());
    run.through("a", StageOutcome::Success);
    run.through("b", StageOutcome::Success);
    assert_eq!(kinds(&run.through("c", StageOutcome::Failure).events), ["stage_finished", "stage_ready"]);
    assert!(matches!((run.status("undo-b"), run.status("undo-a")), (Status::Ready { .. }, Status::Waiting)));
    assert_eq!(kinds(&run.through("undo-b", StageOutcome::Failure).events), ["stage_finished", "stage_ready"]);
    run.through("undo-a", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
}

#[test]
fn what_did_not_succeed_or_stands_after_the_failure_is_not_undone() {
    let mut run = Driven::new(deploys());
    run.through("a", StageOutcome::Success);
    let decision = run.through("b", StageOutcome::Failure);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_skipped", "stage_skipped", "stage_ready"]);
    assert_eq!(run.status("undo-b"), &Status::Skipped(SkipReason::NothingToUndo));
    assert!(matches!(run.status("undo-a"), Status::Ready { .. }));
    let mut alone = Driven::new(vec![stage("a", &[]), rollback("undo-a", &["a"]), stage("b", &[])]);
    alone.through("a", StageOutcome::Failure);
    alone.through("b", StageOutcome::Success);
    assert_eq!(alone.status("undo-a"), &Status::Skipped(SkipReason::NothingToUndo), "what failed itself has no rollback");
}

#[test]
fn what_fails_before_it_in_the_plan_does_not_concern_a_rollback() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &[]), rollback("undo-b", &["b"]), stage("c", &["b"])]);
    run.through("a", StageOutcome::Failure);
    run.through("b", StageOutcome::Success);
    run.through("c", StageOutcome::Success);
    assert_eq!(run.status("undo-b"), &Status::Skipped(SkipReason::NothingToUndo));
}

#[test]
fn a_rollback_that_was_not_needed_does_not_make_a_spared_delivery_aborted() {
    let once = Stage { effect: StageEffect::Once, retry: None, ..stage("a", &[]) };
    let mut run = Driven::new(vec![once, rollback("undo-a", &["a"])]);
    run.start("a");
    let reason = CancelReason::Newer { run: RunId::of(&TriggerId::of("test", "newer")) };
    run.input(Input::Cancel { by: "otto".to_owned(), reason, force: false });
    run.finish("one", "a", StageOutcome::Success);
    assert_eq!((run.status("undo-a"), run.outcome()), (&Status::Skipped(SkipReason::NothingToUndo), Some(RunOutcome::Success)));
}

#[test]
fn nothing_is_undone_after_success_a_failure_that_is_allowed_an_abort_or_a_loss_nobody_understands() {
    let end = |c: Stage, outcome: Option<StageOutcome>| {
        let mut stages = deploys();
        stages[4] = c;
        let mut run = Driven::new(stages);
        run.through("a", StageOutcome::Success);
        run.through("b", StageOutcome::Success);
        run.start("c");
        if let Some(outcome) = outcome {
            run.finish("one", "c", outcome);
        } else {
            let lease = run.lease("c");
            run.input(Input::LeaseLapsed(lease));
        }
        assert_eq!(run.status("undo-a"), &Status::Skipped(SkipReason::NothingToUndo));
        run.outcome()
    };
    assert_eq!(end(stage("c", &["b"]), Some(StageOutcome::Success)), Some(RunOutcome::Success));
    assert_eq!(end(stage("c", &["b"]), Some(StageOutcome::Aborted)), Some(RunOutcome::Aborted));
    assert_eq!(end(Stage { allow_failure: true, ..stage("c", &["b"]) }, Some(StageOutcome::Failure)), Some(RunOutcome::Unstable));
    assert_eq!(end(Stage { effect: StageEffect::Once, ..stage("c", &["b"]) }, None), Some(RunOutcome::Unknown));
}

#[test]
fn a_person_who_cancels_wants_nothing_undone_and_the_end_of_the_runs_time_does() {
    let timed = Trigger { timeout_ms: Some(50_000), ..trigger() };
    let under_way = || {
        let mut run = Driven::of(Plan::new(deploys()), &timed, &Beginning::default());
        run.through("a", StageOutcome::Success);
        run.start("b");
        run
    };
    let mut by_a_person = under_way();
    by_a_person.input(cancel("ann"));
    by_a_person.finish("one", "b", StageOutcome::Failure);
    assert_eq!((by_a_person.status("undo-a"), by_a_person.outcome()), (&Status::Skipped(SkipReason::Cancelled), Some(RunOutcome::Aborted)));
    let mut by_time = under_way();
    by_time.pass_time();
    by_time.finish("one", "b", StageOutcome::Aborted);
    by_time.through("undo-a", StageOutcome::Success);
    assert_eq!(by_time.outcome(), Some(RunOutcome::Failure));
}

#[test]
fn nothing_is_undone_by_force_whoever_ends_the_run_so() {
    for reason in [CancelReason::Person, CancelReason::TimedOut] {
        let mut run = Driven::new(vec![rollback("undo", &[]), stage("a", &[])]);
        run.input(Input::Cancel { by: "ann".to_owned(), reason, force: true });
        assert!(matches!(run.status("undo"), Status::Skipped(_)), "{:?}", run.status("undo"));
        assert_eq!((run.outcome().is_some(), run.run.next_due()), (true, None));
    }
}

#[test]
fn what_was_skipped_did_nothing_and_what_stands_before_it_is_undone_all_the_same() {
    let skip = Skip { condition: "tag".to_owned(), because: "there is no tag".to_owned() };
    let skipped = |path: &str, needs: &[&str]| Stage { skipped: Some(skip.clone()), ..stage(path, needs) };
    let mut run = Driven::new(vec![stage("a", &[]), skipped("b", &["a"]), rollback("undo", &["b"]), stage("c", &["b"])]);
    run.through("a", StageOutcome::Success);
    run.through("c", StageOutcome::Failure);
    assert!(matches!(run.status("undo"), Status::Ready { .. }));
    let mut run = Driven::new(vec![skipped("b", &[]), rollback("undo", &["b"]), stage("c", &["b"])]);
    run.through("c", StageOutcome::Failure);
    assert_eq!(run.status("undo"), &Status::Skipped(SkipReason::NothingToUndo));
}

#[test]
fn the_pipelines_notify_is_a_stage_at_the_very_end_and_tells_how_it_went() {
    let mut run = Driven::of(telling(deploys()), &trigger(), &Beginning::default());
    run.through("a", StageOutcome::Success);
    run.through("b", StageOutcome::Failure);
    assert_eq!(run.status("notify"), &Status::Waiting, "what is undone comes first");
    run.through("undo-a", StageOutcome::Success);
    assert_eq!(told(&run), (vec!["ill".to_owned()], vec!["done".to_owned()]));
    run.through("notify", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
}

#[test]
fn that_nobody_could_be_told_makes_a_success_unstable() {
    let mut run = Driven::of(telling(vec![stage("a", &[])]), &trigger(), &Beginning::default());
    run.through("a", StageOutcome::Success);
    assert_eq!(told(&run).0, ["well"]);
    run.through("notify", StageOutcome::Failure);
    assert_eq!(run.outcome(), Some(RunOutcome::Unstable));
}

#[test]
fn a_notify_without_steps_for_the_outcome_ends_without_an_agent() {
    let plan = Plan { notify: Notify { failure: vec![sh("ill".into())], ..Notify::default() }, ..Plan::new(vec![stage("a", &[])]) };
    let mut run = Driven::of(plan, &trigger(), &Beginning::default());
    assert_eq!(kinds(&run.through("a", StageOutcome::Success).events), ["stage_finished", "stage_ended", "run_finished"]);
}

#[test]
fn a_cancel_in_order_is_told_and_one_by_force_is_not() {
    let mut run = Driven::of(telling(vec![stage("a", &[])]), &trigger(), &Beginning::default());
    run.input(cancel("ann"));
    assert!(matches!(run.status("notify"), Status::Ready { .. }) && told(&run).0 == ["ill"]);
    assert!(run.input(cancel("bob")).events.is_empty());
    run.start("notify");
    assert!(matches!(effects(&run.run)[..], [Effect::Assign { .. }]));
    run.input(Input::Cancel { by: "bob".to_owned(), reason: CancelReason::Person, force: true });
    assert!(matches!(effects(&run.run)[..], [Effect::Cancel { force: true, .. }]));
    run.pass_time();
    assert_eq!(run.outcome(), Some(RunOutcome::Aborted));
    let mut forced = Driven::of(telling(vec![stage("a", &[])]), &trigger(), &Beginning::default());
    forced.input(Input::Cancel { by: "bob".to_owned(), reason: CancelReason::Person, force: true });
    assert_eq!((forced.status("notify"), forced.outcome()), (&Status::Skipped(SkipReason::Cancelled), Some(RunOutcome::Aborted)));
}

#[test]
fn a_stage_named_notify_keeps_its_name_and_who_is_told_finds_every_variable_or_an_empty_text() {
    let mut plan = telling(vec![stage("notify", &[]), stage("b", &[])]);
    plan.notify.success =
        vec![sh(Value::Call { function: model::plan::Function::Concat, arguments: vec![variable("x"), variable("none")] })];
    let mut run = Driven::of(plan, &trigger(), &Beginning::default());
    run.leaving("notify", &[("x", Some("one"))]);
    run.leaving("b", &[("x", Some("two"))]);
    let at = run.at("notify-2");
    assert_eq!(scripts(&resolve::stage(&run.run, at).unwrap().steps), ["two"]);
}
