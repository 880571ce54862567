//! Stories of what stands before and after a stage: conditions, gates, waits, locks, and time.

use std::sync::Arc;

use model::{
    Digest, RunId, RunOutcome, StageOutcome, Timestamp, TriggerId,
    event::run::{Answer, CancelReason, Planned, Question, SkipReason, WaitKey},
    plan::{Condition, Plan, Skip, Stage, StageKind, Value, Wait},
    trigger::Trigger,
};

use super::driven::{Driven, cancel, finished, kinds, stage, trigger, variable, waiting};
use crate::core::{
    Beginning, Effect, Input, Run, Status, effects,
    wait::{Unfit, delivery, fits},
};

fn confirm(timeout_ms: Option<u64>) -> Wait {
    Wait::Confirm { message: "Ship it?".into(), by: vec!["ops".to_owned()], timeout_ms }
}

fn prompt() -> Wait {
    let options = vec!["red".to_owned(), "blue".to_owned()];
    Wait::Prompt { message: "Which?".into(), into: "color".to_owned(), options, by: Vec::new(), timeout_ms: None }
}

fn webhook() -> Wait {
    Wait::Webhook { description: "the scan".into(), timeout_ms: Some(1_000) }
}

fn poll() -> Wait {
    Wait::Poll { url: "http://localhost/health".into(), status: 200, every_ms: 1_000, timeout_ms: 5_000 }
}

fn a_wait(path: &str, needs: &[&str], wait: Wait) -> Stage {
    Stage { kind: StageKind::Wait(wait), ..waiting(path, needs) }
}

#[test]
fn a_stage_that_its_plan_skips_lets_what_needs_it_go_on_when_it_is_its_turn() {
    let skip = Skip { condition: "branch == 'main'".to_owned(), because: "branch is 'topic'".to_owned() };
    let skipped = Stage { skipped: Some(skip), ..stage("b", &["a"]) };
    let mut run = Driven::new(vec![stage("a", &[]), skipped, stage("c", &["b"])]);
    assert_eq!(run.status("c"), &Status::Waiting, "c comes after a, whatever becomes of b");
    let decision = run.through("a", StageOutcome::Success);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_skipped", "stage_ready"]);
    run.through("c", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Success));
}

#[test]
fn a_condition_is_decided_by_what_the_stages_before_have_captured() {
    let conditional = |path: &str, needs: &[&str], text: &str| Stage {
        conditions: vec![Condition::Equal(variable("level"), Value::from(text))],
        ..stage(path, needs)
    };
    let mut run =
        Driven::new(vec![stage("a", &[]), conditional("b", &["a"], "high"), conditional("c", &["a"], "low"), stage("d", &["b", "c"])]);
    run.leaving("a", &[("level", Some("high"))]);
    assert!(matches!(run.status("b"), Status::Ready { .. }));
    let Status::Skipped(SkipReason::Condition { condition, because }) = run.status("c") else { panic!("{:?}", run.status("c")) };
    assert_eq!((condition.as_str(), because.as_str()), ("vars.level == 'low'", "vars.level is 'high'"));
    run.through("b", StageOutcome::Success);
    run.through("d", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Success));
}

#[test]
fn a_variable_that_nobody_set_is_the_empty_text_in_a_condition() {
    let unset = Stage { conditions: vec![Condition::Not(Box::new(Condition::Is(variable("x"))))], ..stage("a", &[]) };
    assert!(matches!(Driven::new(vec![unset]).status("a"), Status::Ready { .. }));
}

#[test]
fn enter_gates_are_waited_for_at_once_and_before_an_agent_is_asked() {
    let gated = Stage { enter: vec![confirm(None), poll()], ..stage("a", &[]) };
    let mut run = Driven::new(vec![gated]);
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "wait_opened", "wait_opened"]);
    let asked = effects(&run.run);
    assert!(matches!(&asked[..], [Effect::Poll { status: 200, every_ms: 1_000, .. }]), "{asked:?}");
    let approval = delivery(&run.run, 0, WaitKey::Enter(0));
    assert!(run.answer("a", WaitKey::Enter(1), Answer::Polled).events.len() == 1, "the other one is open");
    let decision = run.answer("a", WaitKey::Enter(0), Answer::Approved { delivery: approval });
    assert_eq!(kinds(&decision.events), ["wait_answered", "stage_ready"]);
}

#[test]
fn an_approval_of_another_delivery_and_a_second_answer_are_ignored() {
    let mut run = Driven::new(vec![a_wait("a", &[], confirm(None)), a_wait("b", &[], confirm(None))]);
    let Question::Confirm { delivery: asked, message, by } = run.question("a", WaitKey::Itself).clone() else { panic!("it is asked") };
    assert_eq!((message.as_str(), by), ("Ship it?", vec!["ops".to_owned()]));
    let other = delivery(&run.run, 1, WaitKey::Itself);
    assert_ne!(asked, other, "each gate has an approval of its own");
    assert!(run.answer("a", WaitKey::Itself, Answer::Approved { delivery: other }).events.is_empty());
    for unfit in
        [Answer::Elapsed, Answer::TimedOut, Answer::Polled, Answer::CalledBack, Answer::Resumed, Answer::Text { text: String::new() }]
    {
        assert!(run.answer("a", WaitKey::Itself, unfit).events.is_empty());
    }
    assert_eq!(kinds(&run.answer("a", WaitKey::Itself, Answer::Approved { delivery: asked }).events), ["wait_answered", "stage_ended"]);
    assert!(run.answer("a", WaitKey::Itself, Answer::Refused { reason: None }).events.is_empty());
    assert_eq!(fits(&run.run, 0, WaitKey::Itself, &Answer::Refused { reason: None }), Err(Unfit::Late));
    assert_eq!(fits(&run.run, 1, WaitKey::Enter(7), &Answer::CalledBack), Err(Unfit::Unknown));
}

#[test]
fn what_is_approved_is_this_plan_source_context_and_run() {
    let run = Driven::new(vec![a_wait("a", &[], confirm(None))]).run.clone();
    let asked = delivery(&run, 0, WaitKey::Itself);
    let changed = |change: &dyn Fn(&mut Run)| {
        let mut other = run.clone();
        change(&mut other);
        delivery(&other, 0, WaitKey::Itself)
    };
    let of_trigger = |change: &dyn Fn(&mut Trigger)| changed(&|run| change(Arc::make_mut(&mut run.trigger)));
    let another = Digest::of(b"a script that was changed after the approval");
    assert_ne!(of_trigger(&|trigger| trigger.source = Some(another)), asked);
    assert_ne!(of_trigger(&|trigger| trigger.context.commit.push('0')), asked);
    assert_ne!(of_trigger(&|trigger| trigger.context.branch.push('0')), asked);
    assert_ne!(changed(&|run| run.planned = Planned::plan(another)), asked);
    assert_ne!(changed(&|run| run.id = RunId::of(&TriggerId::of("test", "another"))), asked);
    assert_eq!(changed(&|_| ()), asked);
}

#[test]
fn a_refusal_fails_the_stage_and_says_who_refused() {
    let gated = Stage { enter: vec![confirm(None), webhook()], ..stage("a", &[]) };
    let mut run = Driven::new(vec![gated, stage("b", &["a"])]);
    run.answer("a", WaitKey::Enter(0), Answer::Refused { reason: Some("not today".to_owned()) });
    assert_eq!((run.status("a"), run.reason("a")), (&Status::Ended(StageOutcome::Failure), "refused by ann: not today"));
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
    assert_eq!(run.run.next_due(), None, "nobody waits for the webhook any more");
}

#[test]
fn a_person_answers_with_one_of_the_options_and_the_variable_holds_it() {
    let uses = |path: &str, needs: &[&str]| Stage { steps: vec![super::driven::sh(variable("color"))], ..stage(path, needs) };
    let mut run = Driven::new(vec![a_wait("ask", &[], prompt()), uses("a", &["ask"]), Stage { enter: vec![prompt()], ..uses("own", &[]) }]);
    assert!(run.answer("ask", WaitKey::Itself, Answer::Text { text: "green".to_owned() }).events.is_empty());
    run.answer("ask", WaitKey::Itself, Answer::Text { text: "blue".to_owned() });
    run.answer("own", WaitKey::Enter(0), Answer::Text { text: "red".to_owned() });
    let color = |path: &str| run.run.found(run.at(path)).variables["color"].clone();
    assert_eq!((color("a").as_str(), color("own").as_str()), ("blue", "red"));
    assert!(matches!((run.status("a"), run.status("own")), (Status::Ready { .. }, Status::Ready { .. })));
}

#[test]
fn a_webhook_that_is_called_before_its_wait_is_open_is_kept() {
    let mut run = Driven::new(vec![stage("a", &[]), a_wait("b", &["a"], webhook()), a_wait("c", &["a"], confirm(None))]);
    assert_eq!(kinds(&run.answer("b", WaitKey::Itself, Answer::CalledBack).events), ["wait_answered"]);
    assert!(run.answer("b", WaitKey::Itself, Answer::CalledBack).events.is_empty(), "it is used once");
    assert_eq!(fits(&run.run, 2, WaitKey::Itself, &Answer::Refused { reason: None }), Err(Unfit::Early));
    let decision = run.through("a", StageOutcome::Success);
    assert_eq!(kinds(&decision.events), ["stage_finished", "wait_opened", "stage_ended", "wait_opened"]);
    assert_eq!(run.status("b"), &Status::Ended(StageOutcome::Success));
}

#[test]
fn time_that_passes_is_success_and_time_that_runs_out_is_failure() {
    let waits = [
        ("time", Wait::Time { ms: 500 }, StageOutcome::Success, ""),
        ("confirm", confirm(Some(500)), StageOutcome::Failure, "nobody approved it in time"),
        ("webhook", webhook(), StageOutcome::Failure, "nobody called back in time"),
        ("poll", poll(), StageOutcome::Failure, "http://localhost/health did not answer 200 in time"),
    ];
    for (path, wait, outcome, reason) in waits {
        let mut run = Driven::new(vec![a_wait(path, &[], wait)]);
        assert!(run.input(Input::TimePassed).events.is_empty(), "it is not over yet");
        run.pass_time();
        assert_eq!((run.status(path), run.reason(path)), (&Status::Ended(outcome), reason));
    }
    let mut paused = Driven::new(vec![a_wait("pause", &[], Wait::Pause)]);
    assert_eq!(paused.run.next_due(), None, "a pause lasts until a person ends it");
    paused.answer("pause", WaitKey::Itself, Answer::Resumed);
    assert_eq!(paused.outcome(), Some(RunOutcome::Success));
}

#[test]
fn exit_gates_are_waited_for_after_the_agent_was_released_and_keep_the_lock() {
    let gated = Stage { exit: vec![confirm(None)], lock: Some("production".to_owned()), ..stage("a", &[]) };
    let mut run = Driven::new(vec![gated, stage("b", &["a"])]);
    run.input(Input::LockGranted(0));
    let decision = run.through("a", StageOutcome::Unstable);
    assert_eq!(kinds(&decision.events), ["stage_finished", "wait_opened"]);
    assert!(run.run.active.is_empty() && run.run.holder_of("production") == Some(0));
    let Question::Confirm { delivery, .. } = *run.question("a", WaitKey::Exit(0)) else { panic!("it is asked") };
    let decision = run.answer("a", WaitKey::Exit(0), Answer::Approved { delivery });
    assert_eq!(kinds(&decision.events), ["wait_answered", "stage_ended", "stage_ready"]);
    assert_eq!((run.status("a"), run.run.holder_of("production")), (&Status::Ended(StageOutcome::Unstable), None));
}

#[test]
fn a_stage_that_failed_has_no_exit_gates_and_one_that_is_refused_there_is_not_started_again() {
    let gated = || vec![Stage { exit: vec![confirm(None)], ..stage("a", &[]) }];
    let mut failed = Driven::new(gated());
    failed.through("a", StageOutcome::Failure);
    assert_eq!(failed.outcome(), Some(RunOutcome::Failure));
    let mut refused = Driven::new(gated());
    refused.through("a", StageOutcome::Success);
    refused.answer("a", WaitKey::Exit(0), Answer::Refused { reason: None });
    assert_eq!((refused.outcome(), refused.reason("a")), (Some(RunOutcome::Failure), "refused by ann"));
}

#[test]
fn a_lock_is_queued_for_after_the_enter_gates_and_held_until_the_stage_is_over() {
    let locked = |path: &str| Stage { lock: Some("l".to_owned()), ..stage(path, &[]) };
    let mut run = Driven::new(vec![Stage { enter: vec![Wait::Pause], ..locked("a") }, locked("b")]);
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "wait_opened", "lock_queued"]);
    assert!(run.input(Input::LockGranted(0)).events.is_empty(), "its gate is open");
    assert_eq!(kinds(&run.input(Input::LockGranted(1)).events), ["lock_acquired", "stage_ready"]);
    run.answer("a", WaitKey::Enter(0), Answer::Resumed);
    assert!(run.input(Input::LockGranted(0)).events.is_empty(), "b has it");
    run.start("b");
    let lease = run.lease("b");
    run.input(Input::LeaseLapsed(lease));
    assert!(matches!(run.status("b"), Status::Ready { attempt: 2, .. }), "it keeps its lock while it starts again");
    assert!(run.input(Input::LockGranted(0)).events.is_empty());
    run.through("b", StageOutcome::Success);
    assert_eq!(kinds(&run.input(Input::LockGranted(0)).events), ["lock_acquired", "stage_ready"]);
    assert!(run.input(Input::LockGranted(0)).events.is_empty());
}

#[test]
fn a_stage_without_steps_ends_without_an_agent_and_passes_its_gates() {
    let mut run = Driven::new(vec![waiting("a", &[]), Stage { exit: vec![Wait::Pause], ..waiting("b", &["a"]) }]);
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "stage_ended", "wait_opened"]);
    run.answer("b", WaitKey::Exit(0), Answer::Resumed);
    assert_eq!(run.outcome(), Some(RunOutcome::Success));
}

#[test]
fn a_question_with_a_variable_that_nobody_set_fails_its_stage() {
    let message = Value::Call { function: model::plan::Function::Concat, arguments: vec!["Ship ".into(), variable("version")] };
    let ask = Wait::Confirm { message, by: Vec::new(), timeout_ms: None };
    let mut run = Driven::new(vec![stage("a", &[]), a_wait("b", &["a"], ask.clone())]);
    run.leaving("a", &[("version", Some("1.2"))]);
    assert!(matches!(run.question("b", WaitKey::Itself), Question::Confirm { message, .. } if message == "Ship 1.2"));
    let run = Driven::new(vec![a_wait("b", &[], ask)]);
    assert!(run.reason("b").contains("`version` has no value"), "{}", run.reason("b"));
}

#[test]
fn a_run_that_is_held_begins_with_the_end_of_the_older_one() {
    let older = RunId::of(&TriggerId::of("test", "older"));
    let beginning = Beginning { held: Some(older), ..Beginning::default() };
    let mut run = Driven::of(Plan::new(vec![stage("a", &[]), waiting("b", &[])]), &trigger(), &beginning);
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "run_held"]);
    assert_eq!((run.run.next_due(), effects(&run.run)), (None, Vec::new()));
    assert_eq!(kinds(&run.input(Input::Released).events), ["run_released", "stage_ready", "stage_ended"]);
    assert!(run.input(Input::Released).events.is_empty());
    let mut cancelled = Driven::of(Plan::new(vec![stage("a", &[])]), &trigger(), &beginning);
    cancelled.input(cancel("ann"));
    assert_eq!(cancelled.outcome(), Some(RunOutcome::Aborted));
}

#[test]
fn a_run_whose_time_is_over_ends_as_a_failure() {
    let timed = model::trigger::Trigger { timeout_ms: Some(10_000), ..trigger() };
    let mut run = Driven::of(Plan::new(vec![stage("a", &[]), a_wait("b", &[], Wait::Pause)]), &timed, &Beginning::default());
    assert_eq!(run.run.next_due(), Some(Timestamp(10_000)));
    run.start("a");
    run.pass_time();
    assert!(run.run.cancelled.as_ref().is_some_and(|cancelled| cancelled.reason == CancelReason::TimedOut));
    let lease = run.lease("a");
    run.report("one", &lease, finished(StageOutcome::Aborted));
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
    let mut quick = Driven::of(Plan::new(vec![stage("a", &[])]), &timed, &Beginning::default());
    quick.through("a", StageOutcome::Success);
    assert_eq!((quick.outcome(), quick.run.next_due()), (Some(RunOutcome::Success), None));
}

#[test]
fn a_cancel_ends_what_waits_without_an_agent_at_once() {
    let exiting = Stage { exit: vec![Wait::Pause], ..stage("a", &[]) };
    let locked = Stage { lock: Some("l".to_owned()), ..stage("b", &[]) };
    let mut run = Driven::new(vec![exiting, locked, a_wait("c", &[], Wait::Time { ms: 50_000 }), stage("d", &[])]);
    run.through("a", StageOutcome::Success);
    run.input(cancel("ann"));
    assert_eq!((run.outcome(), run.status("a")), (Some(RunOutcome::Aborted), &Status::Ended(StageOutcome::Aborted)));
    assert_eq!(run.status("b"), &Status::Skipped(SkipReason::Cancelled));
}
