//! A bus of three servers, two of each service that can be two, three agents: whatever one of them is killed, runs go on.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use testkit::NatsCluster;

use crate::{
    house::{House, OTTO, Plan, until},
    witness::Witness,
};

/// The processes, without the servers of the bus. A depot has one folder, which is one process's.
const PROCFILE: &str = "eventbus: otto serve eventbus
depot: otto serve depot
parser: otto serve parser
parser-2: otto serve parser
auctioneer: otto serve auctioneer
auctioneer-2: otto serve auctioneer
orchestrator: otto serve orchestrator
orchestrator-2: otto serve orchestrator
forge: otto serve forge
forge-2: otto serve forge
agent: otto serve agent
";
/// Those of which one is killed, or the other.
const VICTIMS: [&str; 5] = ["parser", "auctioneer-2", "forge", "orchestrator", "orchestrator-2"];
/// Stages of a run; the one in the middle must not start twice.
const STAGES: usize = 5;
const ONCE: usize = 3;
/// Lines that each stage prints.
const LINES: usize = 200;

/// A run, and what its stages wrote.
struct Asked {
    id: String,
    witness: Witness,
}

fn pipeline(witness: &Path) -> String {
    let stage = |stage: usize| {
        let effect = if stage == ONCE { "effect = once " } else { "" };
        let says = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo said {stage} $i; done");
        let script = format!("set +x; echo {stage} start >> {0}; {says}; echo {stage} end >> {0}", witness.display());
        format!("  stage 'S{stage}' {{ {effect}steps [ sh '{script}' ] }}\n")
    };
    format!("pipeline {{\n{}}}\n", (1..=STAGES).map(stage).collect::<String>())
}

/// Asks for a run until that is acknowledged; the same key makes it one run however often it is asked for.
async fn ask(house: &House, number: usize) -> Asked {
    let folder = house.shared().join(format!("run-{number}"));
    fs::create_dir(&folder).unwrap();
    let body = json!({ "pipeline": pipeline(&folder.join("witness")) });
    let mut id = None;
    until(&format!("run {number} to be accepted"), async || {
        let request = house.request(reqwest::Method::POST, "/v1/runs").header("Idempotency-Key", format!("run-{number}")).json(&body);
        let Ok(response) = request.send().await else { return false };
        let status = response.status();
        assert!(status == 201 || status.is_server_error(), "{status}");
        id = response.json::<Value>().await.ok().and_then(|created| Some(created["run"].as_str()?.to_owned()));
        status == 201 && id.is_some()
    })
    .await;
    Asked { id: id.unwrap(), witness: Witness::new(&folder) }
}

/// The run ended as it should: each stage ran as often as the log says, what must not start twice did not, and the output is whole. A stage whose
/// agent was not heard for a lease, while nothing could be stored, runs again, or is left to a person.
async fn check(house: &House, asked: &Asked) {
    let ended = house.ended(&asked.id).await;
    let lines = asked.witness.lines();
    let context = || format!("{lines:?}\n{ended:#}");
    assert!(asked.witness.starts(ONCE) <= 1, "{}", context());
    let mut is_lost = false;
    for shown in ended["stages"].as_array().unwrap() {
        let stage: usize = shown["path"].as_str().unwrap().trim_start_matches('S').parse().unwrap();
        assert!(asked.witness.starts(stage) <= shown["attempts"].as_array().unwrap().len(), "{stage}: {}", context());
        match shown["status"]["kind"].as_str().unwrap() {
            "ended" => {
                assert_eq!(shown["status"]["outcome"], "success", "{stage}: {}", context());
                let last = |what: &str| lines.iter().rposition(|line| *line == format!("{stage} {what}"));
                assert!(last("end").is_some() && last("start") < last("end"), "{stage}: {}", context());
                is_whole(house, &asked.id, stage).await;
            }
            "lost" => {
                assert_eq!(stage, ONCE, "{}", context());
                is_lost = true;
            }
            "skipped" => assert!(is_lost && asked.witness.starts(stage) == 0, "{stage}: {}", context()),
            other => panic!("{stage} is {other}: {}", context()),
        }
    }
    assert_eq!(ended["status"]["outcome"], if is_lost { "unknown" } else { "success" }, "{}", context());
}

/// All that the stage's last attempt printed is there, as soon as it is in the depot.
async fn is_whole(house: &House, run: &str, stage: usize) {
    let path = format!("/v1/runs/{run}/output?stage=S{stage}");
    let wanted: Vec<String> = (1..=LINES).map(|line| format!("said {stage} {line}")).collect();
    let is_whole = async || {
        let Ok(response) = house.request(reqwest::Method::GET, &path).send().await else { return false };
        let log = response.text().await.unwrap_or_default();
        log.lines().filter(|line| line.starts_with("said ")).eq(wanted.iter().map(String::as_str)) && !log.contains("[otto: ")
    };
    until(&format!("the output of S{stage} of {run} to be whole"), is_whole).await;
}

#[tokio::test]
async fn runs_go_on_while_the_leader_of_the_bus_and_one_of_each_service_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = NatsCluster::start(&folder.path().join("up/keys/bus"), 3).await;
    let monitors: Vec<String> = cluster.monitors().iter().map(ToString::to_string).collect();
    let arguments = ["--bus", &cluster.urls().join(","), "--bus-monitors", &monitors.join(","), "--bus-replicas", "3"].map(str::to_owned);
    let plan = Plan { agents: 3, procfile: Some(PROCFILE.to_owned()), arguments: arguments.into(), ..Plan::default() };
    let house = House::planned(folder, plan).await;
    let mut runs = vec![ask(&house, 1).await, ask(&house, 2).await];
    let leader = cluster.leader_of("RUNS").await;
    cluster.kill(&leader);
    for number in 3..=5 {
        runs.push(ask(&house, number).await);
    }
    for victim in VICTIMS {
        house.kill(victim).await;
        runs.push(ask(&house, runs.len() + 1).await);
    }
    cluster.start_again(&leader).await;
    runs.push(ask(&house, runs.len() + 1).await);
    for asked in &runs {
        check(&house, asked).await;
    }
    let listed = async || house.get("/v1/runs").await.and_then(|list| Some(list["runs"].as_array()?.len()));
    until("each run to be listed once", async || listed().await == Some(runs.len())).await;
    let found = Command::new(OTTO).args(["fsck", "--data"]).arg(house.data()).output().unwrap();
    assert!(found.status.success(), "{found:?}");
    house.end().await;
}

#[tokio::test]
async fn two_auctioneers_sell_one_slot_once() {
    let procfile = "nats: otto serve nats
eventbus: otto serve eventbus
depot: otto serve depot
parser: otto serve parser
auctioneer: otto serve auctioneer
auctioneer-2: otto serve auctioneer
orchestrator: otto serve orchestrator
agent: OTTO_AGENT_SLOTS=1 otto serve agent
";
    let plan = Plan { procfile: Some(procfile.to_owned()), ..Plan::default() };
    let house = House::planned(tempfile::tempdir().unwrap(), plan).await;
    let (slot, sold_twice) = (house.shared().join("slot"), house.shared().join("sold-twice"));
    // Whoever finds another one at work says so.
    let script = format!("mkdir {0} || touch {1}; sleep 0.02; rmdir {0}", slot.display(), sold_twice.display());
    let stage = |stage: usize| format!("stage 'S{stage}' {{ steps [ sh '{script}' ] }} ");
    let stages: String = (1..=6).map(stage).collect();
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(house.create(&format!("pipeline {{ parallel {{ {stages} }} }}")).await);
    }
    for run in &runs {
        let ended = house.ended(run).await;
        assert_eq!(ended["status"]["outcome"], "success", "{ended:#}");
        assert!(house.events(run).await.iter().all(|event| event["event"]["kind"] != "stage_lost"));
    }
    assert!(!sold_twice.exists(), "two stages had the one slot at once");
    house.end().await;
}
