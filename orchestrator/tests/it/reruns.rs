//! Runs that are run again, over the HTTP API.

use model::{
    RunId, RunOutcome, StageId, StageOutcome, TriggerId,
    event::run::{Outputs, Planned},
    trigger::{Rerun, RerunStages, Trigger},
};
use orchestrator::Orchestrator;
use serde_json::{Value as Json, json};

use crate::house::{Api, House, Inbox, chain, ended, outcome, refusal, trigger, until};

fn outputs(text: &str) -> Outputs {
    Outputs { variables: [("x".to_owned(), Some(text.to_owned()))].into(), ..Outputs::default() }
}

/// A run of three stages, of which the second one fails.
async fn failed(orchestrator: &Orchestrator, inbox: &mut Inbox, trigger: &Trigger) -> RunId {
    orchestrator.create(trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    inbox.finish(&a.lease, StageOutcome::Success, outputs("of the first run")).await;
    let b = inbox.assignment(Some(&a.lease)).await;
    inbox.finish(&b.lease, StageOutcome::Failure, Outputs::default()).await;
    assert_eq!(outcome(&*ended(orchestrator, trigger).await), Some(RunOutcome::Failure));
    trigger.run()
}

/// Asks for the run to be run again; gives the new one's trigger, of which only the id counts here.
async fn again(api: &Api, run: &RunId, body: Json) -> RunId {
    let (status, created) = api.post(&format!("/v1/runs/{run}/rerun"), &body).await;
    assert_eq!(status, 201, "{created}");
    created["run"].as_str().unwrap().parse().unwrap()
}

/// Goes along with a run: every stage succeeds; gives their ids in their order.
async fn through(orchestrator: &Orchestrator, inbox: &mut Inbox, run: &RunId, stages: usize) -> Vec<StageId> {
    let mut ran = Vec::new();
    let mut last = None;
    while ran.len() < stages {
        let next = inbox.assignment(last.as_ref()).await;
        if next.lease.attempt.run != *run {
            continue;
        }
        ran.push(next.lease.attempt.stage.clone());
        inbox.succeed(&next.lease).await;
        last = Some(next.lease);
    }
    let snapshot = orchestrator.runs.get_soon(run, crate::house::DEADLINE).await.unwrap();
    assert_eq!(snapshot.run.trigger.run(), *run);
    let ended = until(orchestrator, &snapshot.run.trigger, "its end", |run| run.ended.is_some()).await;
    assert_eq!(outcome(&ended.run), Some(RunOutcome::Success));
    ran
}

fn ids(paths: &[&str]) -> Vec<StageId> {
    paths.iter().map(|path| StageId::of(path)).collect()
}

#[tokio::test]
async fn all_the_failed_or_one_stage_run_again_and_the_rest_keeps_what_it_left() {
    let house = House::new(chain(&["a", "b", "c"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let old = failed(&orchestrator, &mut inbox, &trigger("1")).await;

    let all = again(&api, &old, json!({})).await;
    assert_eq!(through(&orchestrator, &mut inbox, &all, 3).await, ids(&["a", "b", "c"]));

    let rest = again(&api, &old, json!({ "stages": { "kind": "failed" } })).await;
    assert_eq!(through(&orchestrator, &mut inbox, &rest, 2).await, ids(&["b", "c"]));
    let run = orchestrator.runs.get(&rest).unwrap().run;
    assert_eq!((run.stages[0].reused_from.as_ref(), run.found(1).variables["x"].as_str()), (Some(&old), "of the first run"));
    let (_, shown) = api.get(&format!("/v1/runs/{rest}")).await;
    assert_eq!(shown["rerun_of"], json!(old));

    // Of a run that has succeeded, one stage and what waits for it.
    let one = again(&api, &rest, json!({ "stages": { "kind": "stage", "stage": "b" } })).await;
    assert_eq!(through(&orchestrator, &mut inbox, &one, 2).await, ids(&["b", "c"]));
    let run = orchestrator.runs.get(&one).unwrap().run;
    assert_eq!(run.stages[0].reused_from.as_ref(), Some(&old), "it names the run that it ran in");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn what_cannot_be_run_again_is_refused_with_its_reason() {
    let mut plan = chain(&["a", "b", "c"]);
    plan.stages[2].lock = Some("production".to_owned());
    let house = House::new(plan).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let path = |run: &RunId| format!("/v1/runs/{run}/rerun");
    let live = trigger("live");
    orchestrator.create(&live).await.unwrap();
    let a = inbox.assignment(None).await;
    assert_eq!(refusal(api.post(&path(&live.run()), &json!({})).await), (409, "run_open".to_owned()));
    inbox.finish(&a.lease, StageOutcome::Failure, Outputs::default()).await;
    ended(&orchestrator, &live).await;

    let nothing = json!({ "stages": { "kind": "stage", "stage": "nothing" } });
    assert_eq!(refusal(api.post(&path(&live.run()), &nothing).await), (409, "unknown_stage".to_owned()));
    let unknown = RunId::of(&TriggerId::of("t", "unknown"));
    assert_eq!(refusal(api.post(&path(&unknown), &json!({})).await), (404, "unknown_run".to_owned()));
    assert_eq!(refusal(api.post(&path(&live.run()), &json!({ "stages": "failed" })).await), (400, "invalid_body".to_owned()));

    let run = orchestrator.runs.get(&live.run()).unwrap().run;
    let Planned::Plan { digest, .. } = run.planned else { panic!("{:?}", run.planned) };
    house.lose(&digest);
    let (status, problem) = api.post(&path(&live.run()), &json!({})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("no_plan")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&digest.to_string()), "{problem}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn the_same_key_is_the_same_new_run() {
    let house = House::new(chain(&["a", "b", "c"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let old = failed(&orchestrator, &mut inbox, &trigger("1")).await;
    let first = orchestrator.rerun(&old, RerunStages::All, "key", None).await.unwrap();
    let second = orchestrator.rerun(&old, RerunStages::Failed, "key", None).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(through(&orchestrator, &mut inbox, &first, 3).await, ids(&["a", "b", "c"]), "the first request counts");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_run_whose_old_one_cannot_be_read_any_more_ends_with_the_reason() {
    let house = House::new(chain(&["a", "b", "c"])).await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let old = failed(&first, &mut inbox, &trigger("1")).await;
    let run = first.runs.get(&old).unwrap().run;
    supervisor.shut_down().await;
    let Planned::Plan { digest, .. } = run.planned else { panic!("{:?}", run.planned) };
    house.lose(&digest);
    let rerun =
        Trigger { id: TriggerId::of("rerun", "1"), rerun: Some(Rerun { of: old.clone(), stages: RerunStages::All }), ..trigger("1") };
    house.bus.store_trigger(&rerun).await.unwrap();
    let (second, supervisor) = house.start().await;
    let run = ended(&second, &rerun).await;
    let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
    assert_eq!((outcome(&run), diagnostics[0].code.as_str()), (Some(RunOutcome::Failure), "E0906"));
    supervisor.shut_down().await;
}
