//! A thousand gates and timers of one run, and an orchestrator that is killed twice: each fires once.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::{House, until};

const GATES: usize = 500;
const TIMERS: usize = 500;
/// Of the gates, those with steps behind them, which leave a line.
const WITNESSED: usize = 50;

fn pipeline(witness: &std::path::Path) -> String {
    let mut text = String::from("pipeline { parallel {\n");
    for gate in 0..GATES {
        let steps = if gate < WITNESSED { format!("steps [ sh 'echo {gate} >> {}' ]", witness.display()) } else { String::new() };
        writeln!(text, "  stage 'G{gate}' {{ gates {{ enter {{ input 'Go {gate}?' }} }} {steps} }}").unwrap();
    }
    for timer in 0..TIMERS {
        // So that the first are over in the middle of the story, and the last at its end.
        writeln!(text, "  stage 'T{timer}' {{ wait {{ time = {}s }} }}", 10 + timer % 20).unwrap();
    }
    text + "} }\n"
}

/// How often there was an event of this kind, by stage.
fn count(events: &[Value], kind: &str) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for event in events.iter().map(|event| &event["event"]).filter(|event| event["kind"] == kind) {
        *count.entry(event["stage"].to_string()).or_default() += 1;
    }
    count
}

/// Approves what the gate asks, also if the orchestrator is away at first.
async fn approve(house: &House, run: &str, stage: &str, delivery: &Value) {
    let body = json!({"stage": stage, "answer": {"kind": "approve", "delivery": delivery}});
    until(&format!("{stage} to be approved"), async || {
        match house.request(Method::POST, &format!("/v1/runs/{run}/answer")).json(&body).send().await {
            // It was heard before, by one who could not say so any more.
            Ok(response) => matches!(response.status(), StatusCode::OK | StatusCode::CONFLICT),
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test]
async fn a_thousand_gates_and_timers_fire_once_though_the_orchestrator_is_killed_twice() {
    let house = House::start(1).await;
    let witness = house.scratch().join("witness");
    let run = house.create(&pipeline(&witness)).await;
    let kind = |kind: &'static str| {
        let (house, run) = (&house, &run);
        async move {
            let events = house.get(&format!("/v1/runs/{run}/events")).await;
            count(events.as_ref().and_then(Value::as_array).map_or(&[], Vec::as_slice), kind).len()
        }
    };
    until("all to wait", async || kind("wait_opened").await == GATES + TIMERS).await;
    house.kill("orchestrator").await;
    until("it to be back", async || house.get(&format!("/v1/runs/{run}")).await.is_some()).await;
    let detail = house.get(&format!("/v1/runs/{run}")).await.unwrap();
    let gates: Vec<(&str, &Value)> = detail["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (stage["path"].as_str().unwrap(), &stage["waits"][0]["question"]["delivery"]))
        .filter(|(path, _)| path.starts_with('G'))
        .collect();
    assert_eq!(gates.len(), GATES);
    for (number, (stage, delivery)) in gates.into_iter().enumerate() {
        if number == GATES / 2 {
            // While some timers are over, and others not, and one is being answered.
            until("some timers to be over", async || kind("wait_answered").await > GATES / 2).await;
            tokio::join!(approve(&house, &run, stage, delivery), house.kill("orchestrator"));
        } else {
            approve(&house, &run, stage, delivery).await;
        }
    }
    let ended = house.ended(&run).await;
    assert_eq!(ended["status"]["outcome"], "success");
    let events = house.events(&run).await;
    for kind in ["wait_opened", "wait_answered", "stage_ended"] {
        let count = count(&events, kind);
        let more: Vec<_> = count.iter().filter(|(_, count)| **count != 1).collect();
        assert!(more.is_empty(), "{kind}: {more:?}");
    }
    assert_eq!((count(&events, "wait_opened").len(), count(&events, "wait_answered").len()), (GATES + TIMERS, GATES + TIMERS));
    let early = |event: &&Value| {
        let opened =
            events.iter().find(|opened| opened["event"]["kind"] == "wait_opened" && opened["event"]["stage"] == event["event"]["stage"]);
        event["at"].as_u64() < opened.unwrap()["event"]["due_at"].as_u64()
    };
    let is_elapsed = |event: &&Value| event["event"]["kind"] == "wait_answered" && event["event"]["answer"]["kind"] == "elapsed";
    assert_eq!(events.iter().filter(is_elapsed).count(), TIMERS);
    assert_eq!(events.iter().filter(is_elapsed).filter(early).count(), 0, "none is over before its time");
    let text = fs::read_to_string(witness).unwrap();
    let mut lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    assert!(lines.into_iter().eq(0..WITNESSED), "{text}");
    house.end().await;
}
