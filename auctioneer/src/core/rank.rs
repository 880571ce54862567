//! Which offer is the better one.
//!
//! All of it is arithmetic of whole numbers that stops at the largest one, so every two offers can be compared.

use model::{
    AgentName,
    protocol::auction::{AuctionRequest, Offer, RankedOffer, Reservation},
};

use super::times::Times;

/// How many bytes of what an attempt is given reach an agent in a millisecond: 50 MB/s, a gigabit's line of which others use a half.
pub const FETCH_BYTES_PER_MS: u64 = 50_000;
/// What each thing costs that an agent has to fetch, in milliseconds, however small it is: a request to the depot, and a write to the disk.
pub const FETCH_MS: u64 = 5;
/// How large something is taken to be whose size is not known: a source of ten megabytes.
pub const UNKNOWN_BYTES: u64 = 10_000_000;
/// How much longer an attempt is taken to run where all other slots of the agent are busy, in thousandths: cores are often shared, and
/// seldom all in use.
pub const LOAD_PERMILLE: u64 = 500;
/// What it costs that nothing is reserved, in milliseconds: some awards of a mere quote are declined, and the stage is auctioned again.
pub const QUOTE_MS: u64 = 20;

/// Puts the best offer first. The order is total, so it does not depend on that in which the offers came:
///
/// 1. what it costs: the price of a second × the time that the agent is expected to be busy with it ([`expected_ms`]);
/// 2. how soon it is expected to be over;
/// 3. what is reserved: a handover, which is kept until the attempt can start; a slot, which is kept for a while; a mere quote;
/// 4. the agent's name.
pub fn rank(mut offers: Vec<RankedOffer>, request: &AuctionRequest, times: &Times) -> Vec<RankedOffer> {
    offers.sort_by_cached_key(|ranked| key(ranked, request, times));
    offers
}

fn key(ranked: &RankedOffer, request: &AuctionRequest, times: &Times) -> (u128, u64, u8, AgentName) {
    let offer = &ranked.offer;
    let reservation = match offer.reservation {
        Reservation::Handover => 0,
        Reservation::Slot => 1,
        Reservation::Quote => 2,
    };
    let expected = expected_ms(ranked, request, times);
    (cost(offer.price_micros_per_s, expected), expected, reservation, ranked.agent.clone())
}

/// A price for so long, in thousand-millionths of the currency unit.
pub fn cost(price_micros_per_s: u64, expected_ms: u64) -> u128 {
    u128::from(price_micros_per_s).saturating_mul(u128::from(expected_ms))
}

/// How long the agent is expected to be busy with the attempt, in milliseconds: until it starts, while it fetches what it does not have,
/// and while it runs, which takes longer beside others.
pub fn expected_ms(ranked: &RankedOffer, request: &AuctionRequest, times: &Times) -> u64 {
    let offer = &ranked.offer;
    let runs = times.expected_ms(request.routine.as_ref(), &ranked.agent);
    let slower = runs.saturating_mul(LOAD_PERMILLE).saturating_mul(offer.load_permille.min(1_000)) / 1_000_000;
    let risk = if offer.reservation == Reservation::Quote { QUOTE_MS } else { 0 };
    [runs, slower, risk, fetch_ms(offer, request)].into_iter().fold(offer.start_ms, u64::saturating_add)
}

fn fetch_ms(offer: &Offer, request: &AuctionRequest) -> u64 {
    let lacks = (0..u64::BITS).zip(&request.wants).filter(|(bit, _)| offer.has & (1 << bit) == 0);
    let each = lacks.map(|(_, wanted)| FETCH_MS + wanted.bytes.unwrap_or(UNKNOWN_BYTES) / FETCH_BYTES_PER_MS);
    each.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use model::{
        AttemptId, AuctionId, Digest, RunId, StageId, TriggerId,
        protocol::auction::{Ran, Routine, Wanted},
    };
    use proptest::prelude::*;

    use super::*;

    fn offer(agent: &str, price_micros_per_s: u64, start_ms: u64, reservation: Reservation) -> RankedOffer {
        RankedOffer { agent: agent.parse().unwrap(), offer: Offer::new(price_micros_per_s, start_ms, reservation) }
    }

    fn routine() -> Routine {
        Routine { project: "demo".parse().unwrap(), pipeline: "Ottofile".to_owned(), stage: "build".to_owned() }
    }

    /// A stage that is given this many bytes of each thing.
    fn request(wants: &[Option<u64>]) -> AuctionRequest {
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
        let wants = wants.iter().map(|bytes| Wanted { digest: Digest::of(b""), bytes: *bytes }).collect();
        AuctionRequest { routine: Some(routine()), wants, ..AuctionRequest::new(AuctionId::of(&attempt, 1), attempt) }
    }

    fn learned(times: &[(&str, u64)]) -> Times {
        let mut learned = Times::default();
        for (agent, took_ms) in times {
            learned.learn(&Ran { routine: routine(), agent: agent.parse().unwrap(), took_ms: Some(*took_ms) });
        }
        learned
    }

    fn order(offers: Vec<RankedOffer>, request: &AuctionRequest, times: &Times) -> Vec<String> {
        rank(offers, request, times).into_iter().map(|ranked| ranked.agent.to_string()).collect()
    }

    fn check(offers: Vec<RankedOffer>, expect: &[&str]) {
        assert_eq!(order(offers, &request(&[]), &Times::default()), expect);
    }

    #[test]
    fn the_cheapest_wins_then_the_soonest_then_the_surest_then_the_first_by_name() {
        use Reservation::{Handover, Quote, Slot};
        check(vec![offer("dear", 2, 0, Slot), offer("cheap", 1, 0, Slot)], &["cheap", "dear"]);
        check(vec![offer("late", 0, QUOTE_MS + 9, Slot), offer("soon", 0, 0, Quote)], &["soon", "late"]);
        check(vec![offer("q", 0, 0, Quote), offer("s", 0, QUOTE_MS, Slot), offer("z", 0, QUOTE_MS, Handover)], &["z", "s", "q"]);
        check(vec![offer("b", 3, 1, Slot), offer("a", 3, 1, Slot)], &["a", "b"]);
        check(vec![], &[]);
    }

    #[test]
    fn a_low_price_does_not_pay_for_a_long_wait() {
        use Reservation::Slot;
        check(vec![offer("cheap-in-a-minute", 10, 60_000, Slot), offer("dear-now", 500, 0, Slot)], &["dear-now", "cheap-in-a-minute"]);
        check(vec![offer("most", u64::MAX, u64::MAX, Slot), offer("more", u64::MAX, 0, Slot)], &["more", "most"]);
    }

    #[test]
    fn the_time_that_it_took_before_weighs_the_price() {
        use Reservation::Slot;
        let times = learned(&[("quick", 1_000), ("slow", 9_000)]);
        let offers = |quick: u64, slow: u64| vec![offer("quick", quick, 0, Slot), offer("slow", slow, 0, Slot)];
        for (quick, slow, expect) in [(5, 1, ["quick", "slow"]), (10, 1, ["slow", "quick"]), (0, 0, ["quick", "slow"])] {
            assert_eq!(order(offers(quick, slow), &request(&[]), &times), expect, "{quick} {slow}");
        }
    }

    #[test]
    fn what_an_agent_has_already_it_need_not_fetch() {
        let expected = |has: u64, wants: &[Option<u64>]| {
            let mut offer = offer("a", 1, 0, Reservation::Slot);
            offer.offer.has = has;
            expected_ms(&offer, &request(wants), &learned(&[("a", 100)]))
        };
        for (has, wants, expect) in [
            (0, &[][..], 100),
            (0, &[Some(0)], 100 + FETCH_MS),
            (1, &[Some(1_000_000)], 100),
            (0, &[Some(1_000_000)], 100 + FETCH_MS + 20),
            (0, &[None], 100 + FETCH_MS + UNKNOWN_BYTES / FETCH_BYTES_PER_MS),
            (0b01, &[Some(50_000_000), Some(100_000)], 100 + FETCH_MS + 2),
            (0b10, &[Some(50_000_000), Some(100_000)], 100 + FETCH_MS + 1_000),
            (u64::MAX, &[Some(u64::MAX), None], 100),
        ] {
            assert_eq!(expected(has, wants), expect, "{has:b} of {wants:?}");
        }
    }

    #[test]
    fn beside_others_it_takes_longer() {
        for (load_permille, expect) in [(0, 1_000), (500, 1_250), (1_000, 1_500), (u64::MAX, 1_500)] {
            let mut offer = offer("a", 1, 0, Reservation::Slot);
            offer.offer.load_permille = load_permille;
            assert_eq!(expected_ms(&offer, &request(&[]), &Times::default()), expect, "{load_permille}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            offers in proptest::collection::btree_map("[a-e]", (0_u64..3, 0_u64..3, 0_u8..3), 0..5),
            rotate in 0_usize..5,
        ) {
            let offers: Vec<RankedOffer> = offers
                .into_iter()
                .map(|(agent, (price, start, kind))| {
                    let reservation = [Reservation::Slot, Reservation::Handover, Reservation::Quote][usize::from(kind)].clone();
                    offer(&agent, price, start, reservation)
                })
                .collect();
            let mut moved = offers.clone();
            if !moved.is_empty() {
                let by = rotate % moved.len();
                moved.rotate_left(by);
            }
            let mut reversed = offers.clone();
            reversed.reverse();
            let sorted = |offers| order(offers, &request(&[Some(1)]), &Times::default());
            prop_assert_eq!(sorted(moved), sorted(offers.clone()));
            prop_assert_eq!(sorted(reversed), sorted(offers));
        }

        #[test]
        fn no_number_that_an_agent_says_overflows(price in any::<u64>(), start in any::<u64>(), has in any::<u64>(), load in any::<u64>(), bytes in any::<u64>()) {
            let mut offer = offer("a", price, start, Reservation::Quote);
            (offer.offer.has, offer.offer.load_permille) = (has, load);
            let wants = vec![Some(bytes); 70];
            let request = request(&wants);
            prop_assert!(expected_ms(&offer, &request, &learned(&[("a", u64::MAX)])) >= start);
            prop_assert_eq!(order(vec![offer], &request, &Times::default()), ["a"]);
        }
    }
}
