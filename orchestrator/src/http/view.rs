//! Views of a run: its state, as readers of the API see it.

use apispec::{
    AttemptStatus, AttemptView, DeclineView, EndView, EventView, OfferView, OutputView, PlanView, ReservationView, RunDetail, RunStatus,
    RunView, SegmentView, SkipView, StageRef, StageStatus, StageView,
};
use model::{
    StageId,
    event::run::{LogSegment, Planned, SkipReason},
    protocol::auction::{Declined, RankedOffer, Reservation},
};

use crate::{
    core::{Attempt, AttemptEnd, Run, Status, shape::Index},
    runs::Appended,
};

/// A run.
pub(super) fn run(run: &Run) -> RunView {
    let context = &run.trigger.context;
    RunView {
        id: run.id.clone(),
        project: run.trigger.project.clone(),
        event: context.event,
        branch: context.branch.clone(),
        commit: context.commit.clone(),
        pipeline_path: run.trigger.pipeline_path.clone(),
        accepted_at: run.accepted_at,
        plan: match &run.planned {
            Planned::Plan { digest, .. } => PlanView::Planned { digest: *digest, stages: run.shape.len() },
            Planned::Refused { diagnostics } => PlanView::Refused { diagnostics: diagnostics.clone() },
            Planned::NotTriggered { reason } => PlanView::NotTriggered { reason: reason.clone() },
        },
        status: match (&run.ended, &run.cancelled) {
            (Some((outcome, at)), cancelled) => {
                RunStatus::Ended { outcome: *outcome, at: *at, cancelled_by: cancelled.as_ref().map(|cancelled| cancelled.by.clone()) }
            }
            (None, Some(cancelled)) => RunStatus::Cancelling { by: cancelled.by.clone(), since: cancelled.since },
            (None, None) => RunStatus::Running,
        },
    }
}

/// A run with its stages. `unplaced` says why a ready stage found no agent in its last auction.
pub(super) fn detail(state: &Run, unplaced: impl Fn(&StageId) -> Option<Vec<Declined>>) -> RunDetail {
    RunDetail { run: run(state), stages: (0..state.shape.len()).map(|at| stage(state, at, &unplaced)).collect() }
}

/// How the run ended, if it did.
pub(crate) fn end(run: &Run) -> Option<EndView> {
    run.ended.map(|(outcome, ended_at)| EndView { outcome, ended_at })
}

/// The events of a record.
pub(super) fn events(appended: &Appended) -> impl Iterator<Item = EventView> + '_ {
    let (sequence, at) = (appended.sequence, appended.record.at);
    (0..).zip(&appended.record.events).map(move |(index, event)| EventView { sequence, index, at, event: event.clone() })
}

fn stage(run: &Run, at: Index, unplaced: impl Fn(&StageId) -> Option<Vec<Declined>>) -> StageView {
    let (planned, state) = (run.shape.stage(at), &*run.stages[at]);
    StageView {
        id: planned.id.clone(),
        path: planned.path.clone(),
        needs: run.shape.needs(at).map(|need| reference(run, need)).collect(),
        effect: planned.effect,
        status: status(run, at, unplaced),
        attempts: state.attempts.iter().map(attempt).collect(),
    }
}

fn reference(run: &Run, at: Index) -> StageRef {
    let stage = run.shape.stage(at);
    StageRef { id: stage.id.clone(), path: stage.path.clone() }
}

fn status(run: &Run, at: Index, unplaced: impl Fn(&StageId) -> Option<Vec<Declined>>) -> StageStatus {
    let stage = &run.stages[at];
    let last = || stage.attempts.last().expect("a stage that was placed has an attempt");
    match &stage.status {
        Status::Waiting | Status::Gated { .. } | Status::Queued { .. } | Status::Pausing { .. } => {
            let unmet = run.shape.needs(at).filter(|need| !run.ended_well(*need));
            StageStatus::Waiting { on: unmet.map(|need| reference(run, need)).collect() }
        }
        Status::Ready { attempt, since, .. } => {
            let declined = stage.attempts.iter().filter(|award| award.number == *attempt).filter_map(decline).collect();
            let unplaced = unplaced(&run.shape.stage(at).id);
            let unplaced =
                unplaced.map(|agents| agents.into_iter().map(|one| DeclineView { agent: one.agent, reason: one.reason }).collect());
            StageStatus::Ready { attempt: *attempt, since: *since, declined, unplaced }
        }
        Status::Awarded => StageStatus::Awarded { agent: last().agent.clone(), since: last().awarded_at },
        Status::Running => StageStatus::Running { agent: last().agent.clone(), since: last().started_at.unwrap_or(last().awarded_at) },
        Status::Exiting { since, .. } => match stage.attempts.last() {
            Some(last) => StageStatus::Running { agent: last.agent.clone(), since: last.started_at.unwrap_or(*since) },
            None => StageStatus::Waiting { on: Vec::new() },
        },
        Status::Ended(outcome) => {
            let last = stage.attempts.last();
            let at = match last.and_then(|last| last.end.as_ref()) {
                Some(AttemptEnd::Finished { at, .. }) if stage.waits.is_empty() => *at,
                _ => stage.over_at.expect("it is over"),
            };
            StageStatus::Ended { outcome: *outcome, reason: stage.reason.clone(), started_at: last.and_then(|last| last.started_at), at }
        }
        Status::Lost => match &last().end {
            Some(AttemptEnd::Lost { reason }) => StageStatus::Lost { reason: reason.clone() },
            Some(AttemptEnd::Declined { .. } | AttemptEnd::Finished { .. }) | None => {
                unreachable!("the last attempt of a lost stage was lost")
            }
        },
        Status::Skipped(SkipReason::Cancelled | SkipReason::Condition { .. } | SkipReason::NothingToUndo | SkipReason::NotWanted) => {
            StageStatus::Skipped { reason: SkipView::Cancelled }
        }
        Status::Skipped(
            SkipReason::NeedFailed { stage } | SkipReason::Fanout { failed: stage } | SkipReason::Stopped { failed: stage },
        ) => {
            let at = run.shape.find(stage).expect("a stage is skipped for one of the same plan");
            StageStatus::Skipped { reason: SkipView::NeedFailed { stage: reference(run, at) } }
        }
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

fn offer(ranked: &RankedOffer) -> OfferView {
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
