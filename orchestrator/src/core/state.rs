//! The state of a run: what its log says, folded.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    AgentName, AttemptId, AuctionId, RunId, RunOutcome, StageId, StageOutcome, Timestamp,
    diagnostic::Diagnostic,
    event::run::{Planned, RunEvent, SkipReason, StoredLog},
    protocol::{agent::Lease, auction::RankedOffer},
    trigger::Trigger,
};

use super::shape::{Index, Shape};

/// Where an event stands: the sequence and the time of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The record's sequence in the stream of run logs; an award's is its fence.
    pub sequence: u64,
    /// When it was decided.
    pub at: Timestamp,
}

/// An event that cannot follow what the log says so far: the log is damaged, or a decision is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{kind}` at sequence {sequence} cannot follow the log of {run}: {why}")]
pub struct Illegal {
    /// The run.
    pub run: RunId,
    /// The record's sequence.
    pub sequence: u64,
    /// The event's kind.
    pub kind: &'static str,
    /// What does not fit.
    pub why: String,
}

/// A run. A clone is cheap: stages are shared until they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The run.
    pub id: RunId,
    /// What caused it.
    pub trigger: Trigger,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The plan's graph; without stages where the pipeline was refused.
    pub shape: Arc<Shape>,
    /// The digest of the plan, or why there is none.
    pub planned: Planned,
    /// As in [`Shape`].
    pub stages: Vec<Arc<Stage>>,
    /// Stages that are ready, awarded or running.
    pub active: BTreeSet<Index>,
    /// Stages that have not come to an end.
    pub open: usize,
    /// Who asked for the end of the run, and when.
    pub cancelled: Option<(String, Timestamp)>,
    /// How and when it ended.
    pub ended: Option<(RunOutcome, Timestamp)>,
}

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Where it stands now.
    pub status: Status,
    /// Every award it ever had, in their order.
    pub attempts: Vec<Attempt>,
    /// How many of its needs have not succeeded yet.
    pub unmet: usize,
}

/// Where a stage stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// For what it needs.
    Waiting,
    /// To be placed.
    Ready {
        /// The attempt, from 1.
        attempt: u32,
        /// Since when.
        since: Timestamp,
        /// Who turned this attempt down, once for each time, the latest last.
        declined: Vec<AgentName>,
    },
    /// Given to the agent of the last attempt, which has not begun.
    Awarded,
    /// The agent of the last attempt has begun.
    Running,
    /// The last attempt's result is the stage's.
    Ended(StageOutcome),
    /// Its agent was lost. It stays so unless the same record makes it ready again.
    Lost,
    /// It did not run and will not.
    Skipped(SkipReason),
}

/// One award and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number; an attempt that was declined has the number of the next.
    pub number: u32,
    /// Who has or had it.
    pub agent: AgentName,
    /// The award's sequence.
    pub fence: u64,
    /// The auction.
    pub auction: AuctionId,
    /// All offers of the auction, the best first.
    pub offers: Vec<RankedOffer>,
    /// When it was awarded.
    pub awarded_at: Timestamp,
    /// When it began, by the agent's clock.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub end: Option<AttemptEnd>,
    /// Where its output lies.
    pub log: Option<StoredLog>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It was not taken up.
    Declined {
        /// Why.
        reason: String,
    },
    /// It has a result.
    Finished {
        /// Which.
        outcome: StageOutcome,
        /// Why, where it is no success.
        reason: Option<String>,
        /// When, by the agent's clock.
        at: Timestamp,
    },
    /// Its agent is gone.
    Lost {
        /// How that was noticed.
        reason: String,
    },
}

impl Stage {
    /// The award that counts, if there is one.
    pub fn holder(&self) -> Option<&Attempt> {
        match self.status {
            Status::Awarded | Status::Running => self.attempts.last(),
            Status::Waiting | Status::Ready { .. } | Status::Ended(_) | Status::Lost | Status::Skipped(_) => None,
        }
    }

    /// Whether nothing will change any more but where its output lies.
    pub fn is_over(&self) -> bool {
        matches!(self.status, Status::Ended(_) | Status::Lost | Status::Skipped(_))
    }
}

impl Run {
    /// The run that its first record begins. `shape` is that of the plan whose digest the record carries; an empty one where it was refused.
    pub fn accepted(id: RunId, trigger: Trigger, planned: Planned, shape: Arc<Shape>, position: Position) -> Self {
        let stages = (0..shape.len())
            .map(|at| Arc::new(Stage { status: Status::Waiting, attempts: Vec::new(), unmet: shape.needs(at).count() }))
            .collect();
        let open = shape.len();
        let accepted_at = position.at;
        Self { id, trigger, accepted_at, shape, planned, stages, active: BTreeSet::new(), open, cancelled: None, ended: None }
    }

    /// Why there is no plan; empty where there is one.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match &self.planned {
            Planned::Plan { .. } | Planned::NotTriggered { .. } => &[],
            Planned::Refused { diagnostics } => diagnostics,
        }
    }

    /// The stage and what its plan says of it.
    pub fn stage(&self, id: &StageId) -> Option<(&model::plan::Stage, &Stage)> {
        let at = self.shape.find(id)?;
        Some((self.shape.stage(at), &self.stages[at]))
    }

    /// The lease of an attempt of the stage at `at`.
    pub fn lease(&self, at: Index, attempt: &Attempt) -> Lease {
        let stage = self.shape.stage(at).id.clone();
        Lease { attempt: AttemptId { run: self.id.clone(), stage, attempt: attempt.number }, fence: attempt.fence }
    }

    /// The attempt that a lease is for, however it ended; `None` if there never was such an award.
    pub fn attempt_of(&self, lease: &Lease) -> Option<(Index, &Attempt)> {
        let at = self.shape.find(&lease.attempt.stage)?;
        let attempt = self.stages[at].attempts.iter().find(|attempt| attempt.fence == lease.fence)?;
        (attempt.number == lease.attempt.attempt && self.id == lease.attempt.run).then_some((at, attempt))
    }

    /// Whether the lease is the one that counts for its stage now.
    pub fn holds(&self, lease: &Lease) -> bool {
        self.attempt_of(lease).is_some_and(|(at, attempt)| self.stages[at].holder().is_some_and(|holder| holder.fence == attempt.fence))
    }

    /// Folds one event into the state. Live and replayed events go through here alike.
    pub fn apply(&mut self, position: Position, event: &RunEvent) -> Result<(), Illegal> {
        self.fold(position, event).map_err(|why| Illegal { run: self.id.clone(), sequence: position.sequence, kind: event.kind(), why })
    }

    fn fold(&mut self, position: Position, event: &RunEvent) -> Result<(), String> {
        if self.ended.is_some() && !matches!(event, RunEvent::StageLogStored { .. }) {
            return Err("the run has ended".to_owned());
        }
        match event {
            RunEvent::RunAccepted { .. } => Err("the run was accepted before".to_owned()),
            RunEvent::CancelRequested { by, .. } => {
                self.cancelled.get_or_insert_with(|| (by.clone(), position.at));
                Ok(())
            }
            RunEvent::RunFinished { outcome } => {
                if self.open > 0 {
                    return Err(format!("{} stages have not ended", self.open));
                }
                self.ended = Some((*outcome, position.at));
                Ok(())
            }
            RunEvent::RunHeld { .. } | RunEvent::RunReleased => Err("no decision makes it yet".to_owned()),
            RunEvent::StageReady { stage, .. }
            | RunEvent::StageRetried { stage, .. }
            | RunEvent::StageEnded { stage, .. }
            | RunEvent::StageReused { stage, .. }
            | RunEvent::WaitOpened { stage, .. }
            | RunEvent::WaitAnswered { stage, .. }
            | RunEvent::LockQueued { stage, .. }
            | RunEvent::LockAcquired { stage, .. }
            | RunEvent::StageCancelRequested { stage, .. }
            | RunEvent::StageAwarded { stage, .. }
            | RunEvent::StageDeclined { stage, .. }
            | RunEvent::StageStarted { stage, .. }
            | RunEvent::StageFinished { stage, .. }
            | RunEvent::StageLost { stage, .. }
            | RunEvent::StageSkipped { stage, .. }
            | RunEvent::StageLogStored { stage, .. } => {
                let at = self.shape.find(stage).ok_or_else(|| format!("the plan has no stage {stage}"))?;
                let was_over = self.stages[at].is_over();
                Arc::make_mut(&mut self.stages[at]).fold(position, event)?;
                self.count(at, was_over);
                Ok(())
            }
        }
    }

    /// Brings what is derived from the stages up to date after the stage at `at` changed.
    fn count(&mut self, at: Index, was_over: bool) {
        let stage = &self.stages[at];
        match stage.status {
            Status::Ready { .. } | Status::Awarded | Status::Running => self.active.insert(at),
            Status::Waiting | Status::Ended(_) | Status::Lost | Status::Skipped(_) => self.active.remove(&at),
        };
        match (was_over, stage.is_over()) {
            (false, true) => self.open -= 1,
            (true, false) => self.open += 1,
            (false, false) | (true, true) => return,
        }
        if stage.status == Status::Ended(StageOutcome::Success) {
            for dependent in self.shape.dependents(at) {
                Arc::make_mut(&mut self.stages[dependent]).unmet -= 1;
            }
        }
    }
}

impl Stage {
    fn fold(&mut self, position: Position, event: &RunEvent) -> Result<(), String> {
        let status = std::mem::replace(&mut self.status, Status::Waiting);
        match (status, event) {
            (Status::Waiting, RunEvent::StageReady { attempt, .. }) if self.unmet == 0 => {
                self.status = Status::Ready { attempt: *attempt, since: position.at, declined: Vec::new() };
                Ok(())
            }
            (Status::Lost, RunEvent::StageReady { attempt, .. })
                if self.attempts.last().is_some_and(|last| last.number + 1 == *attempt) =>
            {
                self.status = Status::Ready { attempt: *attempt, since: position.at, declined: Vec::new() };
                Ok(())
            }
            (Status::Waiting | Status::Ready { .. }, RunEvent::StageSkipped { reason, .. }) => {
                self.status = Status::Skipped(reason.clone());
                Ok(())
            }
            (Status::Ready { attempt: ready, .. }, RunEvent::StageAwarded { attempt, agent, auction, offers, .. }) if ready == *attempt => {
                self.status = Status::Awarded;
                self.attempts.push(Attempt {
                    number: *attempt,
                    agent: agent.clone(),
                    fence: position.sequence,
                    auction: auction.clone(),
                    offers: offers.clone(),
                    awarded_at: position.at,
                    started_at: None,
                    end: None,
                    log: None,
                });
                Ok(())
            }
            (status @ (Status::Awarded | Status::Running), event) => self.fold_placed(position, status, event),
            (status, RunEvent::StageLogStored { attempt, log, .. }) => {
                self.status = status;
                self.store_log(*attempt, log)
            }
            (status, _) => {
                let why = format!("the stage is {status:?}");
                self.status = status;
                Err(why)
            }
        }
    }

    /// What may happen to a stage that an agent has.
    fn fold_placed(&mut self, position: Position, status: Status, event: &RunEvent) -> Result<(), String> {
        let last = self.attempts.last_mut().expect("an awarded stage has an attempt");
        let current = last.number;
        let fits = |attempt: &u32| if *attempt == current { Ok(()) } else { Err(format!("attempt {current} is the current one")) };
        match (status, event) {
            (Status::Awarded, RunEvent::StageStarted { attempt, at, .. }) => {
                fits(attempt)?;
                last.started_at = Some(*at);
                self.status = Status::Running;
            }
            (Status::Awarded, RunEvent::StageDeclined { attempt, reason, .. }) => {
                fits(attempt)?;
                last.end = Some(AttemptEnd::Declined { reason: reason.clone() });
                let declined = self.attempts.iter().filter(|a| a.number == *attempt).map(|a| a.agent.clone()).collect();
                self.status = Status::Ready { attempt: *attempt, since: position.at, declined };
            }
            (_, RunEvent::StageFinished { attempt, outcome, reason, started_at, finished_at, .. }) => {
                fits(attempt)?;
                last.started_at = *started_at;
                last.end = Some(AttemptEnd::Finished { outcome: *outcome, reason: reason.clone(), at: *finished_at });
                self.status = Status::Ended(*outcome);
            }
            (_, RunEvent::StageLost { attempt, reason, .. }) => {
                fits(attempt)?;
                last.end = Some(AttemptEnd::Lost { reason: reason.clone() });
                self.status = Status::Lost;
            }
            (status, RunEvent::StageLogStored { attempt, log, .. }) => {
                self.status = status;
                self.store_log(*attempt, log)?;
            }
            (status, _) => {
                self.status = status;
                return Err("an agent has the stage".to_owned());
            }
        }
        Ok(())
    }

    /// The output of the newest attempt with this number.
    fn store_log(&mut self, number: u32, log: &StoredLog) -> Result<(), String> {
        let attempt = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number);
        attempt.ok_or_else(|| format!("there is no attempt {number}"))?.log = Some(log.clone());
        Ok(())
    }
}
