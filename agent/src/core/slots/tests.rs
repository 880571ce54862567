//! The slots, by example and in any order.

use model::{RunId, StageId, TriggerId, plan::Value};
use proptest::{collection::vec, prelude::*};

use super::*;

const VALID: u64 = OFFER_VALID_MS;

fn slots(count: u32) -> Slots {
    let agent = "a1".parse().unwrap();
    let facts = Facts::from([("cores".to_owned(), Value::Integer(2))]);
    Slots::new(Terms { agent, slots: count, price_micros_per_s: 7, facts }, 0)
}

fn attempt(stage: &str) -> AttemptId {
    AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of(stage), attempt: 1 }
}

fn lease(stage: &str, fence: u64) -> Lease {
    Lease { attempt: attempt(stage), fence }
}

fn request(stage: &str, after: &[&str], round: u32) -> AuctionRequest {
    AuctionRequest {
        after: after.iter().map(|stage| attempt(stage)).collect(),
        ..AuctionRequest::new(AuctionId::of(&attempt(stage), round), attempt(stage))
    }
}

fn reservation(bid: &Bid) -> Option<&Reservation> {
    match bid {
        Bid::Offer(offer) => Some(&offer.reservation),
        Bid::Decline { .. } => None,
    }
}

fn reason(bid: Bid) -> String {
    match bid {
        Bid::Offer(offer) => panic!("{offer:?}"),
        Bid::Decline { reason } => reason,
    }
}

fn started(slots: &mut Slots, stage: &str, fence: u64, now: u64) -> bool {
    matches!(slots.accept(&lease(stage, fence), Effect::Safe, now), Verdict::Start { .. })
}

/// Offers for, and starts, a stage that comes after none.
fn start(slots: &mut Slots, stage: &str, fence: u64, now: u64) {
    assert_eq!(reservation(&slots.offer(&request(stage, &[], 0), now)), Some(&Reservation::Slot));
    assert!(started(slots, stage, fence, now));
}

#[test]
fn an_offer_reserves_a_slot_for_its_time() {
    let mut slots = slots(1);
    assert_eq!(reservation(&slots.offer(&request("a", &[], 0), 0)), Some(&Reservation::Slot));
    assert_eq!(reason(slots.offer(&request("b", &[], 0), VALID - 1)), "all 1 slots are busy");
    assert_eq!(reservation(&slots.offer(&request("b", &[], 0), VALID)), Some(&Reservation::Slot));
    assert!(!started(&mut slots, "a", 1, VALID), "its time is over");
    assert!(started(&mut slots, "b", 2, 2 * VALID - 1));
}

#[test]
fn one_slot_that_two_auctioneers_auction_at_once_is_sold_once() {
    for first in ["a", "b"] {
        let (mut slots, second) = (slots(1), if first == "a" { "b" } else { "a" });
        assert_eq!(reservation(&slots.offer(&request(first, &[], 0), 0)), Some(&Reservation::Slot));
        assert_eq!(reason(slots.offer(&request(second, &[], 0), 0)), "all 1 slots are busy");
        // Both are awarded: the other auctioneer had an older offer, or none.
        assert!(!started(&mut slots, second, 1, 1));
        assert!(started(&mut slots, first, 2, 1));
        assert_eq!(slots.running.len(), 1);
    }
    // The same attempt, auctioned twice: the award that was made last has it.
    let mut slots = slots(1);
    assert_eq!(reservation(&slots.offer(&request("a", &[], 0), 0)), Some(&Reservation::Slot));
    assert_eq!(reservation(&slots.offer(&request("a", &[], 1), 0)), Some(&Reservation::Slot));
    assert!(started(&mut slots, "a", 1, 1));
    assert!(!started(&mut slots, "a", 2, 1), "its offer was taken");
    assert_eq!(slots.running.len(), 1);
}

#[test]
fn what_others_have_of_an_agent_is_its_load() {
    let mut slots = slots(4);
    let load = |bid: Bid| match bid {
        Bid::Offer(offer) => offer.load_permille,
        Bid::Decline { reason } => panic!("{reason}"),
    };
    assert_eq!(load(slots.offer(&request("a", &[], 0), 0)), 0);
    assert!(started(&mut slots, "a", 1, 0));
    assert_eq!(load(slots.offer(&request("b", &[], 0), 0)), 250);
    assert_eq!(load(slots.offer(&request("c", &["a"], 0), 0)), 250, "it takes the slot of `a` over, and `b` has another");
}

#[test]
fn the_same_auction_asked_again_gets_no_more_time() {
    let mut slots = slots(1);
    slots.offer(&request("a", &[], 0), 0);
    assert_eq!(reservation(&slots.offer(&request("a", &[], 0), VALID - 1)), Some(&Reservation::Slot));
    assert_eq!(slots.free(), 0);
    assert!(!started(&mut slots, "a", 1, VALID));
}

#[test]
fn an_assignment_without_an_offer_starts_nothing_now_or_later() {
    let mut slots = slots(1);
    assert!(!started(&mut slots, "a", 5, 0));
    slots.offer(&request("a", &[], 1), 0);
    assert!(!started(&mut slots, "a", 5, 0), "what was declined stays declined under its fence");
    assert!(!started(&mut slots, "a", 4, 0), "and so under an older one");
    slots.offer(&request("a", &[], 2), 0);
    assert!(started(&mut slots, "a", 6, 0));
}

#[test]
fn a_copy_of_an_assignment_starts_nothing() {
    let mut slots = slots(2);
    start(&mut slots, "a", 3, 0);
    assert_eq!(slots.accept(&lease("a", 3), Effect::Safe, 1), Verdict::Again);
    slots.finished(&lease("a", 3), 2);
    assert_eq!(slots.accept(&lease("a", 3), Effect::Safe, 3), Verdict::Again);
    assert_eq!(slots.accept(&lease("a", 2), Effect::Safe, 3), Verdict::Outdated);
    assert_eq!(slots.free(), 2);
}

#[test]
fn a_newer_fence_ends_the_older() {
    let mut slots = slots(2);
    start(&mut slots, "a", 3, 0);
    assert_eq!(reason(slots.offer(&request("a", &[], 1), 0)), "this attempt runs here already");
    let Verdict::Decline { superseded, .. } = slots.accept(&lease("a", 9), Effect::Safe, 1) else { panic!("no offer was made") };
    assert_eq!(superseded, Some(lease("a", 3)));
    slots.finished(&lease("a", 3), 2);
    assert_eq!(slots.free(), 2);
}

#[test]
fn a_handover_keeps_the_slot_of_the_one_before_for_the_first_award() {
    let mut slots = slots(1);
    start(&mut slots, "a", 1, 0);
    for stage in ["b", "c"] {
        assert_eq!(reservation(&slots.offer(&request(stage, &["a"], 0), 10)), Some(&Reservation::Handover));
    }
    slots.finished(&lease("a", 1), 60_000);
    assert_eq!(reason(slots.offer(&request("x", &[], 0), 60_000)), "all 1 slots are busy");
    assert!(started(&mut slots, "b", 2, 60_000 + VALID - 1));
    assert!(!started(&mut slots, "c", 2, 60_000 + VALID - 1));
}

#[test]
fn a_kept_slot_is_given_free_in_time() {
    let mut slots = slots(1);
    start(&mut slots, "a", 1, 0);
    slots.offer(&request("b", &["a"], 0), 10);
    slots.finished(&lease("a", 1), 1_000);
    assert_eq!(slots.free(), 0);
    assert_eq!(reservation(&slots.offer(&request("x", &[], 0), 1_000 + VALID)), Some(&Reservation::Slot));
}

#[test]
fn who_asks_just_after_the_end_gets_a_handover_too() {
    let mut slots = slots(1);
    start(&mut slots, "a", 1, 0);
    slots.finished(&lease("a", 1), 5);
    assert_eq!(reservation(&slots.offer(&request("b", &["a"], 0), 6)), Some(&Reservation::Handover));
    assert_eq!(slots.free(), 0);
    assert!(started(&mut slots, "b", 2, 7));
}

#[test]
fn a_quote_keeps_nothing() {
    let mut slots = slots(1);
    assert_eq!(reservation(&slots.offer(&request("b", &["elsewhere"], 0), 0)), Some(&Reservation::Quote));
    start(&mut slots, "x", 1, 0);
    assert!(!started(&mut slots, "b", 2, 1));
}

#[test]
fn an_award_long_after_the_quote_is_for_safe_stages_of_an_agent_that_was_awake() {
    for (effect, beats, starts) in [(Effect::Safe, true, true), (Effect::Once, true, false), (Effect::Safe, false, false)] {
        let mut slots = slots(1);
        slots.offer(&request("b", &["elsewhere"], 0), 0);
        assert!(slots.rest());
        if beats {
            for now in (0..60_000).step_by(500) {
                slots.wake(now);
                assert!(slots.rest());
            }
        }
        slots.wake(60_000);
        let verdict = slots.accept(&lease("b", 2), effect, 60_000);
        assert_eq!(matches!(verdict, Verdict::Start { .. }), starts, "{effect:?} {beats}");
    }
}

#[test]
fn an_old_announcement_does_not_make_an_old_award_look_young() {
    let mut slots = slots(1);
    slots.offer(&request("a", &[], 0), 0);
    slots.rest();
    slots.wake(10_000);
    for _ in 0..2 {
        assert_eq!(reason(slots.offer(&request("a", &[], 0), 10_000)), "this agent stood still for a while");
    }
    assert!(!started(&mut slots, "a", 1, 10_001));
}

#[test]
fn who_is_excepted_or_lacks_something_declines() {
    let mut slots = slots(1);
    slots.offer(&request("a", &[], 0), 0);
    let except = AuctionRequest { except: vec!["a1".parse().unwrap()], ..request("a", &[], 1) };
    assert_eq!(reason(slots.offer(&except, 0)), "it has declined or lost this attempt");
    assert!(!started(&mut slots, "a", 1, 0), "the offer before is taken back");
    let large = AuctionRequest { requires: BTreeMap::from([("cores".to_owned(), Value::Integer(8))]), ..request("b", &[], 0) };
    assert_eq!(reason(slots.offer(&large, 0)), "wants cores of at least 8, this agent has 2");
}

#[test]
fn what_was_cancelled_before_it_came_is_declined_when_it_comes() {
    let mut slots = slots(1);
    slots.offer(&request("a", &[], 0), 0);
    assert!(slots.cancel_unknown(&lease("a", 4)).is_some());
    assert!(!started(&mut slots, "a", 4, 1));
    assert_eq!(slots.free(), 1);
}

#[derive(Debug, Clone)]
enum Action {
    Offer { stage: u8, after: Vec<u8>, round: u32 },
    Accept { stage: u8, fence: u64, once: bool },
    Finish { nth: usize },
    Cancel { stage: u8, fence: u64 },
    Pass { ms: u64, asleep: bool },
}

fn action() -> impl Strategy<Value = Action> {
    let stage = 0..6u8;
    prop_oneof![
        4 => (stage.clone(), vec(stage.clone(), 0..3), 0..3u32).prop_map(|(stage, after, round)| Action::Offer { stage, after, round }),
        4 => (stage.clone(), 1..6u64, any::<bool>()).prop_map(|(stage, fence, once)| Action::Accept { stage, fence, once }),
        2 => (0..8usize).prop_map(|nth| Action::Finish { nth }),
        1 => (stage, 1..6u64).prop_map(|(stage, fence)| Action::Cancel { stage, fence }),
        3 => (prop_oneof![1..400u64, 1_000..8_000u64], any::<bool>()).prop_map(|(ms, asleep)| Action::Pass { ms, asleep }),
    ]
}

/// What the test knows of an attempt by itself.
#[derive(Default)]
struct Seen {
    started: BTreeSet<Lease>,
    running: Vec<Lease>,
    ended: BTreeMap<AttemptId, u64>,
    /// The time of the last answer with an offer, and what it was after.
    offered: BTreeMap<AttemptId, (u64, Vec<AttemptId>)>,
}

fn act(slots: &mut Slots, seen: &mut Seen, action: &Action, now: &mut u64) {
    let name = |stage: &u8| format!("s{stage}");
    match action {
        Action::Offer { stage, after, round } => {
            let after: Vec<String> = after.iter().filter(|before| *before != stage).map(name).collect();
            let request = request(&name(stage), &after.iter().map(String::as_str).collect::<Vec<_>>(), *round);
            if let Bid::Offer(_) = slots.offer(&request, *now) {
                seen.offered.insert(request.attempt, (*now, request.after));
            }
        }
        Action::Accept { stage, fence, once } => {
            let lease = lease(&name(stage), *fence);
            let effect = if *once { Effect::Once } else { Effect::Safe };
            let Verdict::Start { .. } = slots.accept(&lease, effect, *now) else { return };
            assert!(seen.started.iter().all(|before| before.attempt != lease.attempt || before.fence < lease.fence), "{lease:?} again");
            let (offered, after) = seen.offered.remove(&lease.attempt).expect("what starts was offered");
            let ended = after.iter().filter_map(|before| seen.ended.get(before)).max().copied().unwrap_or(0);
            if *once || after.is_empty() {
                assert!(*now < offered.max(ended) + VALID, "{lease:?} starts too late");
            }
            seen.started.insert(lease.clone());
            seen.running.push(lease);
        }
        Action::Finish { nth } if *nth < seen.running.len() => {
            let lease = seen.running.swap_remove(*nth);
            slots.finished(&lease, *now);
            seen.ended.insert(lease.attempt, *now);
        }
        Action::Finish { .. } => {}
        Action::Cancel { stage, fence } => {
            let lease = lease(&name(stage), *fence);
            if !seen.running.contains(&lease) {
                slots.cancel_unknown(&lease);
            }
        }
        Action::Pass { ms, asleep } => {
            let end = *now + ms;
            while !asleep && *now + 500 < end {
                *now += 500;
                slots.wake(*now);
                slots.rest();
            }
            *now = end;
            slots.wake(*now);
        }
    }
    slots.rest();
}

proptest! {
    #[test]
    fn slots_are_never_sold_twice_in_any_order(count in 1..4u32, actions in vec(action(), 1..120)) {
        let mut slots = slots(count);
        let mut seen = Seen::default();
        let mut now = 1;
        for action in &actions {
            act(&mut slots, &mut seen, action, &mut now);
            let taken = slots.reserved.len() + slots.running.len() + slots.kept.len();
            prop_assert!(taken <= count as usize, "{taken} of {count} slots after {action:?}");
            prop_assert_eq!(slots.running.len(), seen.running.len());
            prop_assert_eq!(slots.attempts.len(), slots.order.len());
        }
    }

    #[test]
    fn a_reserved_slot_is_there_for_its_award(actions in vec(action(), 0..60), wait in 0..VALID) {
        let mut slots = slots(2);
        let mut seen = Seen::default();
        let mut now = 1;
        for action in &actions {
            act(&mut slots, &mut seen, action, &mut now);
        }
        if let Bid::Offer(_) = slots.offer(&request("fresh", &[], 0), now) {
            for stage in ["x", "y", "z"] {
                slots.offer(&request(stage, &[], 0), now + wait);
                slots.accept(&lease(stage, 9), Effect::Safe, now + wait);
            }
            let verdict = slots.accept(&lease("fresh", 99), Effect::Once, now + wait);
            prop_assert_eq!(verdict, Verdict::Start { superseded: None });
        }
    }
}
