//! Kill what you like: the run goes on.

use nix::sys::signal::Signal;

use crate::{
    house::{House, until},
    witness::Witness,
};

const STAGES: usize = 20;
const AGENT: &str = "agent-1";

#[tokio::test]
async fn a_run_of_twenty_stages_survives_the_death_of_every_service() {
    let house = House::start(1).await;
    let witness = Witness::new(house.scratch());
    let victims = [(4, "orchestrator"), (8, "auctioneer"), (12, AGENT), (16, "nats")];
    let run = house.create(&witness.pipeline(STAGES, &victims.map(|(stage, _)| stage))).await;
    for (stage, victim) in victims {
        until(&format!("stage {stage} to start"), async || witness.starts(stage) == 1).await;
        house.kill(victim).await;
        if victim == AGENT {
            // The agent that comes back ends what was left of the stage, and says that it was lost.
            until("the lost stage to start again", async || witness.starts(stage) == 2).await;
        }
        witness.open(stage);
    }
    let run = house.ended(&run).await;
    witness.agrees_with(&run, STAGES);
    house.end().await;
}

#[tokio::test]
async fn one_of_three_agents_that_stands_still_delays_nothing() {
    one_that_stands_still_delays_nothing(3).await;
}

#[tokio::test]
async fn one_of_ten_agents_that_stands_still_delays_nothing() {
    one_that_stands_still_delays_nothing(10).await;
}

async fn one_that_stands_still_delays_nothing(agents: usize) {
    let house = House::start(agents).await;
    let witness = Witness::new(house.scratch());
    let run = house.create(&witness.pipeline(STAGES, &[1])).await;
    until("the first stage to start", async || witness.starts(1) == 1).await;
    let holder = house.get(&format!("/v1/runs/{run}")).await.unwrap()["stages"][0]["attempts"][0]["agent"].clone();
    let idle = (1..=agents).map(|number| format!("agent-{number}")).find(|agent| holder != agent.as_str()).unwrap();
    house.signal(&idle, Signal::SIGSTOP);
    witness.open(1);
    let ended = house.ended(&run).await;
    house.signal(&idle, Signal::SIGCONT);
    witness.agrees_with(&ended, STAGES);
    for event in house.events(&run).await {
        assert!(
            event["event"]["kind"] != "stage_lost" && event["event"]["kind"] != "stage_declined",
            "nobody waited for the agent that stood still: {event}"
        );
    }
    house.end().await;
}

#[tokio::test]
async fn killing_otto_up_leaves_nothing_running() {
    let house = House::start(1).await;
    let data = house.data();
    drop(house);
    until("the services to notice", async || crate::house::processes_that_name(&data).is_empty()).await;
}
