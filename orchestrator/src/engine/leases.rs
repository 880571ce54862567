//! Leases: until when each holder counts as alive. They are never events, and count from the orchestrator's return.

use std::{collections::BTreeMap, time::Duration};

use model::{
    AgentName, RunId,
    protocol::agent::{LEASE_MS, Lease},
};
use tokio::time::Instant;

use crate::core::Run;

const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// The leases of all open runs.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<Lease, Held>,
    checked: Option<Instant>,
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

    /// The agent shows that it is alive.
    pub(crate) fn renew(&mut self, lease: &Lease, agent: &AgentName, now: Instant) {
        if let Some(held) = self.held.get_mut(lease).filter(|held| held.agent == *agent) {
            held.until = now + LEASE;
        }
    }

    /// Takes out what was not renewed in time. If its loss cannot be stored now, it is granted again and lapses again.
    pub(crate) fn lapsed(&mut self, now: Instant) -> Vec<Lease> {
        self.checked = Some(now);
        self.held.extract_if(.., |_, held| now >= held.until).map(|(lease, _)| lease).collect()
    }

    /// The bus is away, and nobody can renew: the time since the last look does not count.
    pub(crate) fn excuse(&mut self, now: Instant) -> Vec<Lease> {
        let away = self.checked.map_or(Duration::ZERO, |checked| now - checked);
        for held in self.held.values_mut() {
            held.until += away;
        }
        self.checked = Some(now);
        Vec::new()
    }

    /// The run is over.
    pub(crate) fn forget(&mut self, run: &RunId) {
        self.held.retain(|lease, _| lease.attempt.run != *run);
    }
}
