//! Leases: until when each holder counts as alive. They are never events, and count from the orchestrator's return.

use std::{collections::BTreeMap, time::Duration};

use model::{
    AgentName, RunId,
    protocol::agent::{LEASE_MS, Lease},
};
use tokio::time::Instant;

use crate::core::{Run, shape::Index};

const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// The leases of all open runs.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<Lease, Held>,
}

#[derive(Debug)]
struct Held {
    agent: AgentName,
    until: Instant,
}

impl Leases {
    /// Grants what the run's state says is held, and ends what it does not.
    pub(crate) fn follow(&mut self, run: &Run, now: Instant) {
        let holders: BTreeMap<Lease, AgentName> = run
            .active
            .iter()
            .filter_map(|at| run.stages[*at].holder().map(|holder| (run.lease(*at, holder), holder.agent.clone())))
            .collect();
        self.held.retain(|lease, _| lease.attempt.run != run.id || holders.contains_key(lease));
        for (lease, agent) in holders {
            self.held.entry(lease).or_insert(Held { agent, until: now + LEASE });
        }
    }

    /// The same, of one stage alone.
    pub(crate) fn follow_stage(&mut self, run: &Run, at: Index, now: Instant) {
        let stage = &run.stages[at];
        let holder = stage.holder().map(|holder| holder.fence);
        for attempt in &stage.attempts {
            let lease = run.lease(at, attempt);
            if holder == Some(attempt.fence) {
                self.held.entry(lease).or_insert_with(|| Held { agent: attempt.agent.clone(), until: now + LEASE });
            } else {
                self.held.remove(&lease);
            }
        }
    }

    /// The agent shows that it is alive; `true` if the lease is its own, and is renewed.
    pub(crate) fn renew(&mut self, lease: &Lease, agent: &AgentName, now: Instant) -> bool {
        let held = self.held.get_mut(lease).filter(|held| held.agent == *agent);
        held.map(|held| held.until = now + LEASE).is_some()
    }

    /// Takes out what was not renewed in time. If its loss cannot be stored now, it is granted again and lapses again.
    pub(crate) fn lapsed(&mut self, now: Instant) -> Vec<Lease> {
        self.held.extract_if(.., |_, held| now >= held.until).map(|(lease, _)| lease).collect()
    }

    /// What the agent holds.
    pub(crate) fn of(&self, agent: &AgentName) -> Vec<Lease> {
        self.held.iter().filter(|(_, held)| held.agent == *agent).map(|(lease, _)| lease.clone()).collect()
    }

    /// Nobody could be heard: leases count from now on.
    pub(crate) fn excuse(&mut self, now: Instant) {
        for held in self.held.values_mut() {
            held.until = now + LEASE;
        }
    }

    /// The run is over.
    pub(crate) fn forget(&mut self, run: &RunId) {
        self.held.retain(|lease, _| lease.attempt.run != *run);
    }
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, StageId, TriggerId};

    use super::*;

    #[test]
    fn a_lease_is_renewed_by_its_holder_and_by_nobody_who_claims_to_hold_it() {
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("a"), attempt: 1 };
        let (lease, start) = (Lease { attempt, fence: 1 }, Instant::now());
        let (holder, rogue): (AgentName, AgentName) = ("one".parse().unwrap(), "rogue".parse().unwrap());
        for (who, renewed) in [(&holder, true), (&rogue, false)] {
            let mut leases = Leases::default();
            leases.held.insert(lease.clone(), Held { agent: holder.clone(), until: start + LEASE });
            assert_eq!(leases.renew(&lease, who, start + LEASE / 2), renewed, "{who}");
            assert_eq!(leases.lapsed(start + LEASE).is_empty(), renewed, "{who}");
        }
    }

    #[test]
    fn leases_count_anew_from_when_agents_can_be_heard_again() {
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("a"), attempt: 1 };
        let mut leases = Leases::default();
        let start = Instant::now();
        leases.held.insert(Lease { attempt, fence: 1 }, Held { agent: "one".parse().unwrap(), until: start + LEASE });
        let back = start + LEASE * 3;
        leases.excuse(back);
        assert!(leases.lapsed(back + LEASE / 2).is_empty());
        assert_eq!(leases.lapsed(back + LEASE).len(), 1);
    }
}
