//! Who is there, who answers, how fast, and whom an auction asks.
//!
//! A fleet of at most [`WHOLE_MAX`] is asked as a whole. Of a larger one, [`SAMPLE_MAX`] are asked that can run the attempt by what they say of themselves: those
//! that the stage ran on for the least money before, those that are the cheapest and have a slot free, and some in turn, so that what was
//! said long ago does not hide anybody for ever.
//!
//! **Invariant:** where there is a roll, whom it does not name for the work is not asked, and what it says all the same does not count.
//!
//! **Cost**, with `n` agents and `d` demands that are remembered: an auction costs `SAMPLE_MAX × log n`, whatever `n` is, and `n` once for
//! a demand that is new; what an agent says of itself costs `log n`, and `d × log n` where it is not what it said before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use model::{
    AgentName,
    capability::{Facts, has_all, missing, missing_everywhere},
    plan::Requirements,
    protocol::{
        agent::{AgentStatus, RENEW_MS},
        auction::{AuctionRequest, Declined},
        enrolment::{Asked as Work, Enrolled, Roll, RollPage},
    },
    trigger::Trust,
};

use super::{rank::cost, times::Times};

/// An agent that was not heard of for this long is not there: it says what it is every [`RENEW_MS`], and two of those may be lost.
pub const FORGET_AFTER: Duration = Duration::from_millis(3 * RENEW_MS);
/// Agents that are known at once. One more is not waited for, but its offers count.
pub const AGENTS_MAX: usize = 16 * 1024;
/// The largest fleet that is asked as a whole, by one message.
pub const WHOLE_MAX: usize = 12;
/// Agents that one auction asks of a larger fleet, each by a message of its own: so few that it costs at most a fifth more than among ten.
pub const SAMPLE_MAX: usize = 6;
/// Of those, the ones with which the stage was the cheapest before; and the ones that are the cheapest by what they say. The rest is asked
/// in turn.
pub const PROVEN_MAX: usize = 2;
const CHEAPEST_MAX: usize = 2;
/// Demands that are remembered with the agents that meet them: those of the stages of a busy installation. The one that was asked for the
/// longest ago is forgotten.
pub const DEMANDS_MAX: usize = 32;
/// Silent agents that an auction asks or names, where nobody else could run the attempt.
const SILENT_MAX: usize = WHOLE_MAX;
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
    /// Who was enrolled as what; `None` where agents get whatever they can do.
    roll: Option<Roll>,
    agents: BTreeMap<AgentName, Presence>,
    /// The keys of `agents`, each with a time at which it was heard, the oldest first. It may have been heard since: whoever looks at it then
    /// puts it where it belongs, so that a voice costs no place in the order.
    by_age: BTreeSet<(Duration, AgentName)>,
    /// Those of `agents` that left an auction unanswered, and said nothing since.
    silent: BTreeSet<AgentName>,
    /// The one that was asked for the longest ago first.
    demands: VecDeque<Demand>,
    /// How long agents take to answer; `None` until one did.
    answer_time: Option<Duration>,
    /// Counts up with each voice: what came after what, however coarse the clock.
    turn: u64,
}

#[derive(Debug, Clone)]
struct Presence {
    heard_at: Duration,
    heard_turn: u64,
    /// It left an auction unanswered, and said nothing since.
    silent: bool,
    /// All its slots were busy when it last spoke of them.
    full: bool,
    /// As it said itself.
    price_micros_per_s: u64,
    /// What it is and has; `None` until it said so: it may be anything.
    facts: Option<Arc<Facts>>,
    right: Right,
}

/// What an agent may be given, whatever it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Right {
    /// Everything: there is no roll.
    Everything,
    /// Nothing: the roll does not name it.
    Nothing,
    /// What it was enrolled for.
    As(Enrolled),
}

impl Right {
    fn allows(&self, work: Work<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::As(enrolled) => enrolled.refuses(work).is_none(),
        }
    }
}

/// Agents in the order in which they are asked.
type Candidate = (bool, u64, AgentName);

/// What some stage asks of an agent, and who meets that.
#[derive(Debug)]
struct Demand {
    trust: Trust,
    requires: Requirements,
    /// Those that are not silent.
    candidates: BTreeSet<Candidate>,
    /// The last one that was asked in turn.
    last: Option<Candidate>,
    /// What nobody has; `None` until it is asked for.
    unmet: Option<Vec<String>>,
}

/// Whom an auction asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// They are waited for.
    pub expected: BTreeSet<AgentName>,
    /// They are there, but did not answer the last time. They are waited for where they are spoken to.
    pub silent: BTreeSet<AgentName>,
    /// Who is spoken to.
    pub audience: Audience,
}

/// Who is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Audience {
    /// All agents of the class, known or not.
    #[default]
    Class,
    /// These alone; nobody, where no agent that is known could.
    Agents(BTreeSet<AgentName>),
}

impl Presence {
    fn candidate(&self, agent: &AgentName) -> Candidate {
        (self.full, self.price_micros_per_s, agent.clone())
    }

    fn meets(&self, trust: Trust, requires: &Requirements) -> bool {
        self.facts.as_ref().is_none_or(|facts| has_all(requires, facts)) && self.right.allows(Work::by(trust, requires))
    }
}

/// What a request is for, as the roll knows it.
fn work(request: &AuctionRequest) -> Work<'_> {
    Work::by(request.trust, &request.requires)
}

impl Roster {
    /// Of agents that get only what they were enrolled for: nothing, until the roll was heard.
    pub fn with_roll() -> Self {
        Self { roll: Some(Roll::default()), ..Self::default() }
    }

    /// It was said who is enrolled.
    pub fn enrolled(&mut self, page: RollPage) {
        let Some(roll) = &mut self.roll else { return };
        for agent in roll.take(page) {
            let right = self.right(&agent);
            self.change(&agent, None, |presence| presence.right = right);
        }
        for demand in &mut self.demands {
            demand.unmet = None;
        }
    }

    fn right(&self, agent: &AgentName) -> Right {
        match &self.roll {
            None => Right::Everything,
            Some(roll) => roll.get(agent).map_or(Right::Nothing, |enrolled| Right::As(enrolled.clone())),
        }
    }

    /// Whether an agent may be given what the request is for, whatever it can do.
    pub fn may_have(&self, agent: &AgentName, request: &AuctionRequest) -> bool {
        match self.agents.get(agent) {
            Some(presence) => presence.right.allows(work(request)),
            None => self.right(agent).allows(work(request)),
        }
    }

    /// What the agent lacks by its own words, for people.
    pub fn lacks(&self, agent: &AgentName, requires: &Requirements) -> Option<String> {
        missing(requires, self.agents.get(agent)?.facts.as_deref()?)
    }

    /// An agent said something, whatever it was.
    pub fn heard(&mut self, agent: &AgentName, now: Duration) {
        match self.agents.get_mut(agent) {
            Some(presence) if !presence.silent => {
                self.turn += 1;
                (presence.heard_at, presence.heard_turn) = (now, self.turn);
            }
            Some(_) | None => self.change(agent, Some(now), |_| {}),
        }
    }

    /// An agent said what it is and has.
    pub fn showed(&mut self, status: &AgentStatus, agent: &AgentName, now: Duration) {
        self.forget(now);
        let known = self.agents.get(agent).and_then(|presence| presence.facts.clone());
        let facts = known.filter(|known| **known == status.facts).unwrap_or_else(|| Arc::new(status.facts.clone()));
        self.change(agent, Some(now), |presence| {
            presence.full = status.slots_free == 0;
            presence.price_micros_per_s = status.price_micros_per_s;
            presence.facts = Some(facts);
        });
    }

    /// An agent that was asked has a slot free, or not.
    pub fn is_full(&mut self, agent: &AgentName, full: bool) {
        if self.agents.get(agent).is_some_and(|presence| presence.full != full) {
            self.change(agent, None, |presence| presence.full = full);
        }
    }

    /// Alters what is known of an agent, and where it stands among the candidates. One that is not known and did not speak stays so.
    fn change(&mut self, agent: &AgentName, heard_at: Option<Duration>, alter: impl FnOnce(&mut Presence)) {
        let before = self.agents.get(agent).cloned();
        let mut after = match (&before, heard_at) {
            (Some(known), _) => known.clone(),
            (None, Some(heard_at)) if self.agents.len() < AGENTS_MAX => {
                let right = self.right(agent);
                Presence { heard_at, heard_turn: 0, silent: false, full: false, price_micros_per_s: u64::MAX, facts: None, right }
            }
            (None, _) => return,
        };
        if let Some(heard_at) = heard_at {
            self.turn += 1;
            if before.is_none() {
                self.by_age.insert((heard_at, agent.clone()));
            }
            (after.heard_at, after.heard_turn, after.silent) = (heard_at, self.turn, false);
            self.silent.remove(agent);
        }
        alter(&mut after);
        self.replace(agent, before.as_ref(), Some(&after));
        self.agents.insert(agent.clone(), after);
    }

    fn replace(&mut self, agent: &AgentName, before: Option<&Presence>, after: Option<&Presence>) {
        let place = |presence: &Presence| (presence.silent, presence.full, presence.price_micros_per_s);
        let same_facts = match (before, after) {
            (Some(before), Some(after)) if before.right == after.right => match (&before.facts, &after.facts) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                (before, after) => before.is_none() && after.is_none(),
            },
            (Some(_) | None, _) => false,
        };
        if same_facts && before.map(place) == after.map(place) {
            return;
        }
        for demand in &mut self.demands {
            if let Some(before) = before {
                demand.candidates.remove(&before.candidate(agent));
            }
            if let Some(after) = after.filter(|after| !after.silent && after.meets(demand.trust, &demand.requires)) {
                demand.candidates.insert(after.candidate(agent));
            }
            if !same_facts {
                demand.unmet = None;
            }
        }
    }

    fn forget(&mut self, now: Duration) {
        while let Some((heard_at, agent)) = self.by_age.first().cloned()
            && now.saturating_sub(heard_at) >= FORGET_AFTER
        {
            self.by_age.pop_first();
            if let Some(presence) = self.agents.get(&agent)
                && now.saturating_sub(presence.heard_at) < FORGET_AFTER
            {
                self.by_age.insert((presence.heard_at, agent));
                continue;
            }
            self.silent.remove(&agent);
            let gone = self.agents.remove(&agent);
            self.replace(&agent, gone.as_ref(), None);
        }
    }

    /// Whom an auction asks that begins now.
    pub fn ask(&mut self, request: &AuctionRequest, times: &Times, now: Duration) -> Asked {
        self.forget(now);
        if self.agents.len() > WHOLE_MAX {
            return self.sample(request, times);
        }
        let (mut asked, mut passed_over, mut somebody_can) = (Asked::default(), false, false);
        for (agent, presence) in self.agents.iter().filter(|(agent, _)| !request.except.contains(agent)) {
            if !presence.right.allows(work(request)) {
                passed_over = true;
                continue;
            }
            let is_silent = self.silent.contains(agent);
            somebody_can |= !is_silent && presence.meets(request.trust, &request.requires);
            let set = if is_silent { &mut asked.silent } else { &mut asked.expected };
            set.insert(agent.clone());
        }
        if !asked.expected.is_empty() && !asked.silent.is_empty() && !somebody_can {
            // Those who answer lack something: who did not answer the last time may have it.
            asked.audience = Audience::Agents(asked.expected.union(&asked.silent).cloned().collect());
        } else if !asked.expected.is_empty() && (passed_over || !asked.silent.is_empty()) {
            asked.audience = Audience::Agents(asked.expected.clone());
        } else if asked.expected.is_empty() && asked.silent.is_empty() && self.nobody_may(request) {
            asked.audience = Audience::Agents(BTreeSet::new());
        } else if passed_over && asked.expected.is_empty() {
            // Who is not heard of yet may; who may not would keep a slot for nothing.
            let may = self.roll.iter().flat_map(|roll| roll.fitting(work(request))).filter(|agent| !request.except.contains(agent));
            let unheard = may.filter(|agent| !self.agents.contains_key(*agent)).take(WHOLE_MAX).cloned();
            asked.audience = Audience::Agents(asked.silent.iter().cloned().chain(unheard).collect());
        }
        asked
    }

    /// Whether nobody who is enrolled may have what is asked for.
    fn nobody_may(&self, request: &AuctionRequest) -> bool {
        self.roll.as_ref().is_some_and(|roll| roll.unmet(work(request)).is_some())
    }

    fn sample(&mut self, request: &AuctionRequest, times: &Times) -> Asked {
        let excepted = |agent: &AgentName| request.except.contains(agent);
        let mut expected = BTreeSet::new();
        let mut proven: Vec<(bool, u128, &AgentName)> = times
            .of(request.routine.as_ref())
            .filter_map(|(agent, took)| {
                let presence =
                    self.agents.get(agent).filter(|presence| !presence.silent && presence.meets(request.trust, &request.requires))?;
                Some((presence.full, cost(presence.price_micros_per_s, took), agent))
            })
            .filter(|(_, _, agent)| !excepted(agent))
            .collect();
        proven.sort_unstable();
        expected.extend(proven.into_iter().take(PROVEN_MAX).map(|(_, _, agent)| agent.clone()));
        let demand = self.demand(request.trust, &request.requires);
        let (proven, mut last) = (expected.len(), demand.last.take());
        for (_, _, agent) in demand.candidates.iter().filter(|(_, _, agent)| !excepted(agent)) {
            if expected.len() >= proven + CHEAPEST_MAX {
                break;
            }
            expected.insert(agent.clone());
        }
        let after = last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = demand.candidates.range((after, Bound::Unbounded)).chain(&demand.candidates).take(demand.candidates.len());
        for candidate in in_turn.filter(|(_, _, agent)| !excepted(agent)) {
            if expected.len() >= SAMPLE_MAX {
                break;
            }
            if expected.insert(candidate.2.clone()) {
                last = Some(candidate.clone());
            }
        }
        demand.last = last;
        if !expected.is_empty() {
            return Asked { audience: Audience::Agents(expected.clone()), expected, silent: BTreeSet::new() };
        }
        // Nobody else could: who did not answer the last time may again.
        let able = |agent: &&AgentName| self.agents.get(*agent).is_some_and(|presence| presence.meets(request.trust, &request.requires));
        let silent: BTreeSet<AgentName> =
            self.silent.iter().filter(|agent| !excepted(agent)).filter(able).take(SILENT_MAX).cloned().collect();
        Asked { audience: Audience::Agents(silent.clone()), expected, silent }
    }

    /// The demand, behind the others.
    fn demand(&mut self, trust: Trust, requires: &Requirements) -> &mut Demand {
        let is_it = |demand: &Demand| demand.trust == trust && demand.requires == *requires;
        let known = self.demands.iter().position(is_it).and_then(|at| self.demands.remove(at));
        let demand = known.unwrap_or_else(|| {
            let able = self.agents.iter().filter(|(_, presence)| !presence.silent && presence.meets(trust, requires));
            let candidates = able.map(|(agent, presence)| presence.candidate(agent)).collect();
            Demand { trust, requires: requires.clone(), candidates, last: None, unmet: None }
        });
        if self.demands.len() >= DEMANDS_MAX {
            self.demands.pop_front();
        }
        self.demands.push_back(demand);
        self.demands.back_mut().expect("it was just put there")
    }

    /// What no agent has of what is demanded, for people; nothing where one may have all.
    pub fn unmet(&mut self, request: &AuctionRequest) -> Vec<String> {
        let AuctionRequest { trust, requires, .. } = request;
        if requires.is_empty() && self.roll.is_none() {
            return Vec::new();
        }
        if let Some(unmet) = &self.demand(*trust, requires).unmet {
            return unmet.clone();
        }
        let may = || self.agents.values().filter(|presence| presence.right.allows(work(request)));
        let unmet = if let Some(unmet) = self.roll.as_ref().and_then(|roll| roll.unmet(work(request))) {
            vec![unmet]
        } else if may().all(|presence| presence.facts.is_some()) {
            missing_everywhere(requires, &may().filter_map(|presence| presence.facts.as_deref()))
        } else {
            Vec::new()
        };
        self.demand(*trust, requires).unmet = Some(unmet.clone());
        unmet
    }

    /// What some agents that were not asked lack, as they would have said it, or why they may not.
    pub fn lacking(&self, request: &AuctionRequest) -> impl Iterator<Item = Declined> {
        self.agents.iter().filter_map(|(agent, presence)| {
            let barred = self.roll.as_ref().and_then(|roll| roll.refuses(agent, work(request)));
            let reason = barred.or_else(|| missing(&request.requires, presence.facts.as_deref()?))?;
            Some(Declined { agent: agent.clone(), reason })
        })
    }

    /// Where the sequence of voices stands.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// An agent left an auction that began at `turn` unanswered. It is not asked again until it speaks; where it spoke since the auction
    /// began, of something else, it is there.
    pub fn missed(&mut self, agent: &AgentName, turn: u64) {
        if self.agents.get(agent).is_some_and(|presence| presence.heard_turn <= turn) {
            self.silent.insert(agent.clone());
            self.change(agent, None, |presence| presence.silent = true);
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
mod tests;
