//! What follows from an input: the events that one append stores together.
//!
//! A decision takes everything with it that follows at once: the end of a stage, the readiness of the next, and its award where an offer
//! is at hand. So a stage's end and the next one's start are one durable write. What is too much for one record is left for the next:
//! [`Run::next_due`] says so.

mod agents;
mod ending;
mod flow;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use model::{
    AgentName, Digest, RunId, StageId, Timestamp,
    event::run::{Answer as WaitAnswer, CancelReason, Planned, RunEvent, SkipReason, WaitKey},
    protocol::{
        agent::{AgentReport, Lease, ReportKind},
        auction::Proposal,
    },
    trigger::Trigger,
};

use super::{
    rerun::Reused,
    shape::{Index, Phase},
    state::{Position, Run},
    written::written,
};

/// Characters of a reason that are stored. It is a sentence for a person.
const REASON_CHARACTERS_MAX: usize = 1_000;
/// Bytes of a decision after which no further stage is begun in it: a record must stay within the bus's limit of 1 MiB, and other records
/// of the bus should not wait long behind it.
const BEGINNINGS_BYTES_MAX: usize = 256 * 1024;

/// The freshest proposal for each stage that waits for one. They are soft: the log has none of them.
pub type Proposals = BTreeMap<Index, Proposal>;

/// What a decision may know besides the run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The proposals at hand.
    pub proposals: &'a Proposals,
    /// Whether the agent may be given the stage, by its enrolment: what it offered alone does not say so.
    pub may_have: &'a dyn Fn(&Run, Index, &AgentName) -> bool,
    /// SHA-256 of the secret with which a webhook is called. The same question has the same secret.
    pub callback_secrets: &'a dyn Fn(&RunId, &StageId, WaitKey) -> Digest,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("proposals", self.proposals).finish_non_exhaustive()
    }
}

/// What can happen to a run from outside.
#[expect(clippy::large_enum_variant, reason = "the large one is what most inputs are")]
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
    /// The run is to end.
    Cancel {
        /// Who wants it.
        by: String,
        /// Why.
        reason: CancelReason,
        /// Whether at once.
        force: bool,
    },
    /// The holder has not renewed its lease in time.
    LeaseLapsed(Lease),
    /// The holder was revoked: nothing more is heard of it.
    AgentRevoked(Lease),
    /// The winner has not begun while its offer was valid, and by its own clock never will.
    NotTakenUp(Lease),
    /// Something that is waited for has happened. Whether this person may answer was checked.
    Answered {
        /// The stage.
        at: Index,
        /// Which of its waits.
        wait: WaitKey,
        /// What happened.
        answer: WaitAnswer,
        /// Who answered, if somebody did.
        by: Option<String>,
    },
    /// It is the stage's turn to have its lock: no other stage of the project has it.
    LockGranted(Index),
    /// An older run is there, which was not known when this one was accepted: it waits for its end, if it has not begun.
    Held(RunId),
    /// The run for whose end this one waited has ended.
    Released,
    /// It is `now`: what is due happens.
    TimePassed,
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

/// How a run begins, besides its trigger and its plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beginning {
    /// What is not run again, as [`reused`](super::rerun::reused) says.
    pub reused: BTreeMap<Index, Reused>,
    /// The older run whose end it waits for.
    pub held: Option<RunId>,
    /// Its first record says that it was accepted, and no more: whether it waits for an older one is not known before that is stored.
    pub is_later: bool,
}

/// The events of a run's first record.
pub fn accept(run: &Run, context: &Context<'_>, beginning: &Beginning, now: Timestamp) -> Vec<RunEvent> {
    let mut draft = Draft::new(run, context, now);
    draft.store(RunEvent::RunAccepted { trigger: Trigger::clone(&run.trigger), planned: run.planned.clone() });
    if let Some(older) = &beginning.held {
        draft.push(RunEvent::RunHeld { older: older.clone() });
    }
    for (&at, Reused { of, outcome, outputs }) in &beginning.reused {
        let stage = draft.id(at);
        draft.push(RunEvent::StageReused { stage, of: of.clone(), outcome: *outcome, outputs: outputs.clone() });
    }
    draft.leave_out();
    if !(beginning.is_later && draft.run.may_be_held()) {
        draft.settle();
    }
    draft.events
}

/// A run before its first event, for [`accept`] and for the first record of a replay.
pub fn before(trigger: &Trigger, planned: Planned, shape: Arc<super::Shape>, position: Position) -> Run {
    Run::accepted(trigger.run(), trigger.clone(), planned, shape, position)
}

/// The events that `inputs` cause, one after the other, and the answers to those who sent them.
pub fn decide(run: &Run, context: &Context<'_>, inputs: &[Input], now: Timestamp) -> Decision {
    let mut draft = Draft::new(run, context, now);
    let mut answers = Vec::new();
    for input in inputs {
        answers.extend(draft.take(input));
        draft.turns();
    }
    draft.settle();
    Decision { events: draft.events, answers }
}

/// A decision in the making: the events so far, and the state after them.
struct Draft<'a> {
    run: Run,
    context: &'a Context<'a>,
    now: Timestamp,
    events: Vec<RunEvent>,
    /// Of the events, as they will be written.
    bytes: usize,
    /// Agents whose one freed slot this decision has given away already.
    handed_over: BTreeSet<AgentName>,
}

impl<'a> Draft<'a> {
    fn new(run: &Run, context: &'a Context<'a>, now: Timestamp) -> Self {
        Self { run: run.clone(), context, now, events: Vec::new(), bytes: 0, handed_over: BTreeSet::new() }
    }

    fn take(&mut self, input: &Input) -> Option<Answer> {
        match input {
            Input::Report { agent, report } => return self.report(agent, report),
            Input::Proposed(at) => self.award(*at),
            Input::Cancel { by, reason, force } => self.cancel(by, reason, *force),
            Input::LeaseLapsed(lease) => {
                if let Some(at) = self.held(lease) {
                    self.lost(at, "its agent's lease lapsed");
                }
            }
            Input::AgentRevoked(lease) => {
                if let Some(at) = self.held(lease) {
                    self.lost(at, "its agent was revoked");
                }
            }
            Input::NotTakenUp(lease) => self.not_taken_up(lease),
            Input::Answered { at, wait, answer, by } => self.answered(*at, *wait, answer, by.as_deref()),
            Input::LockGranted(at) => self.lock_granted(*at),
            Input::Held(older) => {
                if self.run.may_be_held() {
                    self.push(RunEvent::RunHeld { older: older.clone() });
                }
            }
            Input::Released => {
                if self.run.held.is_some() {
                    self.push(RunEvent::RunReleased);
                }
            }
            Input::TimePassed => self.time_passed(),
        }
        None
    }

    fn push(&mut self, event: RunEvent) {
        // The sequence, and with it an award's fence, is known once the record is stored; nothing in a draft asks for it.
        let position = Position { sequence: 0, at: self.now };
        self.run.apply(position, &event).expect("a decision only makes events that can follow");
        self.store(event);
    }

    fn store(&mut self, event: RunEvent) {
        self.bytes += written(&event);
        self.events.push(event);
    }

    /// Whether what is left to begin is left to the next decision.
    fn is_full(&self) -> bool {
        self.bytes >= BEGINNINGS_BYTES_MAX
    }

    fn id(&self, at: Index) -> StageId {
        self.run.shape.stage(at).id.clone()
    }

    fn skip(&mut self, at: Index, reason: SkipReason) {
        self.push(RunEvent::StageSkipped { stage: self.id(at), reason });
    }

    /// Skips what the trigger does not want.
    fn leave_out(&mut self) {
        let Some(only) = &self.run.trigger.only else { return };
        let mut wanted = BTreeSet::new();
        if let Some(at) = self.run.shape.find(only) {
            wanted = self.run.shape.transitive_needs(at);
            wanted.insert(at);
        }
        for at in 0..self.run.shape.len() {
            let stays = wanted.contains(&at) || self.run.shape.phase(at) == Phase::Undo || self.run.stages[at].is_over();
            if !stays {
                self.skip(at, SkipReason::NotWanted);
            }
        }
    }
}

/// A reason as it is stored: it comes from outside, and a record must stay within the bus's limit.
fn bounded(reason: &str) -> String {
    reason.chars().take(REASON_CHARACTERS_MAX).collect()
}
