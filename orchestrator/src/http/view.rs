//! Views of a run: its state, as readers of the API see it.

use apispec::{
    AttemptStatus, AttemptView, DeclineView, EndView, EventView, LockHolderView, OfferView, OutputView, PlanView, ReservationView,
    RetryReasonView, RunDetail, RunStatus, RunView, SegmentView, SkipView, StageRef, StageStatus, StageView,
};
use model::{
    StageId, Timestamp,
    event::run::{LogSegment, Planned, SkipReason},
    plan::RetryReason,
    protocol::auction::{RankedOffer, Reservation},
};

use super::view_waits;
pub(super) use super::view_waits::waits;
use crate::{
    core::{Attempt, AttemptEnd, Run, Status, shape::Index},
    runs::{Appended, Damage, Runs},
};

/// A run, of which `runs` knows whether it is damaged.
pub fn run(run: &Run, runs: &Runs) -> RunView {
    RunView { status: status_of_run(run, runs), ..sound(run) }
}

/// A run as its log has it.
pub(crate) fn sound(run: &Run) -> RunView {
    let context = &run.trigger.context;
    RunView {
        id: run.id.clone(),
        project: run.trigger.project.clone(),
        event: context.event,
        branch: context.branch.clone(),
        commit: context.commit.clone(),
        pipeline_path: run.trigger.pipeline_path.clone(),
        accepted_at: run.accepted_at,
        plan: planned(&run.planned, run.shape.len()),
        rerun_of: run.trigger.rerun.as_ref().map(|rerun| rerun.of.clone()),
        status: status_of_sound(run),
    }
}

/// What a pipeline file gave: a plan of so many stages, or none.
pub(super) fn planned(planned: &Planned, stages: usize) -> PlanView {
    match planned {
        Planned::Plan { digest, warnings, warnings_left_out, libraries: _ } => {
            PlanView::Planned { digest: *digest, stages, warnings: warnings.clone(), warnings_left_out: *warnings_left_out }
        }
        Planned::Refused { diagnostics } => PlanView::Refused { diagnostics: diagnostics.clone() },
        Planned::NotTriggered { reason } => PlanView::NotTriggered { reason: reason.clone() },
    }
}

/// Where the run stands.
pub(super) fn status_of_run(run: &Run, runs: &Runs) -> RunStatus {
    if let Some(Damage { why, help }) = runs.damage(&run.id) {
        return RunStatus::Damaged { why, help };
    }
    status_of_sound(run)
}

fn status_of_sound(run: &Run) -> RunStatus {
    match (&run.ended, &run.cancelled) {
        (Some((outcome, at)), cancelled) => {
            RunStatus::Ended { outcome: *outcome, at: *at, cancelled_by: cancelled.as_ref().map(|cancelled| cancelled.by.clone()) }
        }
        (None, Some(cancelled)) => {
            RunStatus::Cancelling { by: cancelled.by.clone(), force: cancelled.forced.is_some(), since: cancelled.since }
        }
        (None, None) => run.held.as_ref().map_or(RunStatus::Running, |older| RunStatus::Held { older: older.clone() }),
    }
}

/// A run with its stages. The other runs say who holds a lock, and why a ready stage found no agent in its last auction.
pub fn detail(state: &Run, runs: &Runs) -> RunDetail {
    RunDetail { run: run(state, runs), stages: (0..state.shape.len()).map(|at| stage(state, at, runs)).collect() }
}

/// How the run ended, if it did.
pub(crate) fn end(run: &Run) -> Option<EndView> {
    run.ended.map(|(outcome, ended_at)| EndView { outcome, ended_at })
}

/// The events of a record.
pub fn events(appended: &Appended) -> impl Iterator<Item = EventView> + '_ {
    let (sequence, at) = (appended.sequence, appended.record.at);
    (0..).zip(&appended.record.events).map(move |(index, event)| EventView { sequence, index, at, event: event.clone() })
}

/// A stage with its attempts.
pub(super) fn stage(run: &Run, at: Index, runs: &Runs) -> StageView {
    let (planned, state) = (run.shape.stage(at), &*run.stages[at]);
    StageView {
        id: planned.id.clone(),
        path: planned.path.clone(),
        needs: run.shape.needs(at).map(|need| reference(run, need)).collect(),
        effect: planned.effect,
        status: status(run, at, runs),
        attempts: state.attempts.iter().map(attempt).collect(),
        waits: waits(state),
        lock: state.lock.clone(),
        reused_from: state.reused_from.clone(),
        may_fail: planned.allow_failure,
        outputs: view_waits::outputs(&state.outputs),
    }
}

/// Names a stage.
pub(crate) fn reference(run: &Run, at: Index) -> StageRef {
    let stage = run.shape.stage(at);
    StageRef { id: stage.id.clone(), path: stage.path.clone() }
}

/// Where the stage stands.
pub(super) fn status(run: &Run, at: Index, runs: &Runs) -> StageStatus {
    status_among(run, at, Some(runs))
}

/// Where the stage stands by its own log: without what other runs, and auctions, have to do with it.
pub(crate) fn own_status(run: &Run, at: Index) -> StageStatus {
    status_among(run, at, None)
}

fn status_among(run: &Run, at: Index, runs: Option<&Runs>) -> StageStatus {
    let stage = &run.stages[at];
    let last = || stage.attempts.last().expect("a stage that was placed has an attempt");
    match &stage.status {
        Status::Waiting => {
            let unmet = run.shape.needs(at).filter(|need| !run.ended_well(*need));
            StageStatus::Waiting { on: unmet.map(|need| reference(run, need)).collect() }
        }
        Status::Gated { since } => StageStatus::Gated { since: *since },
        Status::Queued { lock, since } => queued(run, lock, *since, runs),
        Status::Pausing { attempt, after, due_at } => {
            let after = match after {
                RetryReason::Failed => RetryReasonView::Failed,
                RetryReason::Lost => RetryReasonView::Lost,
            };
            StageStatus::Pausing { attempt: *attempt, after, due_at: *due_at }
        }
        Status::Ready { attempt, since, .. } => {
            let declined = stage.attempts.iter().filter(|award| award.number == *attempt).filter_map(decline).collect();
            let unplaced = runs.and_then(|runs| runs.unplaced(&run.id, &run.shape.stage(at).id));
            let unplaced =
                unplaced.map(|agents| agents.into_iter().map(|one| DeclineView { agent: one.agent, reason: one.reason }).collect());
            StageStatus::Ready { attempt: *attempt, since: *since, declined, unplaced }
        }
        Status::Awarded => StageStatus::Awarded { agent: last().agent.clone(), since: last().awarded_at },
        Status::Running => StageStatus::Running { agent: last().agent.clone(), since: last().started_at.unwrap_or(last().awarded_at) },
        Status::Exiting { outcome, since } => StageStatus::Exiting { outcome: *outcome, since: *since },
        Status::Ended(outcome) => {
            let last = stage.attempts.last();
            let at = match last.and_then(|last| last.end.as_ref()) {
                Some(AttemptEnd::Finished { at, .. }) if stage.waits.is_empty() => *at,
                Some(AttemptEnd::Finished { .. } | AttemptEnd::Declined { .. } | AttemptEnd::Lost { .. }) | None => {
                    stage.over_at.expect("it is over")
                }
            };
            StageStatus::Ended { outcome: *outcome, reason: stage.reason.clone(), started_at: last.and_then(|last| last.started_at), at }
        }
        Status::Lost => StageStatus::Lost { reason: stage.reason.clone().unwrap_or_default() },
        Status::Skipped(reason) => StageStatus::Skipped { reason: skipped(run, reason) },
    }
}

fn queued(run: &Run, lock: &str, since: Timestamp, runs: Option<&Runs>) -> StageStatus {
    let others: Vec<_> =
        runs.map(Runs::open).unwrap_or_default().into_iter().filter(|other| other.trigger.project == run.trigger.project).collect();
    let holder = others.iter().find_map(|other| {
        let at = other.holder_of(lock)?;
        Some(LockHolderView { run: other.id.clone(), stage: reference(other, at) })
    });
    let queued = others.iter().flat_map(|other| other.held_up.iter().map(|at| &other.stages[*at].status));
    let before =
        queued.filter(|status| matches!(status, Status::Queued { lock: other, since: earlier } if other == lock && *earlier < since));
    StageStatus::Queued { lock: lock.to_owned(), since, holder, before: before.count() }
}

fn skipped(run: &Run, reason: &SkipReason) -> SkipView {
    let named = |stage: &StageId| reference(run, run.shape.find(stage).expect("a stage is skipped for one of the same plan"));
    match reason {
        SkipReason::NeedFailed { stage } => SkipView::NeedFailed { stage: named(stage) },
        SkipReason::Cancelled => SkipView::Cancelled,
        SkipReason::Condition { condition, because } => SkipView::Condition { condition: condition.clone(), because: because.clone() },
        SkipReason::Fanout { failed } => SkipView::Fanout { failed: named(failed) },
        SkipReason::NothingToUndo => SkipView::NothingToUndo,
        SkipReason::NotWanted => SkipView::NotWanted,
        SkipReason::Stopped { failed } => SkipView::Stopped { failed: named(failed) },
    }
}

fn decline(attempt: &Attempt) -> Option<DeclineView> {
    match &attempt.end {
        Some(AttemptEnd::Declined { reason }) => Some(DeclineView { agent: attempt.agent.clone(), reason: reason.clone() }),
        Some(AttemptEnd::Finished { .. } | AttemptEnd::Lost { .. }) | None => None,
    }
}

fn attempt(attempt: &Attempt) -> AttemptView {
    AttemptView {
        attempt: attempt.number,
        fence: attempt.fence,
        agent: attempt.agent.clone(),
        auction: attempt.auction.clone(),
        offers: attempt.offers.iter().map(offer).collect(),
        awarded_at: attempt.awarded_at,
        status: match (&attempt.end, attempt.started_at) {
            (None, None) => AttemptStatus::Awarded,
            (None, Some(since)) => AttemptStatus::Running { since },
            (Some(AttemptEnd::Declined { reason }), _) => AttemptStatus::Declined { reason: reason.clone() },
            (Some(AttemptEnd::Lost { reason }), _) => AttemptStatus::Lost { reason: reason.clone() },
            (Some(AttemptEnd::Finished { outcome, reason, at }), started_at) => {
                AttemptStatus::Finished { outcome: *outcome, reason: reason.clone(), started_at, at: *at }
            }
        },
        output: attempt.log.as_ref().map(|log| OutputView { length: log.length, segments: log.segments.iter().map(segment).collect() }),
    }
}

fn segment(segment: &LogSegment) -> SegmentView {
    let LogSegment { bytes, length, offset, lines_before, .. } = *segment;
    SegmentView { bytes, length, offset, lines_before }
}

/// An offer of an auction.
pub(super) fn offer(ranked: &RankedOffer) -> OfferView {
    OfferView {
        agent: ranked.agent.clone(),
        price_micros_per_s: ranked.offer.price_micros_per_s,
        start_ms: ranked.offer.start_ms,
        reservation: match ranked.offer.reservation {
            Reservation::Slot => ReservationView::Slot,
            Reservation::Handover => ReservationView::Handover,
            Reservation::Quote => ReservationView::Quote,
        },
    }
}
