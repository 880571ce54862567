//! How long stages take on which agent, learned from past runs.
//!
//! A restart forgets it, and what is learned anew is learned from what the orchestrator says of each attempt's end.

use std::collections::BTreeMap;

use model::{
    AgentName,
    protocol::auction::{Ran, Routine},
};

/// A new time moves the learned one by this part: the last four or so runs count, so a stage that was made quicker is seen to be so the
/// same day, and one odd run does not send everything elsewhere.
pub const LEARNING: u64 = 4;
/// Stages that are remembered; the one that ran the longest ago is forgotten first. With the next bound some ten megabytes.
pub const ROUTINES_MAX: usize = 4 * 1024;
/// Agents that are remembered of one stage, the quickest: those that it should run on.
pub const AGENTS_MAX: usize = 32;
/// How long an attempt is taken to run of which nothing is known, in milliseconds.
pub const UNKNOWN_MS: u64 = 1_000;
/// The longest time that is learned, in milliseconds: a week. What is longer is a clock that was set.
const TOOK_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What was learned.
#[derive(Debug, Default)]
pub struct Times {
    routines: BTreeMap<Routine, Learned>,
    /// The keys of `routines`, the one that ran the longest ago first.
    order: BTreeMap<u64, Routine>,
    turn: u64,
}

/// Of one stage.
#[derive(Debug)]
struct Learned {
    turn: u64,
    anywhere: u64,
    agents: BTreeMap<AgentName, u64>,
}

impl Times {
    /// An attempt has ended.
    pub fn learn(&mut self, ran: &Ran) {
        let Some(took) = ran.took_ms.map(|took| took.min(TOOK_MS_MAX)) else { return };
        self.turn += 1;
        let turn = self.turn;
        let learned = self.routines.entry(ran.routine.clone()).or_insert(Learned { turn, anywhere: took, agents: BTreeMap::new() });
        self.order.remove(&learned.turn);
        learned.turn = turn;
        learned.anywhere = smoothed(learned.anywhere, took);
        let here = learned.agents.get(&ran.agent).map_or(took, |known| smoothed(*known, took));
        learned.agents.insert(ran.agent.clone(), here);
        if learned.agents.len() > AGENTS_MAX
            && let Some((_, slowest)) = learned.agents.iter().map(|(agent, took)| (*took, agent.clone())).max()
        {
            learned.agents.remove(&slowest);
        }
        self.order.insert(turn, ran.routine.clone());
        if self.routines.len() > ROUTINES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.routines.remove(&oldest);
        }
    }

    /// How long the stage is expected to take on the agent, in milliseconds: as it did there, else as it did elsewhere.
    pub fn expected_ms(&self, routine: Option<&Routine>, agent: &AgentName) -> u64 {
        let learned = routine.and_then(|routine| self.routines.get(routine));
        learned.map_or(UNKNOWN_MS, |learned| learned.agents.get(agent).copied().unwrap_or(learned.anywhere))
    }

    /// The agents that this stage has run on, with how long it took.
    pub fn of<'a>(&'a self, routine: Option<&Routine>) -> impl Iterator<Item = (&'a AgentName, u64)> + use<'a> {
        let learned = routine.and_then(|routine| self.routines.get(routine));
        learned.into_iter().flat_map(|learned| &learned.agents).map(|(agent, took)| (agent, *took))
    }
}

fn smoothed(known: u64, new: u64) -> u64 {
    (known * (LEARNING - 1) + new + LEARNING / 2) / LEARNING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    fn routine(stage: &str) -> Routine {
        Routine { project: "demo".parse().unwrap(), pipeline: "Ottofile".to_owned(), stage: stage.to_owned() }
    }

    fn ran(stage: &str, name: &str, took_ms: u64) -> Ran {
        Ran { routine: routine(stage), agent: agent(name), took_ms: Some(took_ms) }
    }

    #[test]
    fn a_stage_is_expected_to_take_what_it_took_there_else_what_it_took_elsewhere() {
        let mut times = Times::default();
        let expected = |times: &Times, stage: &str, name: &str| times.expected_ms(Some(&routine(stage)), &agent(name));
        assert_eq!(expected(&times, "build", "a"), UNKNOWN_MS);
        times.learn(&ran("build", "a", 400));
        assert_eq!((expected(&times, "build", "a"), expected(&times, "build", "b")), (400, 400));
        times.learn(&ran("build", "b", 800));
        assert_eq!((expected(&times, "build", "a"), expected(&times, "build", "b"), expected(&times, "build", "c")), (400, 800, 500));
        times.learn(&ran("build", "a", 800));
        assert_eq!(expected(&times, "build", "a"), 500, "a quarter of the way");
        assert_eq!(expected(&times, "test", "a"), UNKNOWN_MS);
        assert_eq!(times.expected_ms(None, &agent("a")), UNKNOWN_MS);
    }

    #[test]
    fn what_failed_teaches_nothing_and_no_clock_teaches_more_than_a_week() {
        let mut times = Times::default();
        times.learn(&Ran { took_ms: None, ..ran("build", "a", 0) });
        assert_eq!(times.expected_ms(Some(&routine("build")), &agent("a")), UNKNOWN_MS);
        times.learn(&ran("build", "a", u64::MAX));
        assert_eq!(times.expected_ms(Some(&routine("build")), &agent("a")), TOOK_MS_MAX);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_quickest_agents_and_the_latest_stages_stay() {
        let mut times = Times::default();
        for number in 0..2 * AGENTS_MAX as u64 {
            times.learn(&ran("build", &format!("a{number}"), 1_000 - number));
        }
        assert_eq!(times.of(Some(&routine("build"))).count(), AGENTS_MAX);
        assert!(times.of(Some(&routine("build"))).all(|(_, took)| took < 1_000 - AGENTS_MAX as u64 + 1));
        for number in 0..ROUTINES_MAX {
            times.learn(&ran(&format!("s{number}"), "a", 1));
            times.learn(&ran("kept", "a", 1));
        }
        assert_eq!((times.routines.len(), times.order.len()), (ROUTINES_MAX, ROUTINES_MAX));
        assert_eq!(times.of(Some(&routine("build"))).count(), 0);
        assert_eq!(times.expected_ms(Some(&routine("kept")), &agent("a")), 1);
    }
}
