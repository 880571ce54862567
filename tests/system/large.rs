//! The largest plan that there may be, from its file to its end: 5,000 stages and 100,000 steps. Without `OTTO_KILL_SEEDS` (CONTRIBUTING.md), a
//! part of it, as agents take some minutes for all.

use std::{
    fmt::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use testkit::wait_for;

use crate::{
    house::{House, OTTO, Plan, until},
    random_kills::is_thorough,
};

/// A block of `each` has at most 256 branches.
const ROWS: usize = 25;
const COLUMNS: usize = 10;
/// Of the largest plan; of the one that is looked at where there is not much time.
const BLOCKS: [usize; 2] = [20, 1];
/// How long it may take: the agents of a busy machine take up some stages a second.
const RUN_DEADLINE: Duration = Duration::from_mins(30);
/// Of each stage.
const STEPS: usize = 20;
/// What the bus takes in one message.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Steps that start no process: those of the machine that tests are not what is looked at.
fn pipeline(blocks: usize) -> String {
    let axis = |length: usize| (0..length).map(|at| format!("'{at}'")).collect::<Vec<_>>().join(", ");
    let steps: String = (0..STEPS).flat_map(|step| ["        echo '".to_owned(), step.to_string(), "'\n".to_owned()]).collect();
    let mut text = "pipeline {\n  parallel {\n".to_owned();
    for block in 0..blocks {
        let head = format!("    each(row: [{}], column: [{}]) {{\n", axis(ROWS), axis(COLUMNS));
        write!(text, "{head}      stage 'S{block}' {{ checkout = false steps {{\n{steps}      }} }}\n    }}\n").unwrap();
    }
    text + "  }\n}\n"
}

#[tokio::test]
async fn the_largest_plan_passes_through_the_services() {
    let house = House::planned(tempfile::tempdir().unwrap(), Plan { agents: 2, ..Plan::default() }).await;
    let begin = Instant::now();
    let blocks = if is_thorough() { BLOCKS[0] } else { BLOCKS[1] };
    let count = blocks * ROWS * COLUMNS;
    let run = house.create(&pipeline(blocks)).await;
    let path = format!("/v1/runs/{run}");
    let mut shown = Value::Null;
    let mut looks = Vec::new();
    wait_for(RUN_DEADLINE, "all stages to end", async || {
        let look = Instant::now();
        shown = house.get(&path).await.unwrap();
        looks.push(look.elapsed());
        (shown["status"]["kind"] == "ended").then_some(())
    })
    .await;
    let took = begin.elapsed();
    assert_eq!(shown["status"]["outcome"], "success", "{}", shown["status"]);
    let stages = shown["stages"].as_array().unwrap();
    assert_eq!(stages.len(), count);
    assert!(stages.iter().all(|stage| stage["status"]["outcome"] == "success"));
    let listed = house.get("/v1/runs").await.unwrap();
    assert_eq!(listed["runs"][0]["id"], run.as_str());
    let events = house.events(&run).await;
    let finished = events.iter().filter(|event| event["event"]["kind"] == "stage_finished").count();
    assert_eq!(finished, count);
    let mut bytes = std::collections::BTreeMap::<u64, usize>::new();
    for event in &events {
        *bytes.entry(event["sequence"].as_u64().unwrap()).or_default() += event.to_string().len();
    }
    let largest = bytes.values().max().copied().unwrap_or_default();
    assert!(largest < MESSAGE_BYTES_MAX, "a record has some {largest} bytes");

    let restart = Instant::now();
    house.kill("orchestrator").await;
    until("the run to be shown again", async || house.get(&path).await.is_some_and(|run| run["status"]["kind"] == "ended")).await;
    let back = restart.elapsed();
    let checked = Command::new(OTTO).arg("fsck").arg("--data").arg(house.data()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    println!(
        "{count} stages, {} steps: {:.1} s, {} records, the largest of {largest} bytes; shown in {:.0} ms (most); back after {:.1} s",
        count * STEPS,
        took.as_secs_f64(),
        bytes.len(),
        looks.iter().max().unwrap().as_secs_f64() * 1e3,
        back.as_secs_f64(),
    );
    house.end().await;
}
