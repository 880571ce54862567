//! Agents that bid for what they were not asked, and that lie. Each attack is made twice: without its guard, where it succeeds, and with it, where it
//! fails.

use std::{collections::BTreeMap, time::Duration};

use auctioneer::{AuctioneerOptions, core::book::LONGEST_WAIT};
use eventbus::{Bus, Subject, Subscription, memory};
use model::{
    AgentName, AttemptId, AuctionId, RunId, StageId, TriggerId,
    plan::Value,
    protocol::{
        agent::AgentStatus,
        auction::{Announcement, AuctionRequest, Bid, Offer, Proposal, Reservation},
        enrolment::{AgentTrust, Enrolled, RollPage, RollRequest},
    },
    trigger::Trust,
};
use service::{OnError, Supervisor, supervisor::Ended};
use tokio::time::{Instant, timeout};

/// Beyond it, what was waited for does not come. With the time stepped it costs nothing.
const DEADLINE: Duration = Duration::from_secs(59);
/// More than one auction takes of bids.
const FLOOD: usize = 1_100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Off,
    On,
}

const GUARDS: [Guard; 2] = [Guard::Off, Guard::On];

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn enrolled(class: &str, trust: AgentTrust) -> Enrolled {
    Enrolled { class: class.parse().unwrap(), trust, draining: false }
}

/// Of an untrusted run.
fn request(round: u32) -> AuctionRequest {
    let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
    AuctionRequest::new(AuctionId::of(&attempt, round), attempt)
}

fn offer(price_micros_per_s: u64) -> Bid {
    Bid::Offer(Offer::new(price_micros_per_s, 0, Reservation::Slot))
}

fn winners(proposal: &Proposal) -> Vec<&str> {
    proposal.offers.iter().map(|ranked| ranked.agent.as_str()).collect()
}

/// A bus with an auctioneer, the eventbus role that tells it who is enrolled, and the orchestrator's end of it.
struct House {
    bus: Bus,
    supervisor: Supervisor,
    proposals: Subscription,
}

impl House {
    async fn open(guard: Guard, roll: &[(&str, Enrolled)]) -> Self {
        let (bus, supervisor) = (memory::bus(), Supervisor::new());
        let proposals = bus.subscribe(Subject::proposed()).await.unwrap();
        let agents: BTreeMap<AgentName, Enrolled> = roll.iter().map(|(name, enrolled)| (agent(name), enrolled.clone())).collect();
        let (mut questions, token) = (bus.subscribe(Subject::roll()).await.unwrap(), supervisor.token().clone());
        supervisor.spawn("roll", OnError::Shutdown, async move {
            while let Some(message) = tokio::select! { message = questions.next() => message, () = token.cancelled() => None } {
                let RollRequest { after } = message.read()?;
                message.reply(&RollPage { after, through: None, agents: agents.clone() }).await?;
            }
            Ok(())
        });
        let options = AuctioneerOptions { name: "test".to_owned(), asks_the_roll: guard == Guard::On };
        auctioneer::run(options, bus.clone(), &supervisor).await.unwrap();
        let mut house = Self { bus, supervisor, proposals };
        if guard == Guard::On {
            house.until_the_roll_is_known().await;
        }
        house
    }

    /// The auctioneer says of an auction without an agent whether it knows who is enrolled.
    async fn until_the_roll_is_known(&mut self) {
        let mut round = u32::MAX;
        while self.hold(&request(round)).await.0.unmet.iter().any(|unmet| unmet.contains("not known yet")) {
            round -= 1;
        }
    }

    async fn show(&self, name: &str, facts: &[(&str, Value)]) {
        let facts = facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.clone())).collect();
        let (slots, slots_free, price_micros_per_s) = (1, 1, 0);
        let status = AgentStatus { agent: agent(name), slots, slots_free, price_micros_per_s, facts, leases: vec![], number: 0 };
        self.bus.publish(&Subject::status(&agent(name)), &status).await.unwrap();
    }

    async fn bid(&self, name: &str, request: &AuctionRequest, bid: &Bid) {
        self.bus.publish(&Subject::bid(&agent(name), &request.auction), bid).await.unwrap();
    }

    /// An agent that answers what it is asked.
    async fn honest(&self, name: &str, bid: Bid) {
        let mut announcements = self.bus.subscribe(Subject::auction("default")).await.unwrap();
        let mut calls = self.bus.subscribe(Subject::call(&agent(name))).await.unwrap();
        self.show(name, &[]).await;
        let (bus, token, name) = (self.bus.clone(), self.supervisor.token().clone(), agent(name));
        self.supervisor.spawn(format!("agent {name}"), OnError::Shutdown, async move {
            while let Some(message) = tokio::select! { message = announcements.next() => message, message = calls.next() => message, () = token.cancelled() => None }
            {
                let announcement: Announcement = message.read()?;
                bus.publish(&Subject::bid(&name, &announcement.request.auction), &bid).await?;
            }
            Ok(())
        });
    }

    /// Returns when the auction is open, as the agent hears.
    async fn ask(&self, request: &AuctionRequest, who: &str) {
        let mut class = self.bus.subscribe(Subject::auction("default")).await.unwrap();
        let mut calls = self.bus.subscribe(Subject::call(&agent(who))).await.unwrap();
        self.bus.publish(&Subject::for_auction(), request).await.unwrap();
        let message = tokio::select! { message = class.next() => message, message = calls.next() => message };
        let announcement: Announcement = message.unwrap().read().unwrap();
        assert_eq!(announcement.request, *request);
    }

    async fn answer(&mut self) -> Proposal {
        let message = timeout(DEADLINE, self.proposals.next()).await.expect("a proposal comes").expect("the bus is open");
        message.read().unwrap()
    }

    async fn hold(&mut self, request: &AuctionRequest) -> (Proposal, Duration) {
        let asked = Instant::now();
        self.bus.publish(&Subject::for_auction(), request).await.unwrap();
        (self.answer().await, asked.elapsed())
    }

    async fn close(self) {
        assert_eq!(self.supervisor.shut_down().await, Ended::InOrder);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_gets_the_work_of_runs_that_it_was_not_enrolled_for_only_without_the_guard() {
    let rogues = [
        ("trusted", Some(enrolled("default", AgentTrust::Trusted))),
        ("other-class", Some(enrolled("big", AgentTrust::Any))),
        ("draining", Some(Enrolled { draining: true, ..enrolled("default", AgentTrust::Any) })),
        ("unknown", None),
    ];
    for guard in GUARDS {
        for (rogue, standing) in &rogues {
            let honest = ("honest", enrolled("default", AgentTrust::Untrusted));
            let roll: Vec<(&str, Enrolled)> = standing.iter().map(|standing| (*rogue, standing.clone())).chain([honest]).collect();
            let mut house = House::open(guard, &roll).await;
            house.show(rogue, &[]).await;
            house.show("honest", &[]).await;
            let asked = request(1);
            house.ask(&asked, "honest").await;
            house.bid(rogue, &asked, &offer(0)).await;
            house.bid("honest", &asked, &offer(7)).await;
            let first = winners(&house.answer().await)[0].to_owned();
            assert_eq!(first, if guard == Guard::Off { *rogue } else { "honest" }, "{guard:?} {rogue}");
            house.close().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_run_waits_for_an_agent_of_its_own_and_that_is_said() {
    let trusted = ("trusted", enrolled("default", AgentTrust::Trusted));
    let mut house = House::open(Guard::On, std::slice::from_ref(&trusted)).await;
    house.honest("trusted", offer(0)).await;
    let (proposal, took) = house.hold(&request(1)).await;
    assert_eq!((winners(&proposal), took), (vec![], Duration::ZERO), "nobody is asked, so nobody keeps a slot");
    assert!(
        proposal.unmet[0].starts_with("this run is untrusted, and no agent of class `default` takes untrusted runs"),
        "{:?}",
        proposal.unmet
    );
    assert_eq!(proposal.declined[0].reason, "this run is untrusted, and it was enrolled for trusted runs only");
    let own = AuctionRequest { trust: Trust::Trusted, ..request(2) };
    assert_eq!(winners(&house.hold(&own).await.0), ["trusted"]);

    // One comes; of the trusted one nobody wants to know.
    let agents = [trusted, ("late", enrolled("default", AgentTrust::Untrusted))];
    let agents = agents.into_iter().map(|(name, enrolled)| (agent(name), enrolled)).collect();
    house.bus.publish(&Subject::enrolled(), &RollPage { after: None, through: None, agents }).await.unwrap();
    house.honest("late", offer(9)).await;
    let mut proposal = house.hold(&request(3)).await.0;
    for round in 4.. {
        if proposal.unmet.is_empty() {
            break;
        }
        // It was asked before that page was read.
        proposal = house.hold(&request(round)).await.0;
    }
    assert_eq!((winners(&proposal), proposal.declined.len()), (vec!["late"], 0));
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_enrolled_and_was_not_heard_of_is_called_by_its_name() {
    let roll = [("trusted", enrolled("default", AgentTrust::Trusted)), ("quiet", enrolled("default", AgentTrust::Untrusted))];
    let mut house = House::open(Guard::On, &roll).await;
    house.show("trusted", &[]).await;
    let mut calls = house.bus.subscribe(Subject::call(&agent("quiet"))).await.unwrap();
    let mut class = house.bus.subscribe(Subject::auction("default")).await.unwrap();
    let asked = request(1);
    house.ask(&asked, "quiet").await;
    let call: Announcement = timeout(DEADLINE, calls.next()).await.unwrap().unwrap().read().unwrap();
    assert_eq!(call.request, asked);
    house.bid("quiet", &asked, &offer(3)).await;
    assert_eq!(winners(&house.answer().await), ["quiet"]);
    assert!(class.try_next().is_none(), "who must not have it would keep a slot for it");
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_stage_of_a_class_is_offered_to_that_class() {
    let roll = [("small", enrolled("default", AgentTrust::Any)), ("large", enrolled("big", AgentTrust::Any))];
    let mut house = House::open(Guard::On, &roll).await;
    let mut big = house.bus.subscribe(Subject::auction("big")).await.unwrap();
    let classed = AuctionRequest { requires: [("class".to_owned(), Value::from("big"))].into(), ..request(1) };
    house.bus.publish(&Subject::for_auction(), &classed).await.unwrap();
    let heard: Announcement = timeout(DEADLINE, big.next()).await.unwrap().unwrap().read().unwrap();
    assert_eq!(heard.request, classed);
    house.bid("small", &classed, &offer(0)).await;
    house.bid("large", &classed, &offer(5)).await;
    assert_eq!(winners(&house.answer().await), ["large"]);
    let nowhere = AuctionRequest { requires: [("class".to_owned(), Value::from("huge"))].into(), ..request(2) };
    let unmet = house.hold(&nowhere).await.0.unmet;
    assert!(unmet[0].starts_with("no agent of class `huge` is enrolled"), "{unmet:?}");
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn many_that_were_not_asked_end_an_auction_before_those_who_were_have_answered_only_without_the_guard() {
    for guard in GUARDS {
        let mut house = House::open(guard, &[("honest", enrolled("default", AgentTrust::Untrusted))]).await;
        house.show("honest", &[]).await;
        let asked = request(1);
        house.ask(&asked, "honest").await;
        let many = Bid::Decline { reason: "of many".to_owned() };
        for number in 0..FLOOD {
            house.bid(&format!("rogue-{number}"), &asked, &many).await;
        }
        // It was asked, and its answer is behind theirs.
        house.bid("honest", &asked, &offer(7)).await;
        let proposal = house.answer().await;
        assert_eq!(winners(&proposal), if guard == Guard::Off { vec![] } else { vec!["honest"] }, "{guard:?}");
        house.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_agent_bids_once_in_an_auction_and_in_none_that_is_not_open() {
    let mut house =
        House::open(Guard::On, &[("honest", enrolled("default", AgentTrust::Any)), ("rogue", enrolled("default", AgentTrust::Any))]).await;
    house.show("rogue", &[]).await;
    house.show("honest", &[]).await;
    // Which ids there will be is no secret.
    for round in 1..50 {
        house.bid("rogue", &request(round), &offer(0)).await;
    }
    let asked = request(1);
    house.ask(&asked, "honest").await;
    house.bid("rogue", &asked, &offer(9)).await;
    for _ in 0..FLOOD {
        house.bid("rogue", &asked, &offer(0)).await;
    }
    house.bid("honest", &asked, &offer(7)).await;
    assert_eq!(winners(&house.answer().await), ["honest", "rogue"], "its first bid counts");
    house.bid("rogue", &asked, &offer(0)).await;
    let (proposal, took) = house.hold(&request(60)).await;
    assert_eq!((winners(&proposal), took), (vec![], LONGEST_WAIT), "it did not answer this one");
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_offer_of_what_the_agent_does_not_have_counts_only_while_it_says_nothing_of_itself() {
    for guard in GUARDS {
        let mut house = House::open(Guard::Off, &[]).await;
        house.bus.publish(&Subject::status(&agent("liar")), &"nothing").await.unwrap();
        if guard == Guard::On {
            house.show("liar", &[("cores", Value::Integer(2))]).await;
        }
        let asked = AuctionRequest { requires: [("gpu".to_owned(), Value::Boolean(true))].into(), ..request(1) };
        house.ask(&asked, "liar").await;
        house.bid("liar", &asked, &offer(0)).await;
        let proposal = house.answer().await;
        assert_eq!(winners(&proposal), if guard == Guard::Off { vec!["liar"] } else { vec![] }, "{guard:?}");
        if guard == Guard::On {
            assert_eq!(proposal.declined[0].reason, "its offer is not what it says of itself: wants gpu, this agent has none");
        }
        house.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn offers_that_no_machine_could_make_do_not_count() {
    let numbers = |price: &str, start: &str, more: &str| {
        format!(r#"{{"kind":"offer","price_micros_per_s":{price},"start_ms":{start},"reservation":{{"kind":"slot"}}{more}}}"#)
    };
    let handover = r#"{"kind":"offer","price_micros_per_s":0,"start_ms":0,"reservation":{"kind":"handover"}}"#.to_owned();
    let absurd = [
        numbers("0", "18446744073709551615", ""),
        numbers("0", "0", r#","load_permille":1001"#),
        numbers("0", "0", r#","has":1"#),
        handover,
        numbers("-1", "0", ""),
        numbers("0", "-1", ""),
        numbers("NaN", "0", ""),
        numbers("0.5", "0", ""),
        numbers("1e400", "0", ""),
        numbers("0", "null", ""),
        numbers("0", "0", &format!(r#","note":"{}""#, "x".repeat(8 * 1024))),
        "[".repeat(4_000),
        String::new(),
    ];
    let mut house = House::open(Guard::Off, &[]).await;
    house.show("liar", &[]).await;
    house.show("honest", &[]).await;
    for (round, lie) in (1..).zip(absurd) {
        let asked = request(round);
        house.ask(&asked, "honest").await;
        house.bus.publish_bytes(&Subject::bid(&agent("liar"), &asked.auction), lie.clone().into()).await.unwrap();
        house.bid("honest", &asked, &offer(1_000_000)).await;
        assert_eq!(winners(&house.answer().await), ["honest"], "{lie}");
        house.show("liar", &[]).await;
    }
    house.close().await;
}
