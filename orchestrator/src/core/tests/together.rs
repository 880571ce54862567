//! Stories of stages that stand together: retries, `fanout`, failures that are allowed, cancels, and what a trigger asks for.

use model::{
    RunId, RunOutcome, StageId, StageOutcome, TriggerId,
    event::run::{CancelReason, SkipReason},
    plan::{Effect as StageEffect, Plan, Retry, RetryReason, Stage},
    protocol::agent::Report,
    trigger::Trigger,
};

use super::driven::{Driven, cancel, kinds, stage, trigger};
use crate::core::{Beginning, Effect, Input, Status, effects, state::FORCE_CONFIRM};

fn once(path: &str, needs: &[&str]) -> Stage {
    Stage { effect: StageEffect::Once, retry: None, ..stage(path, needs) }
}

fn retried(attempts: u32, backoff_ms: u64, on: &[RetryReason]) -> Stage {
    Stage { retry: Some(Retry { attempts, backoff_ms, on: on.to_vec() }), ..stage("a", &[]) }
}

fn newer() -> Input {
    let reason = CancelReason::Newer { run: RunId::of(&TriggerId::of("test", "newer")) };
    Input::Cancel { by: "otto".to_owned(), reason, force: false }
}

fn by_force() -> Input {
    Input::Cancel { by: "ann".to_owned(), reason: CancelReason::Person, force: true }
}

#[test]
fn a_failed_stage_starts_again_after_its_pause_until_its_attempts_are_used_up() {
    let mut run = Driven::new(vec![retried(2, 10_000, &[RetryReason::Failed])]);
    let decision = run.through("a", StageOutcome::Failure);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_retried"]);
    assert!(matches!(run.status("a"), Status::Pausing { attempt: 2, after: RetryReason::Failed, .. }));
    assert!(run.input(Input::TimePassed).events.is_empty());
    assert_eq!(kinds(&run.pass_time().events), ["stage_ready"]);
    run.through("a", StageOutcome::Failure);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
}

#[test]
fn a_stage_starts_again_only_after_the_reasons_that_it_names() {
    let mut run = Driven::new(vec![retried(9, 0, &[RetryReason::Failed])]);
    assert_eq!(kinds(&run.through("a", StageOutcome::Failure).events), ["stage_finished", "stage_retried", "stage_ready"]);
    run.start("a");
    let lease = run.lease("a");
    run.input(Input::LeaseLapsed(lease));
    assert_eq!(run.outcome(), Some(RunOutcome::Failure), "that it was lost is no reason");
    for outcome in [StageOutcome::Aborted, StageOutcome::Unstable] {
        let mut run = Driven::new(vec![retried(9, 0, &[RetryReason::Failed, RetryReason::Lost])]);
        run.through("a", outcome);
        assert_eq!(run.status("a"), &Status::Ended(outcome));
    }
}

#[test]
fn a_once_stage_is_not_started_again_whatever_its_retry_says() {
    let retry = Some(Retry { attempts: 5, backoff_ms: 0, on: vec![RetryReason::Failed, RetryReason::Lost] });
    let mut run = Driven::new(vec![Stage { retry: retry.clone(), ..once("a", &[]) }]);
    run.through("a", StageOutcome::Failure);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
    let mut run = Driven::new(vec![Stage { retry, ..once("a", &[]) }]);
    run.start("a");
    let lease = run.lease("a");
    run.report("one", &lease, Report::Lost { reason: "restarted".to_owned() });
    assert_eq!(run.outcome(), Some(RunOutcome::Unknown));
}

#[test]
fn the_first_failure_in_a_fanout_ends_the_others_and_the_run_is_a_failure() {
    let block = |path: &str, needs: &[&str]| Stage { fanouts: vec!["f".to_owned()], ..stage(path, needs) };
    let mut run = Driven::new(vec![
        block("a", &[]),
        block("b", &[]),
        block("c", &[]),
        block("d", &["b"]),
        stage("e", &["a", "b", "c", "d"]),
        stage("x", &[]),
    ]);
    run.start("a");
    run.start("b");
    let decision = run.finish("one", "a", StageOutcome::Failure);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_cancel_requested", "stage_skipped", "stage_skipped", "stage_skipped"]);
    assert!(matches!(effects(&run.run)[..], [Effect::Cancel { force: false, .. }, Effect::Auction { .. }]), "x goes on");
    assert_eq!(run.status("d"), &Status::Skipped(SkipReason::Fanout { failed: StageId::of("a") }));
    assert_eq!(run.status("e"), &Status::Skipped(SkipReason::NeedFailed { stage: StageId::of("a") }));
    run.finish("one", "b", StageOutcome::Aborted);
    run.through("x", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure), "what the block ended does not make it aborted");
}

#[test]
fn a_failure_in_an_inner_fanout_reaches_the_outer_one_and_an_allowed_one_nobody() {
    let inside = |path: &str, blocks: &[&str]| Stage { fanouts: blocks.iter().map(ToString::to_string).collect(), ..stage(path, &[]) };
    let stages =
        |allow_failure| vec![Stage { allow_failure, ..inside("a", &["f", "f/g"]) }, inside("b", &["f/g", "f"]), inside("c", &["f"])];
    let mut run = Driven::new(stages(false));
    run.through("a", StageOutcome::Failure);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure));
    let mut run = Driven::new(stages(true));
    run.through("a", StageOutcome::Failure);
    assert!(matches!(run.status("b"), Status::Ready { .. }));
}

#[test]
fn a_stage_of_a_broken_fanout_that_was_declined_is_not_offered_again() {
    let block = |path: &str| Stage { fanouts: vec!["f".to_owned()], ..stage(path, &[]) };
    let mut run = Driven::new(vec![block("a"), block("b")]);
    run.start("a");
    run.start("b");
    run.finish("one", "a", StageOutcome::Failure);
    let lease = run.lease("b");
    let decision = run.report("one", &lease, Report::Declined { reason: "busy".to_owned() });
    assert_eq!(kinds(&decision.events), ["stage_declined", "stage_skipped", "run_finished"]);
}

#[test]
fn a_failure_that_is_allowed_shows_and_what_needs_it_goes_on() {
    let allowed = Stage { allow_failure: true, ..stage("a", &[]) };
    let mut run = Driven::new(vec![allowed, stage("b", &["a"])]);
    let decision = run.through("a", StageOutcome::Failure);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_ready"]);
    run.through("b", StageOutcome::Success);
    assert_eq!((run.status("a"), run.outcome()), (&Status::Ended(StageOutcome::Failure), Some(RunOutcome::Unstable)));
}

#[test]
fn a_loss_nobody_understands_is_not_allowed_by_allow_failure() {
    for (effect, outcome) in [(StageEffect::Safe, None), (StageEffect::Once, Some(RunOutcome::Unknown))] {
        let mut run = Driven::new(vec![Stage { effect, allow_failure: true, retry: None, ..stage("a", &[]) }, stage("b", &["a"])]);
        run.start("a");
        let lease = run.lease("a");
        run.input(Input::LeaseLapsed(lease));
        assert_eq!((run.outcome(), matches!(run.status("b"), Status::Ready { .. })), (outcome, outcome.is_none()));
    }
}

#[test]
fn what_needs_an_unstable_stage_goes_on_and_the_run_is_unstable() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"])]);
    run.through("a", StageOutcome::Unstable);
    run.through("b", StageOutcome::Success);
    assert_eq!(run.outcome(), Some(RunOutcome::Unstable));
}

#[test]
fn a_newer_run_ends_all_but_what_has_started_and_must_not_start_twice() {
    let mut run = Driven::new(vec![once("a", &[]), stage("b", &[]), once("c", &[]), stage("d", &["a"])]);
    run.start("a");
    run.start("b");
    run.input(newer());
    let told = effects(&run.run);
    assert!(matches!(&told[..], [Effect::Assign { at: 0, .. }, Effect::Cancel { at: 1, .. }]), "{told:?}");
    assert_eq!(run.status("c"), &Status::Skipped(SkipReason::Cancelled), "it had not started");
    run.finish("one", "b", StageOutcome::Aborted);
    run.finish("one", "a", StageOutcome::Success);
    assert_eq!((run.status("a"), run.outcome()), (&Status::Ended(StageOutcome::Success), Some(RunOutcome::Aborted)));
}

#[test]
fn a_person_can_end_what_a_newer_run_has_spared() {
    let mut run = Driven::new(vec![once("a", &[])]);
    run.start("a");
    run.input(newer());
    assert!(run.input(newer()).events.is_empty());
    assert_eq!(kinds(&run.input(cancel("ann")).events), ["cancel_requested"]);
    assert!(matches!(effects(&run.run)[..], [Effect::Cancel { force: false, .. }]));
    assert!(run.input(cancel("bob")).events.is_empty());
}

#[test]
fn an_end_by_force_does_not_wait_for_agents_that_cannot_be_reached() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &[])]);
    run.start("a");
    run.start("b");
    run.input(cancel("ann"));
    assert_eq!(run.run.next_due(), None, "in order, it waits for the agent or its lease");
    run.input(by_force());
    assert!(effects(&run.run).iter().all(|effect| matches!(effect, Effect::Cancel { force: true, .. })));
    run.finish("one", "a", StageOutcome::Aborted);
    let forced = run.run.cancelled.as_ref().and_then(|cancelled| cancelled.forced).unwrap();
    assert_eq!(run.run.next_due(), Some(forced + FORCE_CONFIRM));
    run.pass_time();
    assert_eq!((run.status("b"), run.outcome()), (&Status::Lost, Some(RunOutcome::Aborted)));
    let mut deploy = Driven::new(vec![once("a", &[])]);
    deploy.start("a");
    deploy.input(by_force());
    deploy.pass_time();
    assert_eq!(deploy.outcome(), Some(RunOutcome::Unknown), "nobody knows how far it came");
}

#[test]
fn only_what_is_wanted_and_what_it_needs_runs() {
    let only = Trigger { only: Some(StageId::of("b")), ..trigger() };
    let plan = Plan::new(vec![stage("a", &[]), stage("b", &["a"]), stage("c", &["b"]), stage("d", &[])]);
    let mut run = Driven::of(plan, &only, &Beginning::default());
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "stage_skipped", "stage_skipped", "stage_ready"]);
    run.through("a", StageOutcome::Success);
    run.through("b", StageOutcome::Success);
    assert_eq!((run.status("c"), run.outcome()), (&Status::Skipped(SkipReason::NotWanted), Some(RunOutcome::Success)));
}

#[test]
fn nothing_starts_after_a_failure_where_the_trigger_says_so() {
    let stops = Trigger { stop_at_failure: true, ..trigger() };
    let again = Stage { retry: Some(Retry { attempts: 3, backoff_ms: 0, on: vec![RetryReason::Failed] }), ..stage("b", &[]) };
    let plan = Plan::new(vec![stage("a", &[]), again, stage("c", &[]), stage("d", &["c"])]);
    let mut run = Driven::of(plan, &stops, &Beginning::default());
    run.start("a");
    run.start("b");
    run.finish("one", "a", StageOutcome::Failure);
    assert_eq!(run.status("d"), &Status::Skipped(SkipReason::Stopped { failed: StageId::of("a") }));
    run.finish("one", "b", StageOutcome::Failure);
    assert_eq!(run.outcome(), Some(RunOutcome::Failure), "b does not start again either");
}

#[test]
fn offers_ahead_are_asked_for_only_where_nothing_else_stands_before_the_agent() {
    let locked = Stage { lock: Some("l".to_owned()), ..stage("b", &["a"]) };
    let gated = Stage { enter: vec![model::plan::Wait::Pause], ..stage("c", &["a"]) };
    let mut run = Driven::new(vec![stage("a", &[]), locked, gated, stage("d", &["a"])]);
    run.start("a");
    let ahead: Vec<usize> = effects(&run.run).into_iter().filter(Effect::is_ahead).map(|effect| effect.at()).collect();
    assert_eq!(ahead, [3]);
}
