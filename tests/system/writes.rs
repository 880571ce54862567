//! What a stage costs in durable writes.

use crate::{house::House, witness::Witness};

/// Durable writes between a stage's end and the next one's first byte, by promise.
const WRITES_MAX: usize = 2;

#[tokio::test]
async fn at_most_two_durable_writes_lie_between_a_stage_and_the_next() {
    let house = House::start(1).await;
    let witness = Witness::new(house.scratch());
    let run = house.create(&witness.pipeline(20, &[])).await;
    house.ended(&run).await;
    let events = house.events(&run).await;
    let sequences = |kind: &str| -> Vec<u64> {
        events.iter().filter(|event| event["event"]["kind"] == kind).map(|event| event["sequence"].as_u64().unwrap()).collect()
    };
    let all: std::collections::BTreeSet<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    // The stages run one after the other, so the nth end is followed by the (n + 1)th award.
    let (finished, awarded) = (sequences("stage_finished"), sequences("stage_awarded"));
    assert_eq!((finished.len(), awarded.len()), (20, 20));
    let writes: Vec<usize> = finished.iter().zip(&awarded[1..]).map(|(end, award)| all.range(end..=award).count()).collect();
    assert!(writes.iter().all(|writes| (1..=WRITES_MAX).contains(writes)), "{writes:?}");
    // Two where the end came before the next stage's auction was over, as on a busy machine.
    assert!(writes.contains(&1), "the end and the award go into one append where the agent is chosen ahead: {writes:?}");
    house.end().await;
}
