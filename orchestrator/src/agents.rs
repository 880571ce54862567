//! The agents: as they last told of themselves, upon which nothing is decided, and what they were enrolled as, upon which awards are.
//!
//! Soft, and forgotten with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use model::{
    AgentName, Timestamp,
    protocol::{
        agent::AgentStatus,
        enrolment::{Asked, Enrolled, Roll, RollPage},
    },
};
use service::clock;

/// Agents that are remembered: as many as can be enrolled. One has some 500 bytes.
pub const AGENTS_MAX: usize = 100_000;
/// How long an agent is remembered of which nothing is heard, in milliseconds: a day, so that what was lost over night is seen.
pub const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;

/// What was last heard of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it said of itself.
    pub status: Arc<AgentStatus>,
    /// When, by this process's clock.
    pub at: Timestamp,
}

/// The agents of which this process has heard. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Agents {
    seen: Arc<RwLock<BTreeMap<AgentName, Seen>>>,
    /// `None` where agents get whatever they offer to do.
    roll: Arc<RwLock<Option<Roll>>>,
}

impl Agents {
    /// Agents by their names, at most `limit`, behind the name `after` where one is given.
    pub fn list(&self, after: Option<&AgentName>, limit: usize) -> Vec<Seen> {
        let forgotten = clock::unix_ms().saturating_sub(REMEMBERED_MS);
        let known = self.seen.read().expect("no holder of this lock panics");
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let there = known.range::<AgentName, _>((start, std::ops::Bound::Unbounded)).map(|(_, seen)| seen);
        there.filter(|seen| seen.at.0 > forgotten).take(limit).cloned().collect()
    }

    /// What the agent was enrolled as, as far as that is asked and known.
    pub fn enrolled(&self, agent: &AgentName) -> Option<Enrolled> {
        self.roll.read().expect("no holder of this lock panics").as_ref()?.get(agent).cloned()
    }

    /// Why the agent must not be given what is asked; `None` if it may.
    pub(crate) fn refuses(&self, agent: &AgentName, asked: Asked<'_>) -> Option<String> {
        self.roll.read().expect("no holder of this lock panics").as_ref()?.refuses(agent, asked)
    }

    /// From now on agents get only what they were enrolled for: nothing, until that is said.
    pub(crate) fn ask_the_roll(&self) {
        self.roll.write().expect("no holder of this lock panics").get_or_insert_default();
    }

    /// It was said who is enrolled. Gives whether something has changed.
    pub(crate) fn enrol(&self, page: RollPage) -> bool {
        let mut roll = self.roll.write().expect("no holder of this lock panics");
        roll.as_mut().is_some_and(|roll| !roll.take(page).is_empty())
    }

    /// It was said what one agent is enrolled as.
    pub(crate) fn set_enrolled(&self, agent: &AgentName, enrolled: &Enrolled) {
        if let Some(roll) = self.roll.write().expect("no holder of this lock panics").as_mut() {
            roll.set(agent.clone(), enrolled.clone());
        }
    }

    /// What would have to be so for any agent to be given what is asked, for people; nothing where one may be.
    pub(crate) fn unmet(&self, asked: Asked<'_>) -> Option<String> {
        self.roll.read().expect("no holder of this lock panics").as_ref()?.unmet(asked)
    }

    /// Remembers what an agent says of itself, and that it is there now.
    pub(crate) fn remember(&self, agent: &AgentName, status: AgentStatus) {
        self.remember_at(agent, status, Timestamp(clock::unix_ms()));
    }

    fn remember_at(&self, agent: &AgentName, status: AgentStatus, at: Timestamp) {
        // The name is that of its key, whatever it says.
        let seen = Seen { status: Arc::new(AgentStatus { agent: agent.clone(), ..status }), at };
        let mut known = self.seen.write().expect("no holder of this lock panics");
        if known.len() >= AGENTS_MAX && !known.contains_key(agent) {
            let quietest = known.iter().min_by_key(|(_, seen)| seen.at).map(|(agent, _)| agent.clone());
            quietest.map(|agent| known.remove(&agent));
        }
        known.insert(agent.clone(), seen);
    }

    /// The agent is none any more.
    pub(crate) fn forget(&self, agent: &AgentName) {
        self.seen.write().expect("no holder of this lock panics").remove(agent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(slots: u32) -> AgentStatus {
        let agent = "a-liar".parse().unwrap();
        AgentStatus { agent, slots, slots_free: 0, price_micros_per_s: 0, facts: BTreeMap::new(), leases: Vec::new(), number: 1 }
    }

    #[test]
    fn an_agent_is_what_it_said_last_under_the_name_of_its_key() {
        let (agents, now) = (Agents::default(), clock::unix_ms());
        let [one, two, gone]: [AgentName; 3] = ["one", "two", "gone"].map(|name| name.parse().unwrap());
        for (agent, slots, at) in [(&one, 1, now), (&two, 2, now), (&one, 3, now), (&gone, 4, now - REMEMBERED_MS - 1)] {
            agents.remember_at(agent, status(slots), Timestamp(at));
        }
        let names = |seen: Vec<Seen>| seen.iter().map(|seen| (seen.status.agent.to_string(), seen.status.slots)).collect::<Vec<_>>();
        let (first, second) = (("one".to_owned(), 3), ("two".to_owned(), 2));
        assert_eq!(names(agents.list(None, 9)), [first.clone(), second.clone()]);
        assert_eq!(names(agents.list(None, 1)), [first]);
        assert_eq!(names(agents.list(Some(&one), 9)), [second]);
        agents.forget(&two);
        assert_eq!(names(agents.list(Some(&one), 9)), []);
    }
}
