//! What agents say, and which agent gets what.

use std::time::Duration;

use model::{
    AgentName, AttemptId, StageOutcome,
    event::run::{Outputs, RunEvent, SkipReason},
    plan::{Effect, RetryReason},
    protocol::{
        agent::{AgentReport, Lease, Report},
        auction::Reservation,
    },
};

use super::{Answer, Draft, bounded};
use crate::core::{
    shape::Index,
    stage::{Attempt, AttemptEnd, Status},
    written::written,
};

/// Bytes of what a stage leaves in all, as its record has it: a record takes more than one stage's end. An agent keeps far less; one that
/// does not is not to stop the run.
const OUTPUTS_BYTES_MAX: usize = 512 * 1024;

/// A result as its record takes it.
fn bounded_result(outcome: StageOutcome, reason: Option<&str>, outputs: &Outputs) -> (StageOutcome, Option<String>, Outputs) {
    let bytes = written(outputs);
    if bytes <= OUTPUTS_BYTES_MAX {
        let mut outputs = outputs.clone();
        outputs.steps.truncate(Outputs::STEPS_MAX);
        return (outcome, reason.map(bounded), outputs);
    }
    let too_much = format!("what it leaves has {bytes} bytes as it is noted, over the limit of {OUTPUTS_BYTES_MAX}");
    (StageOutcome::Failure, Some(too_much), Outputs::default())
}

impl Draft<'_> {
    /// The stage whose current holder has this lease.
    pub(super) fn held(&self, lease: &Lease) -> Option<Index> {
        self.run.attempt_of(lease).map(|(at, _)| at).filter(|_| self.run.holds(lease))
    }

    pub(super) fn report(&mut self, agent: &AgentName, report: &AgentReport) -> Option<Answer> {
        let lease = &report.lease;
        let known = self.run.attempt_of(lease).map(|(at, attempt)| (at, attempt.clone()));
        let acknowledge = Some(Answer::Acknowledge { agent: agent.clone(), lease: lease.clone(), report: report.report.kind() });
        let Some((at, attempt)) = known else {
            return Some(Answer::Fence { agent: agent.clone(), lease: lease.clone() });
        };
        if attempt.agent != *agent {
            return None;
        }
        let held = self.run.holds(lease);
        match &report.report {
            Report::Started { .. } if !held && !matches!(attempt.end, Some(AttemptEnd::Finished { .. })) => {
                return Some(Answer::Fence { agent: agent.clone(), lease: lease.clone() });
            }
            Report::Started { at: started } if held && self.run.stages[at].status == Status::Awarded => {
                self.push(RunEvent::StageStarted { stage: self.id(at), attempt: attempt.number, at: *started });
            }
            Report::Finished { outcome, reason, started_at, finished_at, outputs } if held => {
                let (outcome, reason, outputs) = bounded_result(*outcome, reason.as_deref(), outputs);
                let (started_at, finished_at) = (*started_at, *finished_at);
                let (stage, attempt) = (self.id(at), attempt.number);
                self.push(RunEvent::StageFinished { stage, attempt, outcome, reason, started_at, finished_at, outputs });
                self.attempted(at);
            }
            Report::Declined { reason } if held && self.run.stages[at].status == Status::Awarded => self.declined(at, reason),
            Report::Declined { reason } | Report::Lost { reason } if held => self.lost(at, reason),
            // Of a list of parts that no record takes, or no output has, nothing is noted: the output is shown as never stored.
            Report::LogStored { log }
                if attempt.log.is_none() && self.is_newest(at, &attempt) && log.is_sound() && written(log) <= OUTPUTS_BYTES_MAX =>
            {
                self.push(RunEvent::StageLogStored { stage: self.id(at), attempt: attempt.number, log: log.clone() });
            }
            Report::Started { .. }
            | Report::Finished { .. }
            | Report::Declined { .. }
            | Report::Lost { .. }
            | Report::LogStored { .. }
            | Report::RunRequested { .. } => {}
        }
        acknowledge
    }

    /// Whether no later award has the attempt's number: that one's output would be meant.
    fn is_newest(&self, at: Index, attempt: &Attempt) -> bool {
        let newest = self.run.stages[at].attempts.iter().rev().find(|other| other.number == attempt.number);
        newest.is_some_and(|newest| newest.fence == attempt.fence)
    }

    pub(super) fn ready(&mut self, at: Index, attempt: u32) {
        self.push(RunEvent::StageReady { stage: self.id(at), attempt });
        self.award(at);
    }

    /// Gives a ready stage to the best offer that is at hand.
    pub(super) fn award(&mut self, at: Index) {
        let Some(Status::Ready { attempt, .. }) = self.run.stages.get(at).map(|stage| &stage.status) else { return };
        let wanted = AttemptId { run: self.run.id.clone(), stage: self.id(at), attempt: *attempt };
        let Some(proposal) = self.context.proposals.get(&at).filter(|proposal| proposal.attempt == wanted) else { return };
        // Who turned this very offer's award down would do so again; what it offers later is another matter.
        let declined = |agent: &AgentName| {
            let mut awards = self.run.stages[at].attempts.iter().rev().take_while(|award| award.number == wanted.attempt);
            awards.any(|award| award.agent == *agent && award.auction == proposal.auction)
        };
        let best = proposal.offers.iter().find(|ranked| {
            let given_away = ranked.offer.reservation == Reservation::Handover && self.handed_over.contains(&ranked.agent);
            !given_away && !declined(&ranked.agent) && (self.context.may_have)(&self.run, at, &ranked.agent)
        });
        let Some(best) = best else { return };
        if best.offer.reservation == Reservation::Handover {
            self.handed_over.insert(best.agent.clone());
        }
        self.push(RunEvent::StageAwarded {
            stage: wanted.stage,
            attempt: wanted.attempt,
            agent: best.agent.clone(),
            auction: proposal.auction.clone(),
            offers: proposal.offers.clone(),
        });
    }

    /// Silence does not prove that it did not begin: who was cut off from the bus the moment it began runs on. Of a stage that may run twice
    /// that does no harm, but where the holder of a lock is to be alone: then its lease must end first.
    pub(super) fn not_taken_up(&mut self, lease: &Lease) {
        let Some(at) = self.held(lease) else { return };
        let stage = self.run.shape.stage(at);
        if self.run.stages[at].status == Status::Awarded && stage.effect == Effect::Safe && stage.lock.is_none() {
            self.declined(at, "it did not take the award up in time");
        }
    }

    fn declined(&mut self, at: Index, reason: &str) {
        let Some(holder) = self.run.stages[at].holder() else { return };
        let (attempt, agent) = (holder.number, holder.agent.clone());
        self.push(RunEvent::StageDeclined { stage: self.id(at), attempt, agent, reason: bounded(reason) });
        if let Some(failed) = self.run.stages[at].cancel_requested.clone() {
            self.skip(at, SkipReason::Fanout { failed });
        } else if self.run.ending(at).is_some() {
            self.skip(at, SkipReason::Cancelled);
        } else if let Some(failed) = self.stopped_by(at) {
            self.skip(at, SkipReason::Stopped { failed });
        } else {
            self.award(at);
        }
    }

    pub(super) fn lost(&mut self, at: Index, reason: &str) {
        let Some(attempt) = self.run.stages[at].holder().map(|holder| holder.number) else { return };
        self.push(RunEvent::StageLost { stage: self.id(at), attempt, reason: bounded(reason) });
        self.again_or_over(at, RetryReason::Lost);
    }

    /// What follows from an attempt's result.
    fn attempted(&mut self, at: Index) {
        match &self.run.stages[at].status {
            Status::Exiting { .. } if self.run.ending(at).is_some() => {
                self.end(at, StageOutcome::Aborted, Some("cancelled before its exit"));
            }
            Status::Exiting { .. } => self.exit(at),
            Status::Ended(StageOutcome::Failure) => self.again_or_over(at, RetryReason::Failed),
            Status::Ended(StageOutcome::Success | StageOutcome::Unstable | StageOutcome::Aborted)
            | Status::Waiting
            | Status::Gated { .. }
            | Status::Queued { .. }
            | Status::Ready { .. }
            | Status::Awarded
            | Status::Running
            | Status::Pausing { .. }
            | Status::Lost
            | Status::Skipped(_) => {}
        }
    }

    /// Starts the stage again, if it may after `reason`.
    fn again_or_over(&mut self, at: Index, reason: RetryReason) {
        let planned = self.run.shape.stage(at);
        let last = self.run.stages[at].attempts.last().map_or(0, |last| last.number);
        let retry = planned.retry.as_ref().filter(|retry| {
            planned.effect == Effect::Safe && retry.on.contains(&reason) && last < retry.attempts && self.run.ending(at).is_none()
        });
        let Some(backoff) = retry.filter(|_| self.stopped_by(at).is_none()).map(|retry| Duration::from_millis(retry.backoff_ms)) else {
            self.over(at);
            return;
        };
        let (attempt, due_at) = (last + 1, self.now + backoff);
        self.push(RunEvent::StageRetried { stage: self.id(at), attempt, after: reason, due_at });
        if backoff.is_zero() {
            self.ready(at, attempt);
        }
    }
}
