//! Plans over HTTP: what a run would do, and what one does, with nothing started.

use model::planning::{PlanReply, PlanRequest, Text};
use serde_json::json;

use crate::house::{House, chain, planned, refusal, refused, trigger, until};

/// A plan of the stages that the file names, one after the other; an empty file is refused.
fn reply(request: &PlanRequest) -> PlanReply {
    let Text::Inline(source) = &request.source else { panic!("it is short") };
    let names: Vec<&str> = source.split_whitespace().filter(|word| word.chars().all(char::is_alphabetic) && *word != "pipeline").collect();
    if names.is_empty() && source.is_empty() {
        return refused(request);
    }
    let not_triggered = (request.context.branch == "side").then(|| "the branch `side` is none of `main`".to_owned());
    planned(chain(if names.is_empty() { &["Build"] } else { &names }), not_triggered)
}

#[tokio::test]
async fn what_a_run_would_do_is_told_compared_and_nothing_is_started() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser_with(reply).await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);

    let (status, told) = api.post("/v1/plans", &json!({ "pipeline": "Build Test", "event": "push", "branch": "main" })).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!((&told["plan"]["kind"], &told["plan"]["stages"]), (&json!("planned"), &json!(2)));
    assert_eq!(told["document"]["stages"][1]["path"], "Test");
    let explain = told["explain"].as_str().unwrap();
    assert!(explain.contains("Build") && explain.contains("main"), "{explain}");
    assert!(told["diff"].is_null());

    let (status, told) = api.post("/v1/plans", &json!({ "pipeline": "" })).await;
    assert_eq!((status, &told["plan"]["kind"], &told["plan"]["diagnostics"][0]["code"]), (200, &json!("refused"), &json!("E0201")));
    assert!(told["document"].is_null() && told["explain"].is_null());
    let (_, told) = api.post("/v1/plans", &json!({ "pipeline": "Build", "branch": "side" })).await;
    assert_eq!(told["plan"]["kind"], "not_triggered");
    assert!(orchestrator.runs.list(None, 9, |_| true).is_empty(), "nothing is started");

    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the run", |_| true).await;
    let (status, of_run) = api.get(&format!("/v1/runs/{}/plan", trigger.run())).await;
    assert_eq!((status, &of_run["document"]["stages"][0]["path"]), (200, &json!("Build")));
    let (_, told) = api.post("/v1/plans", &json!({ "pipeline": "Build Test", "compare_with": trigger.run() })).await;
    assert!(told["diff"].as_str().unwrap().contains("Test"), "{told}");
    let (_, told) = api.post("/v1/plans", &json!({ "pipeline": "Build", "compare_with": trigger.run() })).await;
    assert_eq!(told["plan"]["digest"], of_run["plan"]["digest"]);
    assert!(told["diff"].as_str().unwrap().contains("no difference"), "{told}");

    let nobody = format!("run_{}", "0".repeat(24));
    assert_eq!(refusal(api.post("/v1/plans", &json!({ "pipeline": "", "compare_with": nobody })).await), (404, "unknown_run".to_owned()));
    for wrong in [json!({}), json!({ "pipeline": "", "event": "x" }), json!({ "pipeline": "", "tag": "a\nb" })] {
        assert_eq!(refusal(api.post("/v1/plans", &wrong).await), (400, "invalid_body".to_owned()), "{wrong}");
    }
    supervisor.shut_down().await;
}
