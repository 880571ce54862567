//! Three orchestrators side by side, one of which is killed and one of which stands still: every run ends, and all tell the same of it.

use std::{fs, process::Command};

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, OTTO, Plan, until};

const PROJECTS: usize = 8;
const STAGES: usize = 4;
const ORCHESTRATORS: [&str; 3] = ["orchestrator", "orchestrator-2", "orchestrator-3"];

fn procfile() -> String {
    let further: String = ORCHESTRATORS[1..].iter().flat_map(|name| [name, ": otto serve orchestrator\n"]).collect();
    include_str!("../../Procfile").to_owned() + "\n" + &further
}

/// Each stage leaves a line when it begins, and one when it ends.
fn pipeline(witness: &str, name: &str) -> String {
    let stage = |stage: usize| {
        let script = format!("echo {name}.{stage} start >> {witness}; sleep 0.2; echo {name}.{stage} end >> {witness}");
        format!("  stage 'S{stage}' {{ steps [ sh '{script}' ] }}\n")
    };
    format!("pipeline {{\n{}}}\n", (0..STAGES).map(stage).collect::<String>())
}

/// The API of each of them, as it is now.
fn apis(house: &House) -> Vec<String> {
    let log = house.log();
    let further = ORCHESTRATORS[1..].iter().map(|name| {
        let said = log.lines().rev().find(|line| line.contains(name) && line.contains("API on http://"));
        let said = said.unwrap_or_else(|| panic!("{name} says where it listens"));
        said.get(said.find("http://").unwrap()..).unwrap().split_whitespace().next().unwrap().to_owned()
    });
    [house.client_env()[0].1.clone()].into_iter().chain(further).collect()
}

async fn create(house: &House, api: &str, name: &str, witness: &str) -> String {
    let body = json!({"pipeline": pipeline(witness, name), "project": name});
    let mut created = None;
    until("the run to be accepted", async || {
        let Ok(response) = house.request_at(api, Method::POST, "/v1/runs").header("Idempotency-Key", name).json(&body).send().await else {
            return false;
        };
        let is_there = response.status().is_success();
        let answer: Value = response.json().await.unwrap_or_default();
        assert!(is_there || answer["status"].as_u64() >= Some(500), "{answer}");
        created = answer["run"].as_str().map(str::to_owned);
        is_there
    })
    .await;
    created.unwrap()
}

async fn get(house: &House, api: &str, path: &str) -> Option<Value> {
    let response = house.request_at(api, Method::GET, path).send().await.ok()?;
    response.error_for_status().ok()?.json().await.ok()
}

async fn end_of_all(house: &House, api: &str, runs: &[String]) {
    for run in runs {
        let path = format!("/v1/runs/{run}");
        until(&format!("{run} to end"), async || get(house, api, &path).await.is_some_and(|run| run["status"]["kind"] == "ended")).await;
        assert_eq!(get(house, api, &path).await.unwrap()["status"]["outcome"], "success");
    }
}

#[tokio::test]
async fn three_orchestrators_tell_the_same_of_every_run_though_one_is_killed_and_one_stands_still() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::planned(folder, Plan { agents: 2, procfile: Some(procfile()), ..Plan::default() }).await;
    let witness = house.shared().join("witness");
    let text = witness.to_str().unwrap();
    let at_first = apis(&house);
    let mut runs = Vec::new();
    for number in 0..PROJECTS {
        runs.push(create(&house, &at_first[number % 3], &format!("a{number}"), text).await);
    }
    until("stages to run", async || fs::read_to_string(&witness).is_ok_and(|text| text.lines().count() > PROJECTS)).await;
    house.signal(ORCHESTRATORS[2], Signal::SIGSTOP);
    house.kill(ORCHESTRATORS[1]).await;
    // While nobody may work on a third of them, and one hears nothing.
    for number in 0..PROJECTS {
        runs.push(create(&house, &at_first[0], &format!("b{number}"), text).await);
    }
    end_of_all(&house, &at_first[0], &runs).await;
    house.signal(ORCHESTRATORS[2], Signal::SIGCONT);
    for number in 0..PROJECTS {
        runs.push(create(&house, &at_first[number % 2 * 2], &format!("c{number}"), text).await);
    }
    end_of_all(&house, &at_first[2], &runs).await;

    let all = apis(&house);
    for run in &runs {
        let path = format!("/v1/runs/{run}/events");
        let mut events = Vec::new();
        until(&format!("all to tell the same of {run}"), async || {
            events.clear();
            for api in &all {
                events.push(get(&house, api, &path).await);
            }
            events.iter().all(|told| told.is_some() && *told == events[0])
        })
        .await;
    }
    for api in &all {
        until("all to list every run", async || {
            let listed = get(&house, api, "/v1/runs?limit=100").await.unwrap_or_default();
            runs.iter().all(|run| listed["runs"].as_array().is_some_and(|all| all.iter().any(|listed| listed["id"] == run.as_str())))
        })
        .await;
    }
    let text = fs::read_to_string(&witness).unwrap();
    for name in ["a", "b", "c"].iter().flat_map(|series| (0..PROJECTS).map(move |number| format!("{series}{number}"))) {
        for stage in 0..STAGES {
            let ends = text.lines().filter(|line| *line == format!("{name}.{stage} end")).count();
            assert_eq!(ends, 1, "{name}.{stage}\n{text}");
        }
    }
    let checked = Command::new(OTTO).arg("fsck").arg("--data").arg(house.data()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    house.end().await;
}
