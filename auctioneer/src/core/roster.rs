//! Who is there, who answers, and how fast.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{AgentName, protocol::agent::RENEW_MS};

/// An agent that was not heard of for this long is not there: it says what it is every [`RENEW_MS`], and two of those may be lost.
pub const FORGET_AFTER: Duration = Duration::from_millis(3 * RENEW_MS);
/// Agents that are known at once. One more is not waited for, but its offers count.
pub const AGENTS_MAX: usize = 16 * 1024;
/// Agents that one auction waits for. All hear of it; with the answers of so many there is nothing to wait for.
pub const ASKED_MAX: usize = 1_024;
/// The least that an auction waits for better offers after its first: below it, a timer is not exact.
pub const WAIT_MIN: Duration = Duration::from_millis(2);
/// The most that an auction waits for better offers after its first: a stage's start must not suffer from a slow agent.
pub const WAIT_MAX: Duration = Duration::from_millis(20);
/// The wait is so many times the smoothed answer time: most answers lie within (for a time that is spread exponentially, 95 %).
const WAIT_FACTOR: u32 = 3;
/// A new answer time moves the smoothed one by this part, as in TCP's round-trip estimate (RFC 6298).
const SMOOTHING: u32 = 8;

/// The agents that were heard of lately.
#[derive(Debug, Default)]
pub struct Roster {
    agents: BTreeMap<AgentName, Presence>,
    /// How long agents take to answer; `None` until one did.
    answer_time: Option<Duration>,
    /// Counts up with each voice: what came after what, however coarse the clock.
    turn: u64,
}

#[derive(Debug)]
struct Presence {
    heard_at: Duration,
    heard_turn: u64,
    /// It left an auction unanswered, and said nothing since.
    silent: bool,
}

/// Whom an auction asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// They are waited for.
    pub expected: BTreeSet<AgentName>,
    /// They are there, but did not answer the last time.
    pub silent: BTreeSet<AgentName>,
}

impl Roster {
    /// An agent said something, whatever it was.
    pub fn heard(&mut self, agent: &AgentName, now: Duration) {
        self.turn += 1;
        let presence = Presence { heard_at: now, heard_turn: self.turn, silent: false };
        if let Some(known) = self.agents.get_mut(agent) {
            *known = presence;
        } else if self.agents.len() < AGENTS_MAX {
            self.agents.insert(agent.clone(), presence);
        }
    }

    /// Whom an auction asks that begins now, [`ASKED_MAX`] of them. Costs one step for each agent, as the auction itself does: each
    /// answers it.
    pub fn ask(&mut self, except: &[AgentName], now: Duration) -> Asked {
        self.agents.retain(|_, presence| now.saturating_sub(presence.heard_at) < FORGET_AFTER);
        let mut asked = Asked::default();
        for (agent, presence) in self.agents.iter().filter(|(agent, _)| !except.contains(agent)).take(ASKED_MAX) {
            let set = if presence.silent { &mut asked.silent } else { &mut asked.expected };
            set.insert(agent.clone());
        }
        asked
    }

    /// Where the sequence of voices stands.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// An agent left an auction that began at `turn` unanswered. It is not expected again until it speaks; where it spoke since the
    /// auction began, of something else, it is there.
    pub fn missed(&mut self, agent: &AgentName, turn: u64) {
        if let Some(presence) = self.agents.get_mut(agent)
            && presence.heard_turn <= turn
        {
            presence.silent = true;
        }
    }

    /// An answer took this long.
    pub fn answered(&mut self, took: Duration) {
        self.answer_time = Some(self.answer_time.map_or(took, |smoothed| (smoothed * (SMOOTHING - 1) + took) / SMOOTHING));
    }

    /// How long an auction waits for better offers after its first.
    pub fn wait(&self) -> Duration {
        let answers = self.answer_time.unwrap_or_default().saturating_mul(WAIT_FACTOR);
        answers.clamp(WAIT_MIN, WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    fn asked(expected: &[&str], silent: &[&str]) -> Asked {
        let names = |names: &[&str]| names.iter().map(|name| agent(name)).collect();
        Asked { expected: names(expected), silent: names(silent) }
    }

    #[test]
    fn who_was_not_heard_of_leaves() {
        let mut roster = Roster::default();
        roster.heard(&agent("a"), Duration::ZERO);
        roster.heard(&agent("b"), Duration::from_secs(1));
        assert_eq!(roster.ask(&[], Duration::from_secs(2)), asked(&["a", "b"], &[]));
        assert_eq!(roster.ask(&[agent("b")], Duration::from_secs(2)), asked(&["a"], &[]));
        assert_eq!(roster.ask(&[], FORGET_AFTER), asked(&["b"], &[]));
        assert_eq!(roster.ask(&[], FORGET_AFTER * 2), asked(&[], &[]));
    }

    #[test]
    fn who_missed_an_auction_is_not_expected_until_it_speaks() {
        let mut roster = Roster::default();
        roster.heard(&agent("a"), Duration::ZERO);
        roster.heard(&agent("b"), Duration::ZERO);
        let turn = roster.turn();
        roster.heard(&agent("b"), Duration::ZERO);
        roster.missed(&agent("a"), turn);
        roster.missed(&agent("b"), turn);
        assert_eq!(roster.ask(&[], Duration::ZERO), asked(&["b"], &["a"]));
        roster.heard(&agent("a"), Duration::ZERO);
        assert_eq!(roster.ask(&[], Duration::ZERO), asked(&["a", "b"], &[]));
    }

    #[test]
    fn the_wait_follows_the_answer_times_within_its_bounds() {
        let mut roster = Roster::default();
        roster.answered(Duration::from_micros(100));
        assert_eq!(roster.wait(), WAIT_MIN);
        for _ in 0..100 {
            roster.answered(Duration::from_millis(4));
        }
        assert!((Duration::from_millis(11)..=Duration::from_millis(12)).contains(&roster.wait()), "{:?}", roster.wait());
        roster.answered(Duration::from_secs(61));
        assert_eq!(roster.wait(), WAIT_MAX);
    }

    #[test]
    fn the_roster_is_bounded() {
        let mut roster = Roster::default();
        for number in 0..AGENTS_MAX + 10 {
            roster.heard(&agent(&format!("a{number}")), Duration::ZERO);
        }
        assert_eq!(roster.agents.len(), AGENTS_MAX);
        assert_eq!(roster.ask(&[], Duration::ZERO).expected.len(), ASKED_MAX);
    }
}
