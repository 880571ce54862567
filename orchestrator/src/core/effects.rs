//! What the outside world must be told, as the log has it now. Effects are level-triggered: they stand as long as their cause does,
//! and are sent again until an event ends it.

use std::collections::BTreeSet;

use model::{
    AgentName, AttemptId,
    event::run::{Question, RunEvent, WaitKey},
    plan::Value,
    protocol::agent::Lease,
};

use super::{
    shape::{Index, Phase},
    stage::Status,
    state::Run,
};

/// Stages of one run for which offers are taken before they are ready. More would flood the agents with questions
/// whose answers grow old before they are used.
pub const AHEAD_MAX: usize = 16;

/// Attempts whose end a stage may wait for that offers are taken for before it is ready. Of more, the last one's end is far off, and each
/// one's end would change the question.
const AFTER_MAX: usize = 16;

/// Something that must be said until the log says that it was heard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Ask who would run this attempt.
    Auction {
        /// The stage.
        at: Index,
        /// The attempt.
        attempt: AttemptId,
        /// The attempts whose end it waits for; empty if it is ready.
        after: Vec<AttemptId>,
        /// Who turned it down, once for each time.
        except: Vec<AgentName>,
    },
    /// Tell the winner to begin.
    Assign {
        /// The stage.
        at: Index,
        /// Whom.
        agent: AgentName,
        /// With which right.
        lease: Lease,
    },
    /// Tell the holder to end.
    Cancel {
        /// The stage.
        at: Index,
        /// Whom.
        agent: AgentName,
        /// Which attempt.
        lease: Lease,
        /// Whether at once.
        force: bool,
    },
    /// Ask an address until it answers as expected.
    Poll {
        /// The stage.
        at: Index,
        /// Which of its waits.
        wait: WaitKey,
        /// The address.
        url: String,
        /// The expected status code.
        status: u16,
        /// Between two questions, in milliseconds.
        every_ms: u64,
    },
}

impl Effect {
    /// The stage that it is about.
    pub fn at(&self) -> Index {
        match self {
            Self::Auction { at, .. } | Self::Assign { at, .. } | Self::Cancel { at, .. } | Self::Poll { at, .. } => *at,
        }
    }

    /// What there is one of at a time: the stage's placement, or one of its waits.
    pub fn key(&self) -> (Index, Option<WaitKey>) {
        match self {
            Self::Auction { at, .. } | Self::Assign { at, .. } | Self::Cancel { at, .. } => (*at, None),
            Self::Poll { at, wait, .. } => (*at, Some(*wait)),
        }
    }

    /// Whether offers are asked for before the stage is ready.
    pub fn is_ahead(&self) -> bool {
        matches!(self, Self::Auction { after, .. } if !after.is_empty())
    }
}

/// Everything that must be said now, at most one thing for each [`Effect::key`].
pub fn effects(run: &Run) -> Vec<Effect> {
    let mut effects: Vec<Effect> = run.active.iter().filter_map(|at| placement_of(run, *at)).collect();
    let held = run.active.iter().filter(|at| run.stages[**at].holder().is_some());
    let next: BTreeSet<Index> = held.flat_map(|at| run.shape.dependents(*at)).collect();
    effects.extend(next.into_iter().filter(|at| !run.active.contains(at)).filter_map(|at| placement_of(run, at)).take(AHEAD_MAX));
    effects.extend(run.held_up.iter().flat_map(|at| polls_of(run, *at)));
    effects
}

/// What must be said about one stage. Of those that are not ready, only [`AHEAD_MAX`] are to be spoken of at once.
pub fn effects_of(run: &Run, at: Index) -> Vec<Effect> {
    placement_of(run, at).into_iter().chain(polls_of(run, at)).collect()
}

fn placement_of(run: &Run, at: Index) -> Option<Effect> {
    if run.ended.is_some() {
        return None;
    }
    let stage = &run.stages[at];
    let attempt = |attempt| AttemptId { run: run.id.clone(), stage: run.shape.stage(at).id.clone(), attempt };
    if let Status::Ready { attempt: number, declined, .. } = &stage.status {
        return Some(Effect::Auction { at, attempt: attempt(*number), after: Vec::new(), except: declined.clone() });
    }
    if stage.status == Status::Waiting {
        // It becomes ready when what runs now succeeds.
        let unmet = run.unmet(at);
        if unmet == 0 || unmet > AFTER_MAX.min(run.active.len()) || !is_sure(run, at) {
            return None;
        }
        let holders = run.shape.needs(at).filter_map(|need| Some((need, run.stages[need].holder()?)));
        let after: Vec<AttemptId> = holders.map(|(need, holder)| run.lease(need, holder).attempt).collect();
        return (after.len() == unmet).then(|| Effect::Auction { at, attempt: attempt(1), after, except: Vec::new() });
    }
    let holder = stage.holder()?;
    let (agent, lease) = (holder.agent.clone(), run.lease(at, holder));
    if let Some(ending) = run.ending(at) {
        return Some(Effect::Cancel { at, agent, lease, force: ending.force });
    }
    (stage.status == Status::Awarded).then_some(Effect::Assign { at, agent, lease })
}

/// Whether nothing but its needs stands between a waiting stage and its agent.
fn is_sure(run: &Run, at: Index) -> bool {
    let planned = run.shape.stage(at);
    let free = planned.skipped.is_none() && planned.conditions.is_empty() && planned.enter.is_empty() && planned.lock.is_none();
    free && run.cancelled.is_none()
        && run.shape.phase(at) == Phase::Work
        && !planned.steps.is_empty()
        // What is asked of an agent must be known.
        && planned.requires.values().all(Value::is_known)
}

fn polls_of(run: &Run, at: Index) -> impl Iterator<Item = Effect> {
    let open = run.ended.is_none().then(|| run.stages[at].open_waits());
    open.into_iter().flatten().filter_map(move |(wait, opened)| match &opened.question {
        Question::Poll { url, status, every_ms } => Some(Effect::Poll { at, wait, url: url.clone(), status: *status, every_ms: *every_ms }),
        Question::Confirm { .. } | Question::Prompt { .. } | Question::Webhook { .. } | Question::Time | Question::Pause => None,
    })
}

/// The stages of whose effects these events, which `run` has seen, may have changed something; `None` if it may be any.
pub fn touched(run: &Run, events: &[RunEvent]) -> Option<BTreeSet<Index>> {
    let mut touched = BTreeSet::new();
    for event in events {
        touched.extend(run.shape.find(event.stage()?));
    }
    let next: Vec<Index> = touched.iter().flat_map(|at| run.shape.dependents(*at)).collect();
    touched.extend(next);
    Some(touched)
}
