//! What a person would notice, one story a test.

use model::{
    RunOutcome, StageOutcome, Timestamp,
    event::run::{RunEvent, SkipReason},
    plan::Effect as StageEffect,
    protocol::{agent::Report, auction::Reservation},
};

use super::driven::{Driven, cancel, finished, kinds, stage};
use crate::core::{Answer, Effect, Input, Status, effects};

#[test]
fn the_end_of_a_stage_and_the_award_of_the_next_are_one_record() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    assert!(run.propose("b", 1, &["one"], &Reservation::Handover).events.is_empty(), "b waits for a");
    let decision = run.finish("one", "a", StageOutcome::Success);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_ready", "stage_awarded"]);
    assert!(matches!(&decision.answers[..], [Answer::Acknowledge { .. }]));
    let decision = run.finish("one", "b", StageOutcome::Success);
    assert_eq!(kinds(&decision.events), ["stage_finished", "run_finished"]);
    assert_eq!(run.run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Success));
}

#[test]
fn a_freed_slot_is_handed_over_once() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"]), stage("c", &["a"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    run.propose("b", 1, &["one"], &Reservation::Handover);
    run.propose("c", 1, &["one"], &Reservation::Handover);
    let decision = run.finish("one", "a", StageOutcome::Success);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_ready", "stage_awarded", "stage_ready"]);
}

#[test]
fn a_failed_stage_skips_what_needs_it_and_nothing_else() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &[]), stage("c", &["a"]), stage("d", &["c"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    run.propose("b", 1, &["two"], &Reservation::Slot);
    let decision = run.finish("one", "a", StageOutcome::Failure);
    assert_eq!(kinds(&decision.events), ["stage_finished", "stage_skipped", "stage_skipped"]);
    assert_eq!(run.run.ended, None, "b still runs");
    run.finish("two", "b", StageOutcome::Success);
    assert_eq!(run.run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Failure));
}

#[test]
fn a_second_result_and_a_superseded_one_change_nothing() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    let old = run.lease("a");
    run.input(Input::LeaseLapsed(old.clone()));
    run.propose("a", 2, &["two"], &Reservation::Slot);
    assert!(run.report("one", &old, finished(StageOutcome::Success)).events.is_empty());
    let fenced = run.report("one", &old, Report::Started { at: Timestamp(1) });
    assert!(matches!(&fenced.answers[..], [Answer::Fence { .. }]), "the old holder is told to end: {fenced:?}");
    let new = run.lease("a");
    assert!(run.report("one", &new, finished(StageOutcome::Success)).answers.is_empty(), "only the holder speaks for an attempt");
    assert!(!run.report("two", &new, finished(StageOutcome::Failure)).events.is_empty());
    let again = run.report("two", &new, finished(StageOutcome::Success));
    assert!(again.events.is_empty() && matches!(&again.answers[..], [Answer::Acknowledge { .. }]));
}

#[test]
fn a_result_that_a_rogue_agent_replays_counts_only_where_neither_its_name_nor_its_fence_is_looked_at() {
    for guarded in [false, true] {
        let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"])]);
        run.propose("a", 1, &["rogue"], &Reservation::Slot);
        let old = run.lease("a");
        run.input(Input::AgentRevoked(old.clone()));
        run.propose("a", 2, &["two"], &Reservation::Slot);
        let new = run.lease("a");
        // What whoever compares neither would take it for.
        let attacks = if guarded { vec![("rogue", &old), ("two", &old), ("rogue", &new)] } else { vec![("two", &new)] };
        for (agent, lease) in attacks {
            let decision = run.report(agent, lease, finished(StageOutcome::Success));
            assert_eq!(decision.events.is_empty(), guarded, "{agent} with fence {}", lease.fence);
        }
    }
}

#[test]
fn a_lost_safe_stage_runs_again_until_its_retries_are_used_up() {
    let mut run = Driven::new(vec![stage("a", &[])]);
    for attempt in 1..=3 {
        run.propose("a", attempt, &["one"], &Reservation::Slot);
        let lease = run.lease("a");
        run.input(Input::LeaseLapsed(lease));
    }
    assert_eq!(run.run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Failure));
}

#[test]
fn a_lost_once_stage_never_runs_again_and_the_run_is_unknown() {
    let mut once = stage("a", &[]);
    once.effect = StageEffect::Once;
    once.retry = None;
    let mut run = Driven::new(vec![once, stage("b", &["a"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    let lease = run.lease("a");
    assert!(run.input(Input::NotTakenUp(lease.clone())).events.is_empty(), "silence does not prove that it did not start");
    run.input(Input::LeaseLapsed(lease));
    assert_eq!(run.run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Unknown));
    assert!(matches!(run.run.stages[1].status, Status::Skipped(SkipReason::NeedFailed { .. })));
}

#[test]
fn a_lock_is_not_given_to_another_while_its_holder_is_only_silent() {
    let mut locked = stage("a", &[]);
    locked.lock = Some("production".to_owned());
    let mut run = Driven::new(vec![locked]);
    run.input(Input::LockGranted(0));
    run.propose("a", 1, &["one", "two"], &Reservation::Slot);
    let lease = run.lease("a");
    assert!(run.input(Input::NotTakenUp(lease.clone())).events.is_empty(), "it may have begun and been cut off");
    let decision = run.input(Input::LeaseLapsed(lease));
    assert_eq!(kinds(&decision.events)[0], "stage_lost");
}

#[test]
fn a_declined_award_goes_to_the_next_offer() {
    let mut run = Driven::new(vec![stage("a", &[])]);
    run.propose("a", 1, &["one", "two"], &Reservation::Slot);
    let first = run.lease("a");
    let decision = run.report("one", &first, Report::Declined { reason: "all slots are busy".to_owned() });
    assert_eq!(kinds(&decision.events), ["stage_declined", "stage_awarded"]);
    assert!(run.lease("a").fence > first.fence);
    let second = run.lease("a");
    let decision = run.input(Input::NotTakenUp(second));
    assert_eq!(kinds(&decision.events), ["stage_declined"], "nobody is left");
    assert!(matches!(effects(&run.run)[..], [Effect::Auction { .. }]));
}

#[test]
fn a_cancelled_run_ends_when_its_last_attempt_is_dead_or_fenced() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &[]), stage("c", &["a", "b"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    run.propose("b", 1, &["two"], &Reservation::Slot);
    run.input(cancel("ann"));
    assert_eq!(run.run.ended, None);
    assert!(effects(&run.run).iter().all(|effect| matches!(effect, Effect::Cancel { .. })));
    run.finish("one", "a", StageOutcome::Aborted);
    let unreachable = run.lease("b");
    run.input(Input::LeaseLapsed(unreachable));
    assert_eq!(run.run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Aborted));
    assert!(run.input(cancel("bob")).events.is_empty());
}

#[test]
fn offers_for_the_next_stage_are_taken_while_this_one_runs() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &[]), stage("c", &["a", "b"])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    assert!(!effects(&run.run).iter().any(|effect| matches!(effect, Effect::Auction { after, .. } if !after.is_empty())));
    run.propose("b", 1, &["two"], &Reservation::Slot);
    let ahead = effects(&run.run).into_iter().find_map(|effect| match effect {
        Effect::Auction { attempt, after, .. } => Some((attempt, after)),
        Effect::Assign { .. } | Effect::Cancel { .. } | Effect::Poll { .. } => None,
    });
    assert_eq!(ahead, Some((run.attempt("c", 1), vec![run.attempt("a", 1), run.attempt("b", 1)])));
}

#[test]
fn a_plan_without_stages_succeeds_at_once() {
    let run = Driven::new(Vec::new());
    assert_eq!(kinds(&run.log[0].1), ["run_accepted", "run_finished"]);
}

#[test]
fn an_event_that_cannot_follow_is_named() {
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"])]);
    let early = RunEvent::StageReady { stage: run.attempt("b", 1).stage, attempt: 1 };
    let position = crate::core::Position { sequence: 9, at: Timestamp(9) };
    let error = run.run.apply(position, &early).unwrap_err();
    assert!(error.to_string().contains("`stage_ready` at sequence 9"), "{error}");
}

#[test]
fn who_declined_is_passed_over_in_that_auction_and_not_in_the_next() {
    let mut run = Driven::new(vec![stage("a", &[])]);
    run.propose("a", 1, &["one"], &Reservation::Slot);
    let first = run.lease("a");
    run.report("one", &first, Report::Declined { reason: "x".repeat(1_000_000) });
    assert!(run.propose("a", 1, &["one"], &Reservation::Slot).events.is_empty(), "the same auction, told again");
    let at = run.shape.find(&model::StageId::of("a")).unwrap();
    run.proposals.get_mut(&at).unwrap().auction = model::AuctionId::of(&run.attempt("a", 1), 2);
    assert_eq!(kinds(&run.input(Input::Proposed(at)).events), ["stage_awarded"]);
    let bytes: usize = run.log.iter().map(|(_, events)| serde_json::to_vec(events).unwrap().len()).sum();
    assert!(bytes < 10_000, "a reason is a sentence, not a megabyte: {bytes}");
}
