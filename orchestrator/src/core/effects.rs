//! What the outside world must be told, as the log has it now. Effects are level-triggered: they stand as long as their cause does,
//! and are sent again until an event ends it.

use std::collections::BTreeMap;

use model::{AgentName, AttemptId, protocol::agent::Lease};

use super::{
    shape::Index,
    state::{Run, Status},
};

/// Stages of one run for which offers are taken before they are ready. More would flood the agents with questions
/// whose answers grow old before they are used.
pub const AHEAD_MAX: usize = 16;

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
        /// Who turned it down.
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
    },
}

/// Everything that must be said now.
pub fn effects(run: &Run) -> Vec<Effect> {
    let mut effects = Vec::new();
    if run.ended.is_some() {
        return effects;
    }
    let mut placed: BTreeMap<Index, usize> = BTreeMap::new();
    for &at in &run.active {
        let stage = &run.stages[at];
        if let Status::Ready { attempt, declined, .. } = &stage.status {
            let attempt = AttemptId { run: run.id.clone(), stage: run.shape.stage(at).id.clone(), attempt: *attempt };
            effects.push(Effect::Auction { at, attempt, after: Vec::new(), except: declined.clone() });
        }
        let Some(holder) = stage.holder() else { continue };
        let (agent, lease) = (holder.agent.clone(), run.lease(at, holder));
        if run.cancelled.is_some() {
            effects.push(Effect::Cancel { at, agent, lease });
            continue;
        }
        if stage.status == Status::Awarded {
            effects.push(Effect::Assign { at, agent, lease });
        }
        for dependent in run.shape.dependents(at) {
            *placed.entry(dependent).or_default() += 1;
        }
    }
    effects.extend(ahead(run, &placed));
    effects
}

/// Auctions for the stages that become ready when what runs now succeeds. `placed` counts for each stage how many of its needs run.
fn ahead<'a>(run: &'a Run, placed: &'a BTreeMap<Index, usize>) -> impl Iterator<Item = Effect> + 'a {
    let next = placed.iter().filter(|(at, count)| run.stages[**at].status == Status::Waiting && run.stages[**at].unmet == **count);
    next.take(AHEAD_MAX).map(|(&at, _)| {
        let after = run.shape.needs(at).filter_map(|need| Some(run.lease(need, run.stages[need].holder()?).attempt)).collect();
        let attempt = AttemptId { run: run.id.clone(), stage: run.shape.stage(at).id.clone(), attempt: 1 };
        Effect::Auction { at, attempt, after, except: Vec::new() }
    })
}
