//! The bus is away in the middle of a long stage: the stage goes on, and its result is accepted afterwards.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    house::{House, until},
    random_kills::is_thorough,
    witness::Witness,
};

/// How long the bus is away: longer than a lease only where there is time for it.
const AWAY: Duration = Duration::from_secs(6);
/// Four leases.
const AWAY_THOROUGH: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_stage_that_ends_while_the_bus_stands_still_has_its_result_accepted_afterwards() {
    let house = House::start(1).await;
    let witness = Witness::new(house.scratch());
    let run = house.create(&witness.pipeline(3, &[2])).await;
    until("the stage in the middle to start", async || witness.starts(2) == 1).await;
    house.signal("nats", Signal::SIGSTOP);
    // The absence itself is what is tested, so it has a length.
    tokio::time::sleep(if is_thorough() { AWAY_THOROUGH } else { AWAY }).await;
    witness.open(2);
    until("the stage in the middle to end", async || witness.lines().contains(&"2 end".to_owned())).await;
    house.signal("nats", Signal::SIGCONT);
    let ended = house.ended(&run).await;
    witness.agrees_with(&ended, 3);
    assert_eq!((witness.starts(2), witness.starts(3)), (1, 1), "nothing starts twice");
    house.end().await;
}
