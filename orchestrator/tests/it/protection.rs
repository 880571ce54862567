//! Deliveries to environments that the project's configuration protects.

use std::collections::BTreeMap;

use config::Token;
use model::{
    Digest, RunId, StageOutcome,
    access::Role,
    event::run::{Outputs, Planned},
    plan::{Deployment, Plan, Stage},
    trigger::{Claims, RerunStages, Trigger, Trust},
};
use orchestrator::{Orchestrator, engine::Protections, http::Tokens};
use serde_json::{Value as Json, json};
use service::Supervisor;

use crate::house::{Api, House, chain, ended, on_branch, refusal};

/// A plan whose one stage delivers to `production`, which its file does not protect.
fn ship() -> Plan {
    let deployment = Deployment { environment: "production".to_owned(), protected: false, settings: BTreeMap::new() };
    let stages = chain(&["Ship"]).stages.into_iter().map(|stage| Stage { deployment: Some(deployment.clone()), ..stage });
    Plan::new(stages.collect())
}

/// An orchestrator whose configuration protects `production`: from `main` alone, and approved by ann.
async fn start(house: &House) -> (Orchestrator, Supervisor) {
    let protection = json!({ "environments": { "production": { "approvers": ["ann"] } } });
    let protections = Protections::of([(on_branch("1", "main").project, serde_json::from_value(protection).unwrap())]);
    house.start_with(|options| orchestrator::engine::EngineOptions { protections, ..options }).await
}

/// What the forge makes of a push.
fn push(delivery: &str, branch: &str) -> Trigger {
    let claims = Claims { trust: Trust::Trusted, protected: branch == "main", actor: None };
    Trigger { claims, ..on_branch(delivery, branch) }
}

/// Tokens of administrators of these names, whose texts are their names.
fn administrators(names: &[&str]) -> (tempfile::TempDir, Tokens) {
    let token = |name: &&str| Token { name: name.parse().unwrap(), digest: Digest::of(name.as_bytes()), role: Role::Admin, projects: None };
    let text = names.iter().map(token).fold(String::new(), |text, token| config::token::with_token(&text, &token).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.yml");
    std::fs::write(&file, text).unwrap();
    (folder, Tokens::open(file).unwrap())
}

/// The digest of the delivery that the run asks an approval of.
async fn asked(orchestrator: &Orchestrator, api: &Api, run: &RunId) -> Json {
    let mut appended = orchestrator.runs.follow();
    loop {
        let (_, waits) = api.get("/v1/waits").await;
        let mut open = waits["waits"].as_array().unwrap().iter();
        if let Some(wait) = open.find(|wait| wait["run"] == run.as_str()) {
            assert_eq!(wait["question"]["by"], json!(["ann"]), "{wait}");
            return wait["question"]["delivery"].clone();
        }
        appended.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_branch_that_does_not_protect_an_environment_does_not_deliver_to_it() {
    let house = House::new(ship()).await;
    let (orchestrator, supervisor) = start(&house).await;
    for trigger in [push("branch", "feature"), on_branch("untrusted", "main")] {
        orchestrator.create(&trigger).await.unwrap();
        let run = ended(&orchestrator, &trigger).await;
        let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
        assert_eq!(diagnostics[0].code, "E0907");
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn source_text_from_the_api_delivers_nothing_whoever_asks() {
    let house = House::new(ship()).await;
    let (orchestrator, supervisor) = start(&house).await;
    let api = house.serve(&orchestrator);
    let (status, created) = api.post("/v1/runs", &json!({ "project": "demo", "branch": "main", "pipeline": "pipeline {}" })).await;
    assert_eq!(status, 201, "{created}");
    let (_, shown) = api.get(&format!("/v1/runs/{}", created["run"].as_str().unwrap())).await;
    assert_eq!((&shown["plan"]["kind"], &shown["plan"]["diagnostics"][0]["code"]), (&json!("refused"), &json!("E0907")), "{shown}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn an_approval_counts_from_those_whom_the_configuration_names_and_once() {
    let house = House::new(ship()).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = start(&house).await;
    let (_folder, tokens) = administrators(&["ann", "bob"]);
    let api = house.serve_for(&orchestrator, tokens);
    let trigger = push("main", "main");
    orchestrator.create(&trigger).await.unwrap();
    let delivery = asked(&orchestrator, &api, &trigger.run()).await;
    let approve = |delivery: &Json| json!({ "answer": { "kind": "approve", "delivery": delivery } });
    let path = |run: &RunId| format!("/v1/runs/{run}/answer");
    for other in [api.with_token("bob"), api.with_token("a token for tests")] {
        assert_eq!(refusal(other.post(&path(&trigger.run()), &approve(&delivery)).await), (403, "not_asked".to_owned()));
    }
    let ann = api.with_token("ann");
    let (status, run) = ann.post(&path(&trigger.run()), &approve(&delivery)).await;
    assert_eq!(status, 200, "{run}");
    let assignment = inbox.assignment(None).await;
    inbox.finish(&assignment.lease, StageOutcome::Success, Outputs::default()).await;
    ended(&orchestrator, &trigger).await;

    let again = orchestrator.rerun(&trigger.run(), RerunStages::All, "again", Some("ann")).await.unwrap();
    let asked_again = asked(&orchestrator, &api, &again).await;
    assert_ne!(asked_again, delivery);
    assert_eq!(refusal(ann.post(&path(&again), &approve(&delivery)).await), (409, "wrong_answer".to_owned()));
    assert_eq!(ann.post(&path(&again), &approve(&asked_again)).await.0, 200);
    supervisor.shut_down().await;
}
