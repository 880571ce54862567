//! What follows from an input: the events that one append stores together.
//!
//! A decision takes everything with it that follows at once: the end of a stage, the readiness of the next, and its award where an offer
//! is at hand. So a stage's end and the next one's start are one durable write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    AgentName, AttemptId, RunOutcome, StageOutcome, Timestamp,
    event::run::{CancelReason, Planned, RunEvent, SkipReason},
    plan::{Effect, RetryReason},
    protocol::{
        agent::{AgentReport, Lease, Report, ReportKind},
        auction::{Proposal, Reservation},
    },
    trigger::Trigger,
};

use super::{
    shape::Index,
    state::{AttemptEnd, Position, Run, Status},
};

/// Characters of a reason that are stored. It is a sentence for a person.
const REASON_CHARACTERS_MAX: usize = 1_000;

/// The freshest proposal for each stage that waits for one. They are soft: the log has none of them.
pub type Proposals = BTreeMap<Index, Proposal>;

/// What can happen to a run from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An agent speaks of an attempt. Who it is was taken from the subject.
    Report {
        /// The speaker.
        agent: AgentName,
        /// What it says.
        report: AgentReport,
    },
    /// A proposal for this stage is among the proposals now.
    Proposed(Index),
    /// Somebody wants the run to end.
    Cancel {
        /// Who.
        by: String,
    },
    /// The holder has not renewed its lease in time.
    LeaseLapsed(Lease),
    /// The winner has not begun while its offer was valid, and by its own clock never will.
    NotTakenUp(Lease),
}

/// What follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be appended as one record; nothing if empty.
    pub events: Vec<RunEvent>,
    /// To be sent once the events are stored.
    pub answers: Vec<Answer>,
}

/// What an agent is told about its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is in the log, or does not matter any more.
    Acknowledge {
        /// Whom to tell.
        agent: AgentName,
        /// Which attempt.
        lease: Lease,
        /// Which report.
        report: ReportKind,
    },
    /// The attempt is not the agent's any more: end it.
    Fence {
        /// Whom to tell.
        agent: AgentName,
        /// Which attempt.
        lease: Lease,
    },
}

/// The events of a run's first record.
pub fn accept(run: &Run, proposals: &Proposals, now: Timestamp) -> Vec<RunEvent> {
    let mut draft = Draft::new(run, proposals, now);
    draft.events.push(RunEvent::RunAccepted { trigger: run.trigger.clone(), planned: run.planned.clone() });
    for at in 0..run.shape.len() {
        if run.stages[at].unmet == 0 {
            draft.ready(at, 1);
        }
    }
    draft.settle();
    draft.events
}

/// A run before its first event, for [`accept`] and for the first record of a replay.
pub fn before(trigger: &Trigger, planned: Planned, shape: Arc<super::Shape>, position: Position) -> Run {
    Run::accepted(trigger.run(), trigger.clone(), planned, shape, position)
}

/// The events that `inputs` cause, one after the other, and the answers to those who sent them.
pub fn decide(run: &Run, proposals: &Proposals, inputs: &[Input], now: Timestamp) -> Decision {
    let mut draft = Draft::new(run, proposals, now);
    let answers = inputs.iter().filter_map(|input| draft.take(input)).collect();
    draft.settle();
    Decision { events: draft.events, answers }
}

/// A decision in the making: the events so far, and the state after them.
struct Draft<'a> {
    run: Run,
    proposals: &'a Proposals,
    now: Timestamp,
    events: Vec<RunEvent>,
    /// Agents whose one freed slot this decision has given away already.
    handed_over: BTreeSet<AgentName>,
}

impl<'a> Draft<'a> {
    fn new(run: &Run, proposals: &'a Proposals, now: Timestamp) -> Self {
        Self { run: run.clone(), proposals, now, events: Vec::new(), handed_over: BTreeSet::new() }
    }

    fn take(&mut self, input: &Input) -> Option<Answer> {
        match input {
            Input::Report { agent, report } => return self.report(agent, report),
            Input::Proposed(at) => self.award(*at),
            Input::Cancel { by } => self.cancel(by),
            Input::LeaseLapsed(lease) => {
                if let Some(at) = self.held(lease) {
                    self.lost(at, "its agent's lease lapsed");
                }
            }
            Input::NotTakenUp(lease) => {
                if let Some(at) = self.held(lease)
                    && self.run.stages[at].status == Status::Awarded
                    && self.run.shape.stage(at).effect == Effect::Safe
                {
                    self.declined(at, "it did not take the award up in time");
                }
            }
        }
        None
    }

    fn push(&mut self, event: RunEvent) {
        // The sequence, and with it an award's fence, is known once the record is stored; nothing in a draft asks for it.
        let position = Position { sequence: 0, at: self.now };
        self.run.apply(position, &event).expect("a decision only makes events that can follow");
        self.events.push(event);
    }

    fn id(&self, at: Index) -> model::StageId {
        self.run.shape.stage(at).id.clone()
    }

    /// The stage whose current holder has this lease.
    fn held(&self, lease: &Lease) -> Option<Index> {
        self.run.attempt_of(lease).map(|(at, _)| at).filter(|_| self.run.holds(lease))
    }

    fn report(&mut self, agent: &AgentName, report: &AgentReport) -> Option<Answer> {
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
                self.push(RunEvent::StageFinished {
                    stage: self.id(at),
                    attempt: attempt.number,
                    outcome: *outcome,
                    reason: reason.as_deref().map(bounded),
                    started_at: *started_at,
                    finished_at: *finished_at,
                    outputs: outputs.clone(),
                });
                self.ended(at);
            }
            Report::Declined { reason } if held && self.run.stages[at].status == Status::Awarded => self.declined(at, reason),
            Report::Declined { reason } | Report::Lost { reason } if held => self.lost(at, reason),
            Report::LogStored { log } if attempt.log.is_none() && self.is_newest(at, &attempt) => {
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
    fn is_newest(&self, at: Index, attempt: &super::Attempt) -> bool {
        let newest = self.run.stages[at].attempts.iter().rev().find(|other| other.number == attempt.number);
        newest.is_some_and(|newest| newest.fence == attempt.fence)
    }

    fn ready(&mut self, at: Index, attempt: u32) {
        self.push(RunEvent::StageReady { stage: self.id(at), attempt });
        self.award(at);
    }

    /// Gives a ready stage to the best offer that is at hand.
    fn award(&mut self, at: Index) {
        let Some(Status::Ready { attempt, .. }) = self.run.stages.get(at).map(|stage| &stage.status) else { return };
        let wanted = AttemptId { run: self.run.id.clone(), stage: self.id(at), attempt: *attempt };
        let Some(proposal) = self.proposals.get(&at).filter(|proposal| proposal.attempt == wanted) else { return };
        // Who turned this very offer's award down would do so again; what it offers later is another matter.
        let declined = |agent: &AgentName| {
            let mut awards = self.run.stages[at].attempts.iter().rev().take_while(|award| award.number == wanted.attempt);
            awards.any(|award| award.agent == *agent && award.auction == proposal.auction)
        };
        let best = proposal.offers.iter().find(|ranked| {
            let given_away = ranked.offer.reservation == Reservation::Handover && self.handed_over.contains(&ranked.agent);
            !given_away && !declined(&ranked.agent)
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

    fn declined(&mut self, at: Index, reason: &str) {
        let Some(holder) = self.run.stages[at].holder() else { return };
        let (attempt, agent) = (holder.number, holder.agent.clone());
        self.push(RunEvent::StageDeclined { stage: self.id(at), attempt, agent, reason: bounded(reason) });
        if self.run.cancelled.is_some() {
            self.push(RunEvent::StageSkipped { stage: self.id(at), reason: SkipReason::Cancelled });
        } else {
            self.award(at);
        }
    }

    fn lost(&mut self, at: Index, reason: &str) {
        let Some(attempt) = self.run.stages[at].holder().map(|holder| holder.number) else { return };
        self.push(RunEvent::StageLost { stage: self.id(at), attempt, reason: bounded(reason) });
        let planned = self.run.shape.stage(at);
        let losses = self.run.stages[at].attempts.iter().filter(|a| matches!(a.end, Some(AttemptEnd::Lost { .. }))).count();
        let again = planned.effect == Effect::Safe && losses <= planned.retries(RetryReason::Lost) as usize && self.run.cancelled.is_none();
        if again {
            self.ready(at, attempt + 1);
        } else {
            self.ended(at);
        }
    }

    fn cancel(&mut self, by: &str) {
        if self.run.cancelled.is_some() || self.run.ended.is_some() {
            return;
        }
        self.push(RunEvent::CancelRequested { by: by.to_owned(), reason: CancelReason::Person, force: false });
        for at in 0..self.run.stages.len() {
            if matches!(self.run.stages[at].status, Status::Waiting | Status::Ready { .. }) {
                self.push(RunEvent::StageSkipped { stage: self.id(at), reason: SkipReason::Cancelled });
            }
        }
    }

    /// What the end of a stage means to those that need it.
    fn ended(&mut self, at: Index) {
        let shape = Arc::clone(&self.run.shape);
        if self.run.stages[at].status == Status::Ended(StageOutcome::Success) {
            for dependent in shape.dependents(at) {
                let stage = &self.run.stages[dependent];
                if stage.status == Status::Waiting && stage.unmet == 0 {
                    self.ready(dependent, 1);
                }
            }
            return;
        }
        let failed = self.id(at);
        for next in shape.transitive_dependents(at) {
            if self.run.stages[next].status == Status::Waiting {
                let reason = SkipReason::NeedFailed { stage: failed.clone() };
                self.push(RunEvent::StageSkipped { stage: self.id(next), reason });
            }
        }
    }

    /// Ends the run when nothing is left to do.
    fn settle(&mut self) {
        if self.run.ended.is_none() && self.run.open == 0 {
            self.push(RunEvent::RunFinished { outcome: outcome(&self.run) });
        }
    }
}

/// A reason as it is stored: it comes from outside, and a record must stay within the bus's limit.
fn bounded(reason: &str) -> String {
    reason.chars().take(REASON_CHARACTERS_MAX).collect()
}

/// The worst of what happened to the stages; a refused pipeline is a failure.
fn outcome(run: &Run) -> RunOutcome {
    match run.planned {
        Planned::Plan { .. } => {}
        Planned::Refused { .. } => return RunOutcome::Failure,
        Planned::NotTriggered { .. } => return RunOutcome::Skipped,
    }
    let of_stage = |at: Index| match &run.stages[at].status {
        Status::Ended(StageOutcome::Aborted) | Status::Skipped(SkipReason::Cancelled) => RunOutcome::Aborted,
        Status::Lost if run.shape.stage(at).effect == Effect::Once => RunOutcome::Unknown,
        Status::Lost if run.cancelled.is_some() => RunOutcome::Aborted,
        Status::Ended(StageOutcome::Failure) | Status::Lost => RunOutcome::Failure,
        Status::Ended(StageOutcome::Unstable) => RunOutcome::Unstable,
        Status::Ended(StageOutcome::Success)
        | Status::Skipped(_)
        | Status::Waiting
        | Status::Ready { .. }
        | Status::Awarded
        | Status::Running => RunOutcome::Success,
    };
    (0..run.stages.len()).map(of_stage).max().unwrap_or(RunOutcome::Success)
}
