//! Tables and properties of the book.

use model::{
    AttemptId, RunId, StageId, TriggerId,
    plan::Value,
    protocol::auction::{Offer, RankedOffer, Reservation},
};
use proptest::prelude::*;

use super::*;
use crate::core::{
    rank,
    roster::{FORGET_AFTER, WAIT_MAX, WAIT_MIN},
};

const SILENT: &str = "not asked: it did not answer the last time, and has said nothing since";
const MS: Duration = Duration::from_millis(1);

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn now(elapsed: Duration) -> Now {
    Now { elapsed, at: Timestamp(1_000_000) + elapsed }
}

/// The `round`th auction of the attempt of one stage.
fn request(round: u32, except: &[&str]) -> AuctionRequest {
    let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
    let except = except.iter().map(|name| agent(name)).collect();
    let auction = AuctionId::of(&attempt, round);
    AuctionRequest { except, ..AuctionRequest::new(auction, attempt) }
}

fn offer(price_micros_per_s: u64, reservation: Reservation) -> Bid {
    Bid::Offer(Offer::new(price_micros_per_s, 0, reservation))
}

fn decline(reason: &str) -> Bid {
    Bid::Decline { reason: reason.to_owned() }
}

/// A book, and a clock that the test moves.
#[derive(Default)]
struct Bench {
    book: Book,
    elapsed: Duration,
    /// Whom the last auction asked; `None` is all.
    asked: Option<BTreeSet<AgentName>>,
}

impl Bench {
    fn with(agents: &[&str]) -> Self {
        let mut bench = Self::default();
        for name in agents {
            bench.heard(name);
        }
        bench
    }

    fn heard(&mut self, name: &str) {
        assert_eq!(self.book.take(Input::Heard(agent(name)), now(self.elapsed)), vec![]);
    }

    fn request(&mut self, request: &AuctionRequest) {
        let effects = self.book.take(Input::Requested(request.clone()), now(self.elapsed));
        let [Effect::Announce { announcement, to }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(announcement.request, *request);
        self.asked = match to {
            Audience::Class => None,
            Audience::Agents(agents) => Some(agents.clone()),
        };
    }

    fn bid(&mut self, name: &str, request: &AuctionRequest, bid: Bid) -> Option<Proposal> {
        let input = Input::Bid { agent: agent(name), auction: request.auction.clone(), bid };
        proposal(self.book.take(input, now(self.elapsed)))
    }

    /// Lets time pass until something is proposed, and tells how long that took.
    fn wait(&mut self) -> (Duration, Vec<Proposal>) {
        let deadline = self.book.deadline().expect("an auction is open");
        let waited = deadline.saturating_sub(self.elapsed);
        self.elapsed = deadline;
        let effects = self.book.take(Input::TimePassed, now(deadline));
        (waited, effects.into_iter().filter_map(|effect| proposal(vec![effect])).collect())
    }
}

fn proposal(effects: Vec<Effect>) -> Option<Proposal> {
    match <[Effect; 1]>::try_from(effects) {
        Ok([Effect::Propose(proposal)]) => Some(proposal),
        Ok([effect]) => panic!("{effect:?} is no proposal"),
        Err(effects) => {
            assert_eq!(effects, vec![]);
            None
        }
    }
}

fn winners(proposal: &Proposal) -> Vec<&str> {
    proposal.offers.iter().map(|ranked| ranked.agent.as_str()).collect()
}

fn reasons(proposal: &Proposal) -> Vec<(&str, &str)> {
    proposal.declined.iter().map(|declined| (declined.agent.as_str(), declined.reason.as_str())).collect()
}

#[test]
fn an_auction_closes_with_the_last_answer() {
    let mut bench = Bench::with(&["a", "b", "c"]);
    let request = request(1, &[]);
    bench.request(&request);
    assert_eq!(bench.bid("b", &request, offer(2, Reservation::Slot)), None);
    assert_eq!(bench.bid("a", &request, offer(3, Reservation::Slot)), None);
    let proposal = bench.bid("c", &request, decline("no slot is free")).unwrap();
    assert_eq!(winners(&proposal), ["b", "a"]);
    assert_eq!(reasons(&proposal), [("c", "no slot is free")]);
    assert_eq!((&proposal.auction, &proposal.attempt), (&request.auction, &request.attempt));
    assert_eq!(bench.book.deadline(), None);
}

#[test]
fn that_nobody_can_is_said_as_soon_as_all_have_said_so() {
    let mut bench = Bench::with(&["a", "b"]);
    let request = request(1, &[]);
    bench.request(&request);
    assert_eq!(bench.bid("a", &request, decline("no slot is free")), None);
    let proposal = bench.bid("b", &request, decline("`arch` is x86_64")).unwrap();
    assert_eq!(winners(&proposal), [""; 0]);
    assert_eq!(reasons(&proposal), [("a", "no slot is free"), ("b", "`arch` is x86_64")]);
}

#[test]
fn a_silent_agent_delays_one_auction_and_no_second() {
    let mut bench = Bench::with(&["a", "b", "dead"]);
    let first = request(1, &[]);
    bench.request(&first);
    bench.elapsed += MS / 2;
    assert_eq!(bench.bid("a", &first, offer(1, Reservation::Slot)), None);
    assert_eq!(bench.bid("b", &first, decline("busy")), None);
    let (waited, proposals) = bench.wait();
    assert_eq!(waited, WAIT_MIN);
    assert_eq!(winners(&proposals[0]), ["a"]);
    assert_eq!(reasons(&proposals[0]), [("b", "busy"), ("dead", "did not answer in time")]);

    let second = request(2, &[]);
    bench.request(&second);
    assert_eq!(bench.bid("b", &second, decline("busy")), None);
    let proposal = bench.bid("a", &second, offer(1, Reservation::Slot)).unwrap();
    assert_eq!(reasons(&proposal), [("b", "busy"), ("dead", SILENT)]);

    bench.heard("dead");
    let third = request(3, &[]);
    bench.request(&third);
    assert_eq!(bench.bid("b", &third, decline("busy")), None);
    assert_eq!(bench.bid("a", &third, offer(1, Reservation::Slot)), None, "who speaks is expected again");
}

#[test]
fn who_was_not_asked_is_not_waited_for_when_all_others_decline() {
    let mut bench = Bench::with(&["a", "b", "dead"]);
    let first = request(1, &[]);
    bench.request(&first);
    for name in ["a", "b"] {
        assert_eq!(bench.bid(name, &first, decline("busy")), None);
    }
    assert_eq!(bench.wait().0, LONGEST_WAIT, "it may answer yet");

    let second = request(2, &[]);
    bench.request(&second);
    assert_eq!(bench.asked, Some([agent("a"), agent("b")].into()));
    assert_eq!(bench.bid("a", &second, decline("busy")), None);
    let proposal = bench.bid("b", &second, decline("busy")).expect("nobody else was asked");
    assert_eq!(reasons(&proposal), [("a", "busy"), ("b", "busy"), ("dead", SILENT)]);
    assert_eq!(bench.book.deadline(), None);
}

#[test]
fn who_is_silent_is_asked_and_waited_for_where_all_others_lack_something() {
    let mut bench = Bench::with(&["silent"]);
    let wants = BTreeMap::from([("docker_run".to_owned(), Value::Boolean(true))]);
    let of = |round| AuctionRequest { requires: wants.clone(), ..request(round, &[]) };
    bench.request(&of(1));
    assert_eq!(bench.wait().0, LONGEST_WAIT);
    let status = AgentStatus {
        agent: agent("plain"),
        slots: 1,
        slots_free: 1,
        price_micros_per_s: 0,
        facts: BTreeMap::new(),
        leases: vec![],
        number: 1,
    };
    bench.book.take(Input::Showed { agent: agent("plain"), status: Box::new(status) }, now(bench.elapsed));
    bench.request(&of(2));
    assert_eq!(bench.asked, Some([agent("plain"), agent("silent")].into()));
    assert_eq!(bench.bid("plain", &of(2), decline("no docker")), None);
    let proposal = bench.bid("silent", &of(2), offer(1, Reservation::Slot)).unwrap();
    assert_eq!(winners(&proposal), ["silent"]);
}

#[test]
fn one_of_ten_that_is_silent_is_not_asked_again_until_it_speaks() {
    let names: Vec<String> = (0..10).map(|number| format!("a{number}")).collect();
    let mut bench = Bench::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut calls_of_the_silent = 0;
    for round in 0..100 {
        let request = request(round, &[]);
        bench.request(&request);
        let asks = |name: &str, bench: &Bench| bench.asked.as_ref().is_none_or(|asked| asked.contains(&agent(name)));
        calls_of_the_silent += u32::from(asks("a0", &bench));
        let closed = names.iter().skip(1).filter_map(|name| bench.bid(name, &request, offer(1, Reservation::Slot))).count();
        if round == 0 {
            assert_eq!((closed, bench.wait().1.len()), (0, 1), "the first auction waits for it");
        } else {
            assert_eq!(closed, 1, "no other auction does");
        }
    }
    assert_eq!(calls_of_the_silent, 1);
    bench.heard("a0");
    bench.request(&request(100, &[]));
    assert_eq!(bench.asked, None, "all are asked again");
}

#[test]
fn a_silent_agent_is_waited_for_where_nobody_else_can() {
    let mut bench = Bench::with(&["a", "slow"]);
    let first = request(1, &[]);
    bench.request(&first);
    assert_eq!(bench.bid("a", &first, decline("busy")), None);
    assert_eq!(bench.wait().0, LONGEST_WAIT);

    let second = request(2, &["a"]);
    bench.request(&second);
    let proposal = bench.bid("slow", &second, offer(1, Reservation::Slot)).unwrap();
    assert_eq!(winners(&proposal), ["slow"]);
}

#[test]
fn where_nobody_is_known_the_first_offer_waits_for_better_ones() {
    let mut bench = Bench::default();
    let request = request(1, &[]);
    bench.request(&request);
    bench.elapsed += 4 * MS;
    assert_eq!(bench.bid("a", &request, offer(9, Reservation::Slot)), None);
    bench.elapsed += MS;
    assert_eq!(bench.bid("b", &request, offer(1, Reservation::Slot)), None);
    let (waited, proposals) = bench.wait();
    assert_eq!(waited, 11 * MS, "three answer times from the first offer");
    assert_eq!(winners(&proposals[0]), ["b", "a"]);
}

#[test]
fn nobody_at_all_and_mere_quotes_take_the_longest_wait() {
    let mut bench = Bench::default();
    bench.request(&request(1, &[]));
    let (waited, proposals) = bench.wait();
    assert_eq!((waited, winners(&proposals[0]), reasons(&proposals[0])), (LONGEST_WAIT, vec![], vec![]));

    let ahead = request(2, &[]);
    bench.request(&ahead);
    assert_eq!(bench.bid("a", &ahead, offer(1, Reservation::Quote)), None);
    assert_eq!(bench.wait().0, LONGEST_WAIT);
}

#[test]
fn a_slow_fleet_is_waited_for_no_longer_than_the_bound() {
    let mut bench = Bench::with(&["near", "far"]);
    let request = request(1, &[]);
    bench.request(&request);
    bench.elapsed += 100 * MS;
    assert_eq!(bench.bid("far", &request, offer(1, Reservation::Slot)), None);
    assert_eq!(bench.wait().0, WAIT_MAX);
}

#[test]
fn the_first_bid_of_an_agent_counts() {
    let mut bench = Bench::with(&["a", "b"]);
    let request = request(1, &[]);
    bench.request(&request);
    assert_eq!(bench.bid("a", &request, offer(5, Reservation::Slot)), None);
    assert_eq!(bench.bid("a", &request, offer(1, Reservation::Slot)), None);
    let proposal = bench.bid("b", &request, offer(3, Reservation::Slot)).unwrap();
    assert_eq!(winners(&proposal), ["b", "a"]);
}

#[test]
fn who_is_excepted_is_neither_waited_for_nor_proposed() {
    let mut bench = Bench::with(&["a", "b"]);
    let request = request(1, &["a"]);
    bench.request(&request);
    assert_eq!(bench.bid("a", &request, offer(0, Reservation::Slot)), None);
    let proposal = bench.bid("b", &request, offer(3, Reservation::Slot)).unwrap();
    assert_eq!(winners(&proposal), ["b"]);
    assert_eq!(reasons(&proposal), [("a", "not asked: it turned this attempt down, or lost it")]);
}

#[test]
fn a_liar_that_offers_everything_for_nothing_and_never_delivers_wins_again_only_where_nobody_is_excepted() {
    for (guard, except, winner) in [(false, &[][..], "liar"), (true, &["liar"][..], "honest")] {
        let mut bench = Bench::with(&["honest", "liar"]);
        // The first round went to the liar, and it did not take the award up.
        let request = request(2, except);
        bench.request(&request);
        let lie = offer(0, Reservation::Slot);
        let proposals = [bench.bid("liar", &request, lie), bench.bid("honest", &request, offer(3, Reservation::Slot))];
        let proposal = proposals.into_iter().flatten().next().unwrap();
        assert_eq!(winners(&proposal)[0], winner, "with the guard: {guard}");
    }
}

#[test]
fn an_offer_that_no_machine_could_make_wins_only_where_nobody_looks_at_it() {
    let lies = [
        Offer::new(0, 0, Reservation::Handover),
        Offer { has: u64::MAX, ..Offer::new(0, 0, Reservation::Slot) },
        Offer { load_permille: u64::MAX, ..Offer::new(0, 0, Reservation::Slot) },
    ];
    let honest = Offer::new(3, 0, Reservation::Slot);
    for (round, lie) in (1..).zip(lies) {
        let request = request(round, &[]);
        let ranked = |name: &str, offer: &Offer| RankedOffer { agent: agent(name), offer: offer.clone() };
        let without = rank(vec![ranked("liar", &lie), ranked("honest", &honest)], &request, &Times::default());
        assert_eq!(without[0].agent, agent("liar"), "without the guard: {lie:?}");

        let mut bench = Bench::with(&["honest", "liar"]);
        bench.request(&request);
        assert_eq!(bench.bid("liar", &request, Bid::Offer(lie.clone())), None);
        let proposal = bench.bid("honest", &request, Bid::Offer(honest.clone())).unwrap();
        assert_eq!(winners(&proposal), ["honest"], "with it: {lie:?}");
        assert_eq!(proposal.declined[0].agent, agent("liar"));
    }
}

#[test]
fn a_request_that_comes_again_has_the_same_answer_while_its_offers_stand() {
    let mut bench = Bench::with(&["a"]);
    let request = request(1, &[]);
    bench.request(&request);
    assert_eq!(bench.book.take(Input::Requested(request.clone()), now(bench.elapsed)), vec![], "it is being answered");
    let first = bench.bid("a", &request, offer(1, Reservation::Slot)).unwrap();
    let nearly = FRESH.saturating_sub(MS);
    bench.elapsed += nearly;
    assert_eq!(bench.book.take(Input::Requested(request.clone()), now(bench.elapsed)), vec![Effect::Propose(first)]);
    bench.elapsed += MS;
    bench.request(&request);
}

#[test]
fn an_answer_without_offers_is_not_given_twice() {
    let mut bench = Bench::with(&["a"]);
    let request = request(1, &[]);
    bench.request(&request);
    assert!(bench.bid("a", &request, decline("busy")).is_some());
    bench.request(&request);
}

#[test]
fn the_same_auction_asked_otherwise_is_a_new_one() {
    let mut bench = Bench::with(&["a", "b"]);
    let open = request(1, &[]);
    bench.request(&open);
    assert_eq!(bench.bid("a", &open, offer(1, Reservation::Slot)), None);
    let restarted = request(1, &["a"]);
    bench.request(&restarted);
    let proposal = bench.bid("b", &restarted, offer(9, Reservation::Slot)).unwrap();
    assert_eq!(winners(&proposal), ["b"]);
    bench.request(&request(1, &["b"]));
    assert_eq!(bench.book.open.len(), bench.book.deadlines.len());
}

#[test]
fn late_answers_lengthen_the_wait_of_the_next_auction() {
    let mut bench = Bench::with(&["quick", "slow"]);
    for round in 1..20 {
        let request = request(round, &[]);
        bench.request(&request);
        bench.elapsed += MS / 10;
        assert_eq!(bench.bid("quick", &request, offer(9, Reservation::Slot)), None);
        bench.wait();
        bench.elapsed += 8 * MS;
        assert_eq!(bench.bid("slow", &request, offer(1, Reservation::Slot)), None);
    }
    let request = request(20, &[]);
    bench.request(&request);
    bench.elapsed += MS / 10;
    assert_eq!(bench.bid("quick", &request, offer(9, Reservation::Slot)), None);
    bench.elapsed += 8 * MS;
    let proposal = bench.bid("slow", &request, offer(1, Reservation::Slot)).expect("all have answered, in time");
    assert_eq!(winners(&proposal), ["slow", "quick"]);
}

#[test]
fn an_agent_that_is_not_heard_of_any_more_is_not_expected() {
    let mut bench = Bench::with(&["gone"]);
    bench.elapsed = FORGET_AFTER;
    bench.heard("a");
    let request = request(1, &[]);
    bench.request(&request);
    let proposal = bench.bid("a", &request, offer(1, Reservation::Slot)).unwrap();
    assert_eq!(reasons(&proposal), []);
}

#[test]
fn everything_is_bounded() {
    let mut bench = Bench::default();
    for round in 0..u32::try_from(OPEN_MAX).unwrap() {
        bench.request(&request(round, &[]));
    }
    let more = request(u32::MAX, &[]);
    let refused = bench.book.take(Input::Requested(more.clone()), now(bench.elapsed));
    assert_eq!(refused, vec![Effect::Refuse(more.auction.clone())]);
    assert_eq!(bench.wait().1.len(), OPEN_MAX);
    assert_eq!(bench.book.closed.len(), CLOSED_MAX);

    bench.request(&more);
    let bids = super::super::auction::BIDS_MAX;
    let mut closed = None;
    for number in 0..bids {
        assert_eq!(closed, None);
        closed = bench.bid(&format!("a{number}"), &more, decline(&"x".repeat(10_000)));
    }
    let declined = closed.expect("so many bids are enough").declined;
    assert_eq!(declined.len(), super::super::auction::DECLINED_MAX);
    assert!(declined.iter().all(|declined| declined.reason.len() == super::super::auction::REASON_CHARACTERS_MAX));
    assert_eq!((bench.book.closed.len(), bench.book.closed_order.len()), (CLOSED_MAX, CLOSED_MAX));
    assert_eq!(bench.book.open.len(), 0);
}

#[test]
fn where_no_agent_of_a_large_fleet_can_that_is_said_at_once_with_what_is_missing() {
    let mut bench = Bench::default();
    for number in 0..1_000 {
        let name = agent(&format!("a{number}"));
        let status = AgentStatus {
            agent: name.clone(),
            slots: 1,
            slots_free: 1,
            price_micros_per_s: 0,
            facts: BTreeMap::from([("cores".to_owned(), Value::Integer(4))]),
            leases: vec![],
            number: 1,
        };
        assert_eq!(bench.book.take(Input::Showed { agent: name, status: Box::new(status) }, now(bench.elapsed)), vec![]);
    }
    let wants = BTreeMap::from([("docker_run".to_owned(), Value::Boolean(true))]);
    let request = AuctionRequest { requires: wants, ..request(1, &[]) };
    let proposal = proposal(bench.book.take(Input::Requested(request), now(bench.elapsed))).expect("nobody is asked");
    assert_eq!(proposal.unmet, ["no agent has docker_run"]);
    assert_eq!(proposal.declined.len(), LACKING_MAX);
    assert_eq!(reasons(&proposal)[0], ("a0", "wants docker_run, this agent has none"));
}

#[test]
fn a_large_fleet_costs_no_more_calls_and_bids_than_a_small_one() {
    for count in [10, 100, 10_000] {
        let mut bench = Bench::default();
        let names: Vec<AgentName> = (0..count).map(|number| agent(&format!("a{number}"))).collect();
        for name in &names {
            bench.heard(name.as_str());
        }
        let (mut said, auctions) = (0, 50);
        for round in 0..auctions {
            let request = request(round, &[]);
            bench.request(&request);
            let asked: Vec<AgentName> = bench.asked.clone().map_or(names.clone(), |asked| asked.into_iter().collect());
            said += 2 * asked.len();
            let closed = asked.iter().filter_map(|name| bench.bid(name.as_str(), &request, offer(1, Reservation::Slot))).count();
            assert_eq!(closed, 1);
        }
        // Messages that are delivered: with ten agents, ten announcements and ten bids an auction.
        assert!(said * 10 <= 12 * 20 * auctions as usize, "{said} messages in {auctions} auctions of {count} agents");
    }
}

/// What may happen to a book, in small numbers so that things meet.
#[derive(Debug, Clone)]
enum Step {
    Request { round: u32, except: Vec<u8> },
    Bid { agent: u8, round: u32, bid: Bid },
    Heard(u8),
    Wait(u64),
}

fn a_bid() -> impl Strategy<Value = Bid> {
    let reservation = prop_oneof![Just(Reservation::Slot), Just(Reservation::Handover), Just(Reservation::Quote)];
    prop_oneof![
        3 => (0_u64..4, reservation).prop_map(|(price, reservation)| offer(price, reservation)),
        1 => Just(decline("busy")),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_u32..4, proptest::collection::vec(0_u8..5, 0..3)).prop_map(|(round, except)| Step::Request { round, except }),
        6 => (0_u8..5, 0_u32..4, a_bid()).prop_map(|(agent, round, bid)| Step::Bid { agent, round, bid }),
        1 => (0_u8..5).prop_map(Step::Heard),
        3 => (0_u64..300).prop_map(Step::Wait),
    ]
}

fn numbered(number: u8) -> AgentName {
    agent(&format!("agent-{number}"))
}

proptest! {
    #[test]
    fn whatever_happens_a_proposal_keeps_its_request_and_every_auction_closes(steps in proptest::collection::vec(a_step(), 0..120)) {
        let mut book = Book::default();
        let mut elapsed = Duration::ZERO;
        // What was announced and not proposed yet; and who has bid in which auction.
        let mut announced: BTreeMap<AuctionId, (Duration, AuctionRequest)> = BTreeMap::new();
        let mut spoke: BTreeSet<(AuctionId, AgentName)> = BTreeSet::new();
        let mut last: BTreeMap<AuctionId, AuctionRequest> = BTreeMap::new();
        let end = [Step::Wait(u64::try_from(LONGEST_WAIT.as_millis()).unwrap())];
        for step in steps.into_iter().chain(end) {
            let input = match step {
                Step::Request { round, except } => {
                    let mut request = request(round, &[]);
                    request.except = except.into_iter().map(numbered).collect();
                    last.insert(request.auction.clone(), request.clone());
                    Input::Requested(request)
                }
                Step::Bid { agent, round, bid } => {
                    let auction = request(round, &[]).auction;
                    spoke.insert((auction.clone(), numbered(agent)));
                    Input::Bid { agent: numbered(agent), auction, bid }
                }
                Step::Heard(agent) => Input::Heard(numbered(agent)),
                Step::Wait(ms) => {
                    elapsed += Duration::from_millis(ms);
                    Input::TimePassed
                }
            };
            for effect in book.take(input, now(elapsed)) {
                match effect {
                    Effect::Announce { announcement: Announcement { request }, .. } => {
                        spoke.retain(|(auction, _)| *auction != request.auction);
                        announced.insert(request.auction.clone(), (elapsed, request));
                    }
                    Effect::Propose(proposal) => {
                        announced.remove(&proposal.auction);
                        let request = &last[&proposal.auction];
                        prop_assert_eq!(&request.attempt, &proposal.attempt);
                        for ranked in &proposal.offers {
                            prop_assert!(!request.except.contains(&ranked.agent), "{} was excepted", ranked.agent);
                            prop_assert!(spoke.contains(&(proposal.auction.clone(), ranked.agent.clone())), "{} bid elsewhere", ranked.agent);
                        }
                    }
                    Effect::Refuse(_) => prop_assert!(false, "there is room"),
                }
            }
            for (opened, _) in announced.values() {
                prop_assert!(elapsed <= *opened + LONGEST_WAIT + Duration::from_millis(300), "an auction did not close");
            }
            prop_assert_eq!(book.deadline().is_some(), !announced.is_empty());
        }
        prop_assert!(announced.is_empty(), "an auction is left open");
    }

    #[test]
    fn the_order_of_bids_does_not_alter_the_proposal(bids in proptest::collection::btree_map(0_u8..6, a_bid(), 1..6), seed in any::<u64>()) {
        let request = request(1, &[]);
        let mut bids: Vec<(u8, Bid)> = bids.into_iter().collect();
        let mut proposals = Vec::new();
        for turn in 0..2 {
            let mut bench = Bench::default();
            for (agent, _) in &bids {
                bench.heard(numbered(*agent).as_str());
            }
            bench.request(&request);
            let mut closed = None;
            for (agent, bid) in &bids {
                prop_assert_eq!(&closed, &None);
                closed = bench.bid(numbered(*agent).as_str(), &request, bid.clone());
            }
            proposals.push(closed.expect("all have answered"));
            let length = bids.len() as u64;
            bids.rotate_left(usize::try_from(seed % length).unwrap());
            if turn == 0 && seed % 2 == 0 {
                bids.reverse();
            }
        }
        prop_assert_eq!(&proposals[0], &proposals[1]);
    }
}
