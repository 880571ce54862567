//! One stage of a run: what the events that name it make of it.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    AgentName, AuctionId, RunId, StageId, StageOutcome, Timestamp,
    event::run::{Answer, Outputs, Question, RunEvent, SkipReason, StoredLog, WaitKey},
    plan::{self, RetryReason, StageKind},
    protocol::auction::RankedOffer,
};

use serde::{Deserialize, Serialize};

use super::{found::Left, state::Position};

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Where it stands now.
    pub status: Status,
    /// Every award it ever had, in their order.
    pub attempts: Vec<Attempt>,
    /// What it waits or waited for, and which webhooks called before that.
    pub waits: BTreeMap<WaitKey, WaitState>,
    /// The lock that it was given; it holds it until it is over.
    pub lock: Option<String>,
    /// What its last attempt has left.
    pub outputs: Arc<Outputs>,
    /// Why it ended as it did, where it is not a success.
    pub reason: Option<String>,
    /// Since when it is over.
    pub over_at: Option<Timestamp>,
    /// The earlier run that it is taken from.
    pub reused_from: Option<RunId>,
    /// The failed stage of its `fanout` for which it is to end.
    pub cancel_requested: Option<StageId>,
    /// What it and those before it have left, once it is over.
    pub(super) left: Option<Arc<Left>>,
}

/// Where a stage stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// For what it needs, or for its turn at the end of the run.
    Waiting,
    /// For what is open of [`Stage::waits`]: its enter gates, or what the stage itself is a wait for. No agent is held.
    Gated {
        /// Since when.
        since: Timestamp,
    },
    /// For its lock.
    Queued {
        /// Which.
        lock: String,
        /// Since when.
        since: Timestamp,
    },
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
    /// For the time of its next attempt.
    Pausing {
        /// The attempt that follows.
        attempt: u32,
        /// What it follows.
        after: RetryReason,
        /// When it may start.
        due_at: Timestamp,
    },
    /// For its exit gates. The agent was released.
    Exiting {
        /// How the attempt ended: the stage, too, if its gates let it.
        outcome: StageOutcome,
        /// Since when.
        since: Timestamp,
    },
    /// It has its result.
    Ended(StageOutcome),
    /// Its agent was lost. It stays so unless the same record makes it start again.
    Lost,
    /// It did not run and will not.
    Skipped(SkipReason),
}

/// Something that is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitState {
    /// The question, since when it is open, and until when; `None` if its webhook called before it was.
    pub opened: Option<OpenedWait>,
    /// What happened, and who answered if somebody did.
    pub answer: Option<(Answer, Option<String>)>,
}

/// A wait that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedWait {
    /// What is shown to whoever is waited for.
    pub question: Question,
    /// Since when.
    pub opened_at: Timestamp,
    /// When it is over without an answer; `None` if never.
    pub due_at: Option<Timestamp>,
}

/// One award and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Default for Stage {
    fn default() -> Self {
        Self {
            status: Status::Waiting,
            attempts: Vec::new(),
            waits: BTreeMap::new(),
            lock: None,
            outputs: Arc::default(),
            reason: None,
            over_at: None,
            reused_from: None,
            cancel_requested: None,
            left: None,
        }
    }
}

impl Stage {
    /// The award that counts, if there is one.
    pub fn holder(&self) -> Option<&Attempt> {
        match self.status {
            Status::Awarded | Status::Running => self.attempts.last(),
            Status::Waiting
            | Status::Gated { .. }
            | Status::Queued { .. }
            | Status::Ready { .. }
            | Status::Pausing { .. }
            | Status::Exiting { .. }
            | Status::Ended(_)
            | Status::Lost
            | Status::Skipped(_) => None,
        }
    }

    /// Whether nothing will change any more but where its output lies.
    pub fn is_over(&self) -> bool {
        matches!(self.status, Status::Ended(_) | Status::Lost | Status::Skipped(_))
    }

    /// Whether it was given to an agent, or has been, and its result is not known or waits for exit gates.
    pub fn has_started(&self) -> bool {
        matches!(self.status, Status::Awarded | Status::Running | Status::Exiting { .. })
    }

    /// Whether it waits for people, the outside, time or a lock; no agent is held.
    pub fn is_held_up(&self) -> bool {
        matches!(self.status, Status::Gated { .. } | Status::Queued { .. } | Status::Pausing { .. } | Status::Exiting { .. })
    }

    /// What is waited for now, and the question.
    pub fn open_waits(&self) -> impl Iterator<Item = (WaitKey, &OpenedWait)> {
        let waits = matches!(self.status, Status::Gated { .. } | Status::Exiting { .. }).then_some(&self.waits);
        waits.into_iter().flatten().filter(|(_, wait)| wait.answer.is_none()).filter_map(|(key, wait)| Some((*key, wait.opened.as_ref()?)))
    }

    /// The variables that people's answers to it have set.
    pub(super) fn told(&self) -> impl Iterator<Item = (&String, &String)> {
        self.waits.values().filter_map(|wait| match (wait.opened.as_ref().map(|opened| &opened.question), &wait.answer) {
            (Some(Question::Prompt { into, .. }), Some((Answer::Text { text }, _))) => Some((into, text)),
            _ => None,
        })
    }

    /// Whether it has been let through all of these waits.
    fn has_passed(&self, mut keys: impl Iterator<Item = WaitKey>) -> bool {
        keys.all(|key| self.waits.get(&key).is_some_and(|wait| wait.opened.is_some() && wait.answer.is_some()))
    }

    /// Folds an event that names this stage. `planned` is what the plan says of it, `may_begin` whether what it needs has ended well.
    pub(super) fn fold(&mut self, planned: &plan::Stage, may_begin: bool, position: Position, event: &RunEvent) -> Result<(), String> {
        let status = std::mem::replace(&mut self.status, Status::Waiting);
        let next = match (&status, event) {
            (_, RunEvent::StageLogStored { attempt, log, .. }) => self.store_log(*attempt, log).map(|()| status.clone()),
            (Status::Awarded | Status::Running, event) => self.fold_placed(planned, position, &status, event),
            _ => self.fold_unplaced(planned, may_begin, position, &status, event),
        };
        match next {
            Ok(next) => {
                self.status = next;
                self.over_at = self.is_over().then(|| self.over_at.unwrap_or(position.at));
                Ok(())
            }
            Err(why) => {
                self.status = status;
                Err(why)
            }
        }
    }

    /// What may happen to a stage that no agent has.
    fn fold_unplaced(
        &mut self,
        planned: &plan::Stage,
        may_begin: bool,
        position: Position,
        status: &Status,
        event: &RunEvent,
    ) -> Result<Status, String> {
        let since = position.at;
        match (status, event) {
            (Status::Waiting, RunEvent::StageReused { of, outcome, outputs, .. }) => {
                self.reused_from = Some(of.clone());
                self.outputs = Arc::new(outputs.clone());
                Ok(Status::Ended(*outcome))
            }
            (
                Status::Waiting | Status::Gated { .. } | Status::Queued { .. } | Status::Ready { .. } | Status::Pausing { .. },
                RunEvent::StageSkipped { reason, .. },
            ) => Ok(Status::Skipped(reason.clone())),
            (
                Status::Waiting | Status::Gated { .. } | Status::Queued { .. } | Status::Exiting { .. },
                RunEvent::StageEnded { outcome, reason, .. },
            ) => {
                self.reason.clone_from(reason);
                Ok(Status::Ended(*outcome))
            }
            (Status::Ended(StageOutcome::Failure), RunEvent::StageRetried { attempt, after: after @ RetryReason::Failed, due_at, .. })
            | (Status::Lost, RunEvent::StageRetried { attempt, after: after @ RetryReason::Lost, due_at, .. })
                if self.follows_last(*attempt) =>
            {
                self.outputs = Arc::default();
                self.reason = None;
                Ok(Status::Pausing { attempt: *attempt, after: *after, due_at: *due_at })
            }
            (_, RunEvent::WaitOpened { wait, question, due_at, .. }) => {
                self.fold_opened(planned, may_begin, *wait, status, since).inspect(|_| {
                    let opened = OpenedWait { question: question.clone(), opened_at: since, due_at: *due_at };
                    self.waits.entry(*wait).or_default().opened = Some(opened);
                })
            }
            (_, RunEvent::WaitAnswered { wait, answer, by, .. }) => self.fold_answered(*wait, answer, by.as_ref(), status),
            (Status::Waiting | Status::Gated { .. }, RunEvent::LockQueued { lock, .. })
                if self.may_leave_enter(planned, may_begin) && planned.lock.as_ref() == Some(lock) && self.lock.is_none() =>
            {
                Ok(Status::Queued { lock: lock.clone(), since })
            }
            (Status::Queued { lock: queued, .. }, RunEvent::LockAcquired { lock, .. }) if queued == lock => {
                self.lock = Some(lock.clone());
                Ok(status.clone())
            }
            (_, RunEvent::StageReady { attempt, .. }) => self.fold_ready(planned, may_begin, *attempt, status, since),
            (Status::Ready { attempt: ready, .. }, RunEvent::StageAwarded { attempt, agent, auction, offers, .. }) if ready == attempt => {
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
                Ok(Status::Awarded)
            }
            (Status::Exiting { .. }, RunEvent::StageCancelRequested { failed, .. }) if self.cancel_requested.is_none() => {
                self.cancel_requested = Some(failed.clone());
                Ok(status.clone())
            }
            (status, _) => Err(format!("the stage is {status:?}")),
        }
    }

    fn follows_last(&self, attempt: u32) -> bool {
        self.attempts.last().is_some_and(|last| last.number + 1 == attempt)
    }

    /// Whether what it needs has ended well, and its enter gates have let it through.
    fn may_leave_enter(&self, planned: &plan::Stage, may_begin: bool) -> bool {
        may_begin && self.has_passed(keys(&planned.enter, WaitKey::Enter))
    }

    fn has_its_lock(&self, planned: &plan::Stage) -> bool {
        self.lock == planned.lock
    }

    fn fold_ready(
        &mut self,
        planned: &plan::Stage,
        may_begin: bool,
        attempt: u32,
        status: &Status,
        since: Timestamp,
    ) -> Result<Status, String> {
        let fits = match status {
            Status::Waiting | Status::Gated { .. } | Status::Queued { .. } => {
                attempt == 1 && self.may_leave_enter(planned, may_begin) && self.has_its_lock(planned)
            }
            Status::Pausing { attempt: next, .. } => *next == attempt,
            // Of the first logs, which know no pause.
            Status::Lost => self.follows_last(attempt),
            Status::Ready { .. } | Status::Awarded | Status::Running | Status::Exiting { .. } | Status::Ended(_) | Status::Skipped(_) => {
                false
            }
        };
        if fits {
            Ok(Status::Ready { attempt, since, declined: Vec::new() })
        } else {
            Err(format!("the stage is {status:?}, and something stands before its attempt {attempt}"))
        }
    }

    fn fold_opened(
        &self,
        planned: &plan::Stage,
        may_begin: bool,
        key: WaitKey,
        status: &Status,
        since: Timestamp,
    ) -> Result<Status, String> {
        let is_new = self.waits.get(&key).is_none_or(|wait| wait.opened.is_none()) && planned_wait(planned, key).is_some();
        let entered = || self.may_leave_enter(planned, may_begin) && self.has_its_lock(planned);
        let is_before = matches!(status, Status::Waiting | Status::Gated { .. } | Status::Queued { .. });
        match (key, status) {
            (WaitKey::Enter(_), Status::Waiting) if is_new && may_begin => Ok(Status::Gated { since }),
            (WaitKey::Enter(_), Status::Gated { .. }) | (WaitKey::Exit(_), Status::Exiting { .. }) if is_new => Ok(status.clone()),
            (WaitKey::Itself, _) if is_new && is_before && entered() => Ok(Status::Gated { since }),
            (WaitKey::Exit(_), _) if is_new && is_before && entered() && self.is_done_without_agent(planned) => {
                Ok(Status::Exiting { outcome: StageOutcome::Success, since })
            }
            _ => Err(format!("the stage is {status:?}, and {key:?} is not to be waited for")),
        }
    }

    /// Whether the stage itself is done, where no agent is asked for it.
    fn is_done_without_agent(&self, planned: &plan::Stage) -> bool {
        match planned.kind {
            StageKind::Wait(_) => self.has_passed(std::iter::once(WaitKey::Itself)),
            StageKind::Work | StageKind::Rollback => planned.steps.is_empty(),
        }
    }

    fn fold_answered(&mut self, key: WaitKey, answer: &Answer, by: Option<&String>, status: &Status) -> Result<Status, String> {
        if self.waits.get(&key).is_some_and(|wait| wait.answer.is_some()) {
            return Err(format!("{key:?} has an answer"));
        }
        if matches!(status, Status::Ended(_) | Status::Lost | Status::Skipped(_)) {
            return Err(format!("the stage is {status:?}"));
        }
        self.waits.entry(key).or_default().answer = Some((answer.clone(), by.cloned()));
        Ok(status.clone())
    }

    /// What may happen to a stage that an agent has.
    fn fold_placed(&mut self, planned: &plan::Stage, position: Position, status: &Status, event: &RunEvent) -> Result<Status, String> {
        let last = self.attempts.last_mut().expect("an awarded stage has an attempt");
        let current = last.number;
        let fits = |attempt: &u32| if *attempt == current { Ok(()) } else { Err(format!("attempt {current} is the current one")) };
        match (status, event) {
            (Status::Awarded, RunEvent::StageStarted { attempt, at, .. }) => {
                fits(attempt)?;
                last.started_at = Some(*at);
                Ok(Status::Running)
            }
            (Status::Awarded, RunEvent::StageDeclined { attempt, reason, .. }) => {
                fits(attempt)?;
                last.end = Some(AttemptEnd::Declined { reason: reason.clone() });
                let declined = self.attempts.iter().filter(|a| a.number == *attempt).map(|a| a.agent.clone()).collect();
                Ok(Status::Ready { attempt: *attempt, since: position.at, declined })
            }
            (_, RunEvent::StageFinished { attempt, outcome, reason, started_at, finished_at, outputs, .. }) => {
                fits(attempt)?;
                last.started_at = *started_at;
                last.end = Some(AttemptEnd::Finished { outcome: *outcome, reason: reason.clone(), at: *finished_at });
                self.outputs = Arc::new(outputs.clone());
                self.reason.clone_from(reason);
                let goes_on = matches!(outcome, StageOutcome::Success | StageOutcome::Unstable) && !planned.exit.is_empty();
                Ok(if goes_on { Status::Exiting { outcome: *outcome, since: position.at } } else { Status::Ended(*outcome) })
            }
            (_, RunEvent::StageLost { attempt, reason, .. }) => {
                fits(attempt)?;
                last.end = Some(AttemptEnd::Lost { reason: reason.clone() });
                self.reason = Some(reason.clone());
                Ok(Status::Lost)
            }
            (_, RunEvent::StageCancelRequested { failed, .. }) if self.cancel_requested.is_none() => {
                self.cancel_requested = Some(failed.clone());
                Ok(status.clone())
            }
            _ => Err("an agent has the stage".to_owned()),
        }
    }

    /// The output of the newest attempt with this number.
    fn store_log(&mut self, number: u32, log: &StoredLog) -> Result<(), String> {
        let attempt = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number);
        attempt.ok_or_else(|| format!("there is no attempt {number}"))?.log = Some(log.clone());
        Ok(())
    }
}

/// The keys of a list of gates.
pub(super) fn keys(gates: &[plan::Wait], key: fn(u32) -> WaitKey) -> impl Iterator<Item = WaitKey> {
    (0..gates.len()).map(move |place| key(u32::try_from(place).expect("a stage has fewer gates than its plan has bytes")))
}

/// What the plan says of a wait of the stage.
pub fn planned_wait(planned: &plan::Stage, key: WaitKey) -> Option<&plan::Wait> {
    match (key, &planned.kind) {
        (WaitKey::Itself, StageKind::Wait(wait)) => Some(wait),
        (WaitKey::Itself, StageKind::Work | StageKind::Rollback) => None,
        (WaitKey::Enter(place), _) => planned.enter.get(place as usize),
        (WaitKey::Exit(place), _) => planned.exit.get(place as usize),
    }
}
