//! Which offer is the better one.

use model::{
    AgentName,
    protocol::auction::{RankedOffer, Reservation},
};

/// How long an attempt is taken to run, in milliseconds, as nothing is known of it yet. It only weighs an agent's price against its
/// time to start: with a second, a minute's delay is worth sixty times the price.
const EXPECTED_RUN_MS: u128 = 1_000;

/// Puts the best offer first. The order is total, so it does not depend on that in which the offers came:
///
/// 1. what it costs: the price of a second × the time that the agent is busy with it (until it starts, and then for a second);
/// 2. how soon it starts;
/// 3. what is reserved: a handover, which is kept until the attempt can start; a slot, which is kept for a while; a mere quote;
/// 4. the agent's name.
pub fn rank(mut offers: Vec<RankedOffer>) -> Vec<RankedOffer> {
    offers.sort_by(|left, right| key(left).cmp(&key(right)));
    offers
}

fn key(ranked: &RankedOffer) -> (u128, u64, u8, &AgentName) {
    let offer = &ranked.offer;
    let cost = u128::from(offer.price_micros_per_s).saturating_mul(EXPECTED_RUN_MS + u128::from(offer.start_ms));
    let reservation = match offer.reservation {
        Reservation::Handover => 0,
        Reservation::Slot => 1,
        Reservation::Quote => 2,
    };
    (cost, offer.start_ms, reservation, &ranked.agent)
}

#[cfg(test)]
mod tests {
    use model::protocol::auction::Offer;
    use proptest::prelude::*;

    use super::*;

    fn offer(agent: &str, price_micros_per_s: u64, start_ms: u64, reservation: Reservation) -> RankedOffer {
        RankedOffer { agent: agent.parse().unwrap(), offer: Offer { price_micros_per_s, start_ms, reservation } }
    }

    fn check(offers: Vec<RankedOffer>, expect: &[&str]) {
        let ranked = rank(offers);
        let names: Vec<&str> = ranked.iter().map(|ranked| ranked.agent.as_str()).collect();
        assert_eq!(names, expect);
    }

    #[test]
    fn the_cheapest_wins_then_the_soonest_then_the_surest_then_the_first_by_name() {
        use Reservation::{Handover, Quote, Slot};
        check(vec![offer("dear", 2, 0, Slot), offer("cheap", 1, 0, Slot)], &["cheap", "dear"]);
        check(vec![offer("late", 0, 9, Slot), offer("soon", 0, 0, Quote)], &["soon", "late"]);
        check(vec![offer("q", 0, 0, Quote), offer("s", 0, 0, Slot), offer("z", 0, 0, Handover)], &["z", "s", "q"]);
        check(vec![offer("b", 3, 1, Slot), offer("a", 3, 1, Slot)], &["a", "b"]);
        check(vec![], &[]);
    }

    #[test]
    fn a_low_price_does_not_pay_for_a_long_wait() {
        use Reservation::Slot;
        check(vec![offer("cheap-in-a-minute", 10, 60_000, Slot), offer("dear-now", 500, 0, Slot)], &["dear-now", "cheap-in-a-minute"]);
        check(vec![offer("most", u64::MAX, u64::MAX, Slot), offer("more", u64::MAX, 0, Slot)], &["more", "most"]);
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
            prop_assert_eq!(rank(moved), rank(offers.clone()));
            prop_assert_eq!(rank(reversed), rank(offers));
        }
    }
}
