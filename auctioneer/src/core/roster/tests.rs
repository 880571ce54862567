//! Who is asked: by example, and counted with fleets of up to ten thousand.

use std::collections::BTreeMap;

use model::{
    AttemptId, AuctionId, RunId, StageId, TriggerId,
    plan::Value,
    protocol::auction::{Ran, Routine},
};

use super::*;
use crate::core::rank;

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn numbered(number: usize) -> AgentName {
    agent(&format!("a{number}"))
}

fn request(requires: &[(&str, Value)], except: &[AgentName]) -> AuctionRequest {
    let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
    let requires = requires.iter().map(|(name, wanted)| ((*name).to_owned(), wanted.clone())).collect();
    let routine = Routine { project: "demo".parse().unwrap(), pipeline: "Ottofile".to_owned(), stage: "build".to_owned() };
    let except = except.to_vec();
    AuctionRequest { requires, except, routine: Some(routine), ..AuctionRequest::new(AuctionId::of(&attempt, 1), attempt) }
}

fn status(name: &AgentName, slots_free: u32, price_micros_per_s: u64, facts: &[(&str, Value)]) -> AgentStatus {
    let facts: BTreeMap<String, Value> = facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.clone())).collect();
    AgentStatus { agent: name.clone(), slots: 1, slots_free, price_micros_per_s, facts, leases: vec![], number: 1 }
}

/// A fleet of which every agent has so many cores, and a price that depends on its number.
fn fleet(count: usize) -> Roster {
    let mut roster = Roster::default();
    for number in 0..count {
        let price = 100 + (number as u64 * 7_919) % 1_000;
        let name = numbered(number);
        roster.showed(&status(&name, 1, price, &[("cores", Value::Integer(4))]), &name, Duration::ZERO);
    }
    roster
}

#[test]
fn of_a_large_fleet_those_are_asked_who_may_have_the_work_and_a_change_counts_at_once() {
    use model::protocol::enrolment::AgentTrust;
    let page = |trust_of: &dyn Fn(usize) -> AgentTrust| {
        let enrolled = |number| Enrolled { class: "default".parse().unwrap(), trust: trust_of(number), draining: false };
        RollPage { after: None, through: None, agents: (0..100).map(|number| (numbered(number), enrolled(number))).collect() }
    };
    let mut roster = Roster { roll: Some(Roll::default()), ..fleet(0) };
    for number in 0..100 {
        roster.showed(&status(&numbered(number), 1, 5, &[]), &numbered(number), Duration::ZERO);
    }
    let expected = |roster: &mut Roster| roster.ask(&request(&[], &[]), &Times::default(), Duration::ZERO).expected;
    assert_eq!(expected(&mut roster), BTreeSet::new(), "nobody is known to be enrolled");
    roster.enrolled(page(&|number| if number < 3 { AgentTrust::Untrusted } else { AgentTrust::Trusted }));
    assert_eq!(expected(&mut roster), (0..3).map(numbered).collect());
    roster.enrolled(page(&|number| if number == 7 { AgentTrust::Any } else { AgentTrust::Trusted }));
    assert_eq!(expected(&mut roster), BTreeSet::from([numbered(7)]));
    let own = AuctionRequest { trust: Trust::Trusted, ..request(&[], &[]) };
    assert_eq!(roster.ask(&own, &Times::default(), Duration::ZERO).expected.len(), SAMPLE_MAX);
    assert!(roster.may_have(&numbered(8), &own) && !roster.may_have(&numbered(8), &request(&[], &[])));
}

fn ask(roster: &mut Roster, except: &[&str], now: Duration) -> Asked {
    let except: Vec<AgentName> = except.iter().map(|name| agent(name)).collect();
    roster.ask(&request(&[], &except), &Times::default(), now)
}

fn asked(expected: &[&str], silent: &[&str]) -> Asked {
    let names = |names: &[&str]| names.iter().map(|name| agent(name)).collect();
    let (expected, silent): (BTreeSet<_>, BTreeSet<_>) = (names(expected), names(silent));
    let audience = if expected.is_empty() || silent.is_empty() { Audience::Class } else { Audience::Agents(expected.clone()) };
    Asked { expected, silent, audience }
}

#[test]
fn who_was_not_heard_of_leaves() {
    let mut roster = Roster::default();
    roster.heard(&agent("a"), Duration::ZERO);
    roster.heard(&agent("b"), Duration::from_secs(1));
    assert_eq!(ask(&mut roster, &[], Duration::from_secs(2)), asked(&["a", "b"], &[]));
    assert_eq!(ask(&mut roster, &["b"], Duration::from_secs(2)), asked(&["a"], &[]));
    assert_eq!(ask(&mut roster, &[], FORGET_AFTER), asked(&["b"], &[]));
    assert_eq!(ask(&mut roster, &[], FORGET_AFTER * 2), asked(&[], &[]));
    assert_eq!((roster.by_age.len(), roster.silent.len()), (0, 0));
}

#[test]
fn who_missed_an_auction_is_not_asked_until_it_speaks() {
    let mut roster = Roster::default();
    roster.heard(&agent("a"), Duration::ZERO);
    roster.heard(&agent("b"), Duration::ZERO);
    let turn = roster.turn();
    roster.heard(&agent("b"), Duration::ZERO);
    roster.missed(&agent("a"), turn);
    roster.missed(&agent("b"), turn);
    assert_eq!(ask(&mut roster, &[], Duration::ZERO), asked(&["b"], &["a"]));
    roster.heard(&agent("a"), Duration::ZERO);
    assert_eq!(ask(&mut roster, &[], Duration::ZERO), asked(&["a", "b"], &[]));
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
        roster.heard(&numbered(number), Duration::ZERO);
    }
    assert_eq!((roster.agents.len(), roster.by_age.len()), (AGENTS_MAX, AGENTS_MAX));
    for number in 0..2 * DEMANDS_MAX {
        let wanted = Value::Integer(i64::try_from(number).unwrap());
        roster.ask(&request(&[("cores", wanted)], &[]), &Times::default(), Duration::ZERO);
    }
    assert_eq!(roster.demands.len(), DEMANDS_MAX);
}

#[test]
fn of_ten_thousand_as_many_are_asked_as_of_a_dozen() {
    for count in [WHOLE_MAX + 1, 2 * WHOLE_MAX, 1_000, 10_000] {
        let mut roster = fleet(count);
        for _ in 0..20 {
            assert_eq!(ask(&mut roster, &[], Duration::ZERO).expected.len(), SAMPLE_MAX, "of {count}");
        }
        assert_eq!(roster.demands.len(), 1, "the fleet is looked through once");
    }
}

#[test]
fn the_only_one_that_can_is_asked_whoever_else_is_there() {
    let mut roster = fleet(10_000);
    let only = numbered(6_789);
    roster.showed(&status(&only, 0, 900_000, &[("docker_run", Value::Boolean(true)), ("cores", Value::Integer(2))]), &only, Duration::ZERO);
    let wants = request(&[("docker_run", Value::Boolean(true))], &[]);
    let asked = roster.ask(&wants, &Times::default(), Duration::ZERO);
    assert_eq!(asked.audience, Audience::Agents([only.clone()].into()));
    let excepted =
        roster.ask(&request(&[("docker_run", Value::Boolean(true))], std::slice::from_ref(&only)), &Times::default(), Duration::ZERO);
    assert_eq!(excepted.audience, Audience::Agents(BTreeSet::new()));
    assert_eq!(roster.unmet(&wants), [""; 0]);
    roster.showed(&status(&only, 1, 0, &[("cores", Value::Integer(2))]), &only, Duration::ZERO);
    assert_eq!(roster.ask(&wants, &Times::default(), Duration::ZERO).expected, BTreeSet::new());
    assert_eq!(roster.unmet(&wants), ["no agent has docker_run"]);
    // It says that it has it again.
    roster.showed(&status(&only, 1, 0, &[("docker_run", Value::Boolean(true))]), &only, Duration::ZERO);
    assert_eq!(roster.ask(&wants, &Times::default(), Duration::ZERO).expected, [only.clone()].into());
    let turn = roster.turn();
    roster.missed(&only, turn);
    let silent = roster.ask(&wants, &Times::default(), Duration::ZERO);
    assert_eq!((silent.expected.len(), silent.silent), (0, [only].into()), "nobody else could");
}

#[test]
fn who_has_no_slot_free_is_asked_last_and_everybody_is_asked_in_turn() {
    let mut roster = fleet(100);
    for number in 0..100 {
        roster.is_full(&numbered(number), number != 42);
    }
    let mut all = BTreeSet::new();
    for _ in 0..100 {
        let asked = ask(&mut roster, &[], Duration::ZERO).expected;
        assert!(asked.contains(&numbered(42)));
        all.extend(asked);
    }
    assert_eq!(all.len(), 100, "what is known may be old");
}

/// What an offer of the agent costs by all that is known.
fn offered(roster: &Roster, times: &Times, request: &AuctionRequest, agent: &AgentName) -> u128 {
    rank::cost(roster.agents[agent].price_micros_per_s, times.expected_ms(request.routine.as_ref(), agent))
}

#[test]
fn the_cost_that_is_chosen_is_within_a_tenth_of_that_of_asking_all() {
    let (mut roster, mut times, request) = (fleet(10_000), Times::default(), request(&[], &[]));
    let routine = request.routine.clone().unwrap();
    // Each agent is as quick as its number says, which nobody knows but by running there.
    let speed = |agent: &AgentName| 200 + agent.as_str().bytes().fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 800);
    let mut free: BTreeSet<AgentName> = roster.agents.keys().cloned().collect();
    let (mut chosen_sum, mut best_sum) = (0, 0);
    for auction in 0..300_usize {
        // Some agents are taken by others, and the auctioneer hears of it.
        let taken = numbered(auction * 13 % 10_000);
        free.remove(&taken);
        roster.is_full(&taken, true);
        let asked = roster.ask(&request, &times, Duration::ZERO).expected;
        let cheapest = |agents: &mut dyn Iterator<Item = &AgentName>| {
            agents.map(|agent| (offered(&roster, &times, &request, agent), agent.clone())).min()
        };
        let best = cheapest(&mut free.iter()).unwrap();
        let chosen = cheapest(&mut asked.iter().filter(|agent| free.contains(*agent))).unwrap();
        (chosen_sum, best_sum) = (chosen_sum + chosen.0, best_sum + best.0);
        assert!(chosen.0 * 10 <= best.0 * 11, "auction {auction}: {chosen:?} where {best:?} was there");
        times.learn(&Ran { routine: routine.clone(), agent: chosen.1.clone(), took_ms: Some(speed(&chosen.1)) });
    }
    assert!(chosen_sum * 100 <= best_sum * 101, "on the whole within a hundredth: {chosen_sum}, {best_sum}");
}
