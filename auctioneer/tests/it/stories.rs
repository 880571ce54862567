//! Stories of auctions, with the time stepped by the runtime: it jumps to the next timer when nobody has anything to do.

use std::{collections::BTreeMap, time::Duration};

use auctioneer::{
    AuctioneerOptions,
    core::{book::LONGEST_WAIT, roster::WAIT_MAX},
};
use eventbus::{Bus, Subject, Subscription, memory};
use model::{
    AgentName, AttemptId, AuctionId, RunId, StageId, TriggerId,
    protocol::{
        agent::AgentStatus,
        auction::{Announcement, AuctionRequest, Bid, Offer, Proposal, Reservation},
    },
};
use service::{OnError, Supervisor, supervisor::Ended};
use tokio::time::{Instant, timeout};

/// Beyond it, what was waited for does not come. With the time stepped it costs nothing.
const DEADLINE: Duration = Duration::from_secs(59);

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn request(round: u32, except: &[&str]) -> AuctionRequest {
    let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
    let auction = AuctionId::of(&attempt, round);
    let except = except.iter().map(|name| agent(name)).collect();
    AuctionRequest { except, ..AuctionRequest::new(auction, attempt) }
}

fn offer(price_micros_per_s: u64) -> Bid {
    Bid::Offer(Offer::new(price_micros_per_s, 0, Reservation::Slot))
}

/// A bus with an auctioneer, and the orchestrator's end of it.
struct House {
    bus: Bus,
    supervisor: Supervisor,
    proposals: Subscription,
}

impl House {
    async fn open() -> Self {
        let (bus, supervisor) = (memory::bus(), Supervisor::new());
        let proposals = bus.subscribe(Subject::proposed()).await.unwrap();
        auctioneer::run(AuctioneerOptions { name: "test".to_owned(), asks_the_roll: false }, bus.clone(), &supervisor).await.unwrap();
        Self { bus, supervisor, proposals }
    }

    /// An agent is there, but only says so.
    async fn show(&self, name: &str) {
        let (slots, slots_free, price_micros_per_s, facts) = (1, 1, 0, BTreeMap::new());
        let status = AgentStatus { agent: agent(name), slots, slots_free, price_micros_per_s, facts, leases: vec![], number: 0 };
        self.bus.publish(&Subject::status(&agent(name)), &status).await.unwrap();
    }

    /// An agent that answers every announcement with the same bid.
    async fn agent(&self, name: &str, bid: Bid) {
        let mut announcements = self.bus.subscribe(Subject::auction("default")).await.unwrap();
        let mut calls = self.bus.subscribe(Subject::call(&agent(name))).await.unwrap();
        self.show(name).await;
        let (bus, token, name) = (self.bus.clone(), self.supervisor.token().clone(), agent(name));
        self.supervisor.spawn(format!("agent {name}"), OnError::Shutdown, async move {
            while let Some(message) = tokio::select! { message = announcements.next() => message, message = calls.next() => message, () = token.cancelled() => None } {
                let announcement: Announcement = message.read()?;
                bus.publish(&Subject::bid(&name, &announcement.request.auction), &bid).await?;
            }
            Ok(())
        });
    }

    async fn hold(&mut self, request: &AuctionRequest) -> (Proposal, Duration) {
        let asked = Instant::now();
        self.bus.publish(&Subject::for_auction(), request).await.unwrap();
        let message = timeout(DEADLINE, self.proposals.next()).await.expect("a proposal comes").expect("the bus is open");
        (message.read().unwrap(), asked.elapsed())
    }

    async fn close(self) {
        assert_eq!(self.supervisor.shut_down().await, Ended::InOrder);
    }
}

fn winners(proposal: &Proposal) -> Vec<&str> {
    proposal.offers.iter().map(|ranked| ranked.agent.as_str()).collect()
}

fn reasons(proposal: &Proposal) -> Vec<(&str, &str)> {
    proposal.declined.iter().map(|declined| (declined.agent.as_str(), declined.reason.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_best_offer_is_proposed_as_soon_as_all_have_answered() {
    let mut house = House::open().await;
    house.agent("dear", offer(9)).await;
    house.agent("cheap", offer(1)).await;
    house.agent("full", Bid::Decline { reason: "no slot is free".to_owned() }).await;
    let (proposal, took) = house.hold(&request(1, &[])).await;
    assert_eq!(winners(&proposal), ["cheap", "dear"]);
    assert_eq!(reasons(&proposal), [("full", "no slot is free")]);
    assert_eq!(took, Duration::ZERO, "no timer was waited for");
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_delays_one_auction_a_little_and_the_next_not_at_all() {
    let mut house = House::open().await;
    house.agent("alive", offer(1)).await;
    house.show("stopped").await;
    let (proposal, took) = house.hold(&request(1, &[])).await;
    assert_eq!(winners(&proposal), ["alive"]);
    assert_eq!(reasons(&proposal), [("stopped", "did not answer in time")]);
    assert!(took <= WAIT_MAX, "{took:?}");
    for round in 2..5 {
        let (proposal, took) = house.hold(&request(round, &[])).await;
        assert_eq!((winners(&proposal), took), (vec!["alive"], Duration::ZERO));
    }
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_any_agent_the_answer_is_that_there_is_none() {
    let mut house = House::open().await;
    let (proposal, took) = house.hold(&request(1, &[])).await;
    assert_eq!((winners(&proposal), reasons(&proposal)), (vec![], vec![]));
    assert!(took >= LONGEST_WAIT && took <= LONGEST_WAIT + Duration::from_millis(2), "{took:?}");
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_unknown_wins_all_the_same() {
    let mut house = House::open().await;
    let mut announcements = house.bus.subscribe(Subject::auction("default")).await.unwrap();
    let asked = request(1, &[]);
    house.bus.publish(&Subject::for_auction(), &asked).await.unwrap();
    let announced: Announcement = announcements.next().await.unwrap().read().unwrap();
    assert_eq!(announced.request, asked);
    house.bus.publish(&Subject::bid(&agent("new"), &asked.auction), &offer(1)).await.unwrap();
    let proposal: Proposal = house.proposals.next().await.unwrap().read().unwrap();
    assert_eq!(winners(&proposal), ["new"]);
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_speaks_is_taken_from_the_subject_and_nonsense_is_left() {
    let mut house = House::open().await;
    house.agent("good", offer(5)).await;
    let other = request(7, &[]);
    let bid = |name: &str, request: &AuctionRequest| Subject::bid(&agent(name), &request.auction);
    house.bus.publish(&Subject::for_auction(), &"no request").await.unwrap();
    house.bus.publish(&bid("liar", &request(1, &[])), &"no bid").await.unwrap();
    house.bus.publish(&bid("liar", &other), &offer(0)).await.unwrap();
    let (proposal, _) = house.hold(&request(1, &["excepted"])).await;
    assert_eq!(winners(&proposal), ["good"]);
    house.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_auctioneers_one_holds_the_auction() {
    let mut house = House::open().await;
    auctioneer::run(AuctioneerOptions { name: "second".to_owned(), asks_the_roll: false }, house.bus.clone(), &house.supervisor)
        .await
        .unwrap();
    house.agent("a", offer(1)).await;
    for round in 1..5 {
        let (proposal, took) = house.hold(&request(round, &[])).await;
        assert_eq!((winners(&proposal), took), (vec!["a"], Duration::ZERO));
        assert!(house.proposals.try_next().is_none(), "one proposal for one request");
    }
    house.close().await;
}
