//! The API keeps what its document promises: schemathesis asks every operation for what the document allows and for what it does not.
//!
//! The document gets, as examples, the ids of runs that are there, so that each operation is also asked for something that it does. Whatever
//! else a test case begins is brought to an end at once, as whoever follows it waits for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Stdio,
};

use eventbus::Subject;
use model::{
    Digest, RunId, StageId, StageOutcome,
    event::run::{Outputs, RunEvent, StoredLog, StoredTree, WaitKey},
    plan::{Plan, Value, Wait},
    planning::{PlanReply, PlanRequest, Text},
    protocol::{
        agent::{AgentCommand, Report},
        enrolment::AgentTrust,
        forge::{ProjectRunReply, ProjectRunRequest, Revision},
    },
    trigger::Trigger,
};
use orchestrator::{Orchestrator, engine::EngineOptions};
use serde_json::{Value as Json, json};
use service::{
    OnError,
    tool::{Finder, Kept, Tool, Version},
};

use crate::house::{House, agent, chain, ended, is_asked, planned, refused, trigger, until, waiting};

/// The program that asks.
const SCHEMATHESIS: Tool =
    Tool { program: "schemathesis", package: "schemathesis", version: "4.32.5", version_min: Version(4, 32, 5), kept: Kept::Environment };
/// With this the cases are the same each time; another one is set for a search.
const SEED_DEFAULT: &str = "20260";
/// Sets the seed.
const SEED: &str = "OTTO_SCHEMATHESIS_SEED";
/// Sets how many cases are tried of each operation in each phase.
const EXAMPLES: &str = "OTTO_SCHEMATHESIS_EXAMPLES";
/// So many that all of it takes half a minute on two cores.
const EXAMPLES_DEFAULT: &str = "6";
/// The longest that one answer may take, in seconds; a machine under load is slow.
const ANSWER_S: &str = "60";

/// What each stage leaves.
const ARTIFACT: &str = "bin";

/// The plan of a pipeline file that is nothing but this name.
fn plan(name: &str) -> Option<Plan> {
    let wait = |wait| Plan::new(vec![waiting("Ask", wait)]);
    Some(match name {
        "built" => chain(&["Build"]),
        "asked" => wait(Wait::Confirm { message: Value::from("Ship it?"), by: Vec::new(), timeout_ms: None }),
        "paused" => wait(Wait::Pause),
        "called" => wait(Wait::Webhook { description: Value::from("the scanner"), timeout_ms: None }),
        _ => return None,
    })
}

fn reply(request: &PlanRequest) -> PlanReply {
    let known = if let Text::Inline(name) = &request.source { plan(name) } else { None };
    known.map_or_else(|| refused(request), |plan| planned(plan, None))
}

fn of(name: &str) -> Trigger {
    Trigger { pipeline: Text::Inline(name.to_owned()), ..trigger(name) }
}

/// Plays an agent on which everything succeeds, and prints a little.
async fn play_agent(house: &House) {
    let mut inbox = house.inbox().await;
    let bytes = house.blobs.put("built\n".into()).await.unwrap();
    let mark = json!({ "offset": 0, "length": 6, "step": 0, "stream": "out", "at": 5, "lines_before": 0 });
    let index = house.blobs.put(format!("{mark}\n").into()).await.unwrap();
    let artifact = StoredTree { archive: bytes, bytes: 6, entries: 1 };
    let outputs = Outputs { artifacts: BTreeMap::from([(ARTIFACT.to_owned(), artifact)]), ..Outputs::default() };
    house.others.spawn("agent", OnError::Log, async move {
        // There may be nothing to do for long.
        while let Some(message) = inbox.commands.next().await {
            if let AgentCommand::Assign(assignment) = message.read()? {
                inbox.report(&assignment.lease, Report::LogStored { log: StoredLog::whole(bytes, 6, index) }).await;
                inbox.finish(&assignment.lease, StageOutcome::Success, outputs.clone()).await;
            }
        }
        Ok(())
    });
}

/// Plays a forge that has one branch, `main`.
async fn play_forge(house: &House) {
    let mut asked = house.bus.subscribe_group(Subject::project_run()).await.unwrap();
    let bus = house.bus.clone();
    house.others.spawn("forge", OnError::Log, async move {
        while let Some(message) = asked.next().await {
            let request: ProjectRunRequest = message.read()?;
            let reply = match request.revision {
                Revision::Branch { name } if name != "main" => ProjectRunReply::Refused { message: format!("there is no branch `{name}`") },
                Revision::Tag { name } => ProjectRunReply::Refused { message: format!("there is no tag `{name}`") },
                Revision::Branch { .. } | Revision::DefaultBranch => {
                    let trigger = Trigger { id: request.id, ..of("built") };
                    bus.store_trigger(&trigger).await?;
                    ProjectRunReply::Accepted { run: trigger.run() }
                }
            };
            message.reply(&reply).await?;
        }
        Ok(())
    });
}

/// Ends every run that waits for somebody, but these.
fn end_what_waits(house: &House, orchestrator: &Orchestrator, kept: BTreeSet<RunId>) {
    let (orchestrator, mut appended) = (orchestrator.clone(), orchestrator.runs.follow());
    house.others.spawn("nobody", OnError::Log, async move {
        while let Ok(appended) = appended.recv().await {
            let waits = appended.record.events.iter().any(|event| matches!(event, RunEvent::WaitOpened { .. }));
            if waits && !kept.contains(&appended.run) {
                // It may be over by itself.
                let _ended = orchestrator.cancel(&appended.run, "nobody", true).await;
            }
        }
        Ok(())
    });
}

/// Puts a value among the examples of a parameter or of a body.
fn exemplify(place: &mut Json, value: &Json) {
    place.as_object_mut().unwrap().entry("examples").or_insert_with(|| json!({}))["known"] = json!({ "value": value });
}

/// The document, with examples of what is there.
struct Document(Json);

impl Document {
    fn operation(&mut self, method: &str, path: &str) -> &mut Json {
        let item = self.0["paths"].get_mut(path).unwrap_or_else(|| panic!("no path {path}"));
        item.get_mut(method).unwrap_or_else(|| panic!("no {method} {path}"))
    }

    fn parameter(&mut self, method: &str, path: &str, name: &str, value: impl Into<Json>) {
        let parameters = self.operation(method, path)["parameters"].as_array_mut().unwrap();
        let parameter = parameters.iter_mut().find(|parameter| parameter["name"] == name);
        exemplify(parameter.unwrap_or_else(|| panic!("{path} has no {name}")), &value.into());
    }

    fn body(&mut self, path: &str, value: &Json) {
        exemplify(&mut self.operation("post", path)["requestBody"]["content"]["application/json"], value);
    }

    /// Every operation, by its method and its path.
    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let of = |(path, item): (&String, &Json)| {
            let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            methods.into_iter().map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        paths.flat_map(of).collect()
    }
}

/// Operations that have answered 2xx, as the record of all requests has it.
fn succeeded(record: &Path, document: &Document) -> BTreeSet<(String, String)> {
    let record: Json = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    let entries = record["log"]["entries"].as_array().unwrap();
    let succeeded = entries.iter().filter(|entry| entry["response"]["status"].as_u64().is_some_and(|status| (200..300).contains(&status)));
    let operations = document.operations();
    let operation = |entry: &Json| {
        let url: reqwest::Url = entry["request"]["url"].as_str()?.parse().ok()?;
        let asked: Vec<&str> = url.path().split('/').collect();
        let is_it = |(method, path): &&(String, String)| {
            let named: Vec<&str> = path.split('/').collect();
            let fits = named.iter().zip(&asked).all(|(named, asked)| named.starts_with('{') || named == asked);
            entry["request"]["method"] == **method && named.len() == asked.len() && fits
        };
        operations.iter().find(is_it).cloned()
    };
    succeeded.filter_map(operation).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "it is told by its environment how much to try, and schemathesis is a program")]
async fn every_operation_keeps_what_the_document_promises() {
    let program = Finder::new(&testkit::otto_home()).find_or_install(&SCHEMATHESIS, &|line| eprintln!("{line}")).await.unwrap();
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser_with(reply).await;
    play_agent(&house).await;
    play_forge(&house).await;
    house.play_enrolment(&[(agent().as_str(), AgentTrust::Any)]).await;
    let (orchestrator, supervisor) = house.start_with(|options| EngineOptions { asks_the_roll: true, ..options }).await;
    let api = house.serve(&orchestrator);
    let [built, asked, paused, called] = ["built", "asked", "paused", "called"].map(of);
    end_what_waits(&house, &orchestrator, [&asked, &paused, &called].map(Trigger::run).into());
    for trigger in [&built, &asked, &paused, &called] {
        orchestrator.create(trigger).await.unwrap();
    }
    ended(&orchestrator, &built).await;
    for trigger in [&asked, &paused, &called] {
        until(&orchestrator, trigger, "the question", |run| is_asked(run, "Ask")).await;
    }
    let document = document(&orchestrator, &built, &asked, &paused, &called);
    let folder = tempfile::tempdir().unwrap();
    let (spec, record) = (folder.path().join("openapi.json"), folder.path().join("record.har"));
    fs::write(&spec, document.0.to_string()).unwrap();

    let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let (seed, examples) = (or(SEED, SEED_DEFAULT), or(EXAMPLES, EXAMPLES_DEFAULT));
    println!("the seed is {seed}, the examples are {examples}; {SEED} and {EXAMPLES} set others");
    let mut command = tokio::process::Command::new(program);
    command
        .arg("run")
        .arg(&spec)
        .args(["--url", api.base(), "--header", &format!("Authorization: Bearer {}", api.token()), "--checks", "all"])
        .args(["--seed", &seed, "--max-examples", &examples, "--request-timeout", ANSWER_S, "--generation-database", "none", "--no-color"])
        .args(["--report", "har", "--report-har-path"])
        .arg(&record)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
    let missed: Vec<_> = document.operations().difference(&succeeded(&record, &document)).cloned().collect();
    assert_eq!(missed, [], "these never answered 2xx\n{said}");
    supervisor.shut_down().await;
}

/// The document, with what each operation does for sure.
fn document(orchestrator: &Orchestrator, built: &Trigger, asked: &Trigger, paused: &Trigger, called: &Trigger) -> Document {
    let mut document = Document(serde_json::to_value(orchestrator::http::openapi()).unwrap());
    let built = built.run().to_string();
    for what in ["", "/plan", "/events", "/events/follow", "/log", "/log/follow", "/output", "/why", "/artifacts", "/artifact"] {
        document.parameter("get", &format!("/v1/runs/{{run}}{what}"), "run", built.as_str());
    }
    document.parameter("get", "/v1/runs/{run}/output", "stage", "Build");
    document.parameter("get", "/v1/runs/{run}/artifact", "name", ARTIFACT);
    document.parameter("post", "/v1/projects/{project}/runs", "project", "demo");
    document.body("/v1/projects/{project}/runs", &json!({ "revision": { "kind": "branch", "name": "main" } }));
    document.parameter("post", "/v1/agents/{agent}/drain", "agent", agent().as_str());
    document.parameter("post", "/v1/agents/{agent}/drain", "undo", true);
    document.parameter("get", "/v1/projects/{project}", "project", "demo");
    document.parameter("get", "/v1/environments/{name}", "name", "production");
    document.parameter("post", "/v1/runs/{run}/rerun", "run", built.as_str());
    document.body("/v1/runs/{run}/rerun", &json!({}));
    document.parameter("post", "/v1/runs/{run}/cancel", "run", paused.run().to_string());
    document.parameter("post", "/v1/runs/{run}/answer", "run", asked.run().to_string());
    let delivery = delivery(orchestrator, asked);
    document.body("/v1/runs/{run}/answer", &json!({ "answer": { "kind": "approve", "delivery": delivery } }));
    let path = orchestrator.callback_path(&called.run(), &StageId::of("Ask"), WaitKey::Itself).unwrap();
    document.parameter("post", "/v1/callbacks/{secret}", "secret", path.rsplit('/').next().unwrap());
    document.body("/v1/runs", &json!({ "pipeline": "built" }));
    document.body("/v1/plans", &json!({ "pipeline": "built", "event": "push", "branch": "main" }));
    document
}

fn delivery(orchestrator: &Orchestrator, trigger: &Trigger) -> Digest {
    let run = orchestrator.runs.get(&trigger.run()).unwrap().run;
    let at = run.shape.find(&StageId::of("Ask")).unwrap();
    orchestrator::core::wait::delivery(&run, at, WaitKey::Itself)
}
