//! Prompts, and what people answer over the HTTP API.

use model::{
    RunOutcome, StageId,
    event::run::{Answer, RunEvent},
    plan::{Plan, Value, Wait},
};
use serde_json::{Value as Json, json};

use crate::house::{House, after, chain, ended, is_asked, outcome, refusal, trigger, until, waiting};

fn prompt(options: &[&str], timeout_ms: Option<u64>) -> Wait {
    let options = options.iter().map(ToString::to_string).collect();
    Wait::Prompt { message: Value::from("Which?"), into: "color".to_owned(), options, by: vec!["ops".to_owned()], timeout_ms }
}

fn text(text: &str) -> Json {
    json!({ "answer": { "kind": "text", "text": text } })
}

/// The same answer, to this wait.
fn to(stage: &str, wait: &str, mut answer: Json) -> Json {
    answer["stage"] = json!(stage);
    answer["wait"] = json!(wait);
    answer
}

#[tokio::test]
async fn a_prompt_takes_one_text_of_those_that_are_allowed_and_later_stages_find_it() {
    let mut plan = Plan::new(vec![waiting("Ask", prompt(&["red", "blue"], None)), after(waiting("Other", prompt(&[], None)), "Ask")]);
    plan.stages.push(after(chain(&["Paint"]).stages.remove(0), "Other"));
    let house = House::new(plan).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Ask")).await;
    let (_, waits) = api.get("/v1/waits").await;
    assert_eq!(waits["waits"][0]["question"]["options"], json!(["red", "blue"]), "{waits}");

    let path = format!("/v1/runs/{}/answer", trigger.run());
    let approve = json!({ "answer": { "kind": "approve", "delivery": model::Digest::of(b"") } });
    let resume = json!({ "answer": { "kind": "resume" } });
    let cases = [
        ("no stage waits for an approval", approve.clone(), (409, "no_such_wait")),
        ("it is no approval that is asked for", to("Ask", "itself", approve), (409, "wrong_answer")),
        ("it is not paused", to("Ask", "itself", resume), (409, "wrong_answer")),
        ("not one of the texts", text("green"), (409, "wrong_answer")),
        ("not even by case", text("Red"), (409, "wrong_answer")),
        ("no such stage", to("Nothing", "itself", text("red")), (409, "unknown_stage")),
        ("no such gate", to("Ask", "enter:0", text("red")), (409, "no_such_wait")),
        ("no such gate by far", to("Ask", "exit:4294967295", text("red")), (409, "no_such_wait")),
        ("no name of a wait", to("Ask", "exit:-1", text("red")), (400, "invalid_body")),
        ("not a text", json!({ "answer": { "kind": "text", "text": 7 } }), (400, "invalid_body")),
        ("not asked yet", to("Other", "itself", text("red")), (409, "no_such_wait")),
    ];
    for (what, answer, (status, code)) in cases {
        assert_eq!(refusal(api.post(&path, &answer).await), (status, code.to_owned()), "{what}");
    }
    assert!(is_asked(&orchestrator.runs.get(&trigger.run()).unwrap().run, "Ask"), "it is open still");
    assert_eq!(api.post(&path, &text("blue")).await.0, 200);
    let twice = refusal(api.post(&path, &to("Ask", "itself", text("red"))).await);
    assert_eq!(twice, (409, "wrong_answer".to_owned()));
    assert_eq!(api.post(&path, &to("Ask", "itself", text("blue"))).await.0, 200, "the word that it was taken may have been lost");

    until(&orchestrator, &trigger, "the other question", |run| is_asked(run, "Other")).await;
    let long = refusal(api.post(&path, &text(&"x".repeat(64 * 1024 + 1))).await);
    assert_eq!(long, (409, "wrong_answer".to_owned()));
    assert_eq!(api.post(&path, &text("line\nfeeds and \u{1b}[2J")).await.0, 200);
    let paint = inbox.assignment(None).await;
    assert_eq!(paint.variables["color"], "line\nfeeds and \u{1b}[2J", "the later answer counts, as it was given");
    inbox.succeed(&paint.lease).await;
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn two_answers_at_once_are_one_and_the_other_is_told() {
    let house = House::new(Plan::new(vec![waiting("Ask", prompt(&[], None))])).await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Ask")).await;
    let path = format!("/v1/runs/{}/answer", trigger.run());
    let (red, blue) = (to("Ask", "itself", text("red")), to("Ask", "itself", text("blue")));
    let (one, other) = tokio::join!(api.post(&path, &red), api.post(&path, &blue));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let run = ended(&orchestrator, &trigger).await;
    let events = orchestrator.runs.get(&run.id).unwrap().records;
    let answers = events.iter().flat_map(|record| &record.record.events).filter(|event| matches!(event, RunEvent::WaitAnswered { .. }));
    assert_eq!(answers.count(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn nobody_answers_in_time_and_who_comes_later_is_told_so() {
    let plan = Plan::new(vec![waiting("Ask", prompt(&[], Some(300))), waiting("Hold", Wait::Pause)]);
    let house = House::new(plan).await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let is_over = |run: &orchestrator::core::Run| run.stage(&StageId::of("Ask")).is_some_and(|(_, stage)| stage.is_over());
    let snapshot = until(&orchestrator, &trigger, "the end of its time", is_over).await;
    let (_, stage) = snapshot.run.stage(&StageId::of("Ask")).unwrap();
    assert_eq!(stage.reason.as_deref(), Some("nobody answered in time"));
    let path = format!("/v1/runs/{}/answer", trigger.run());
    let late = refusal(api.post(&path, &to("Ask", "itself", text("red"))).await);
    assert_eq!(late, (409, "wrong_answer".to_owned()));
    assert_eq!(refusal(api.post(&path, &text("red")).await), (409, "no_such_wait".to_owned()));
    orchestrator.answer(&trigger.run(), &StageId::of("Hold"), model::event::run::WaitKey::Itself, Answer::Resumed, None).await.unwrap();
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Failure));
    supervisor.shut_down().await;
}
