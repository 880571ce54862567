//! Agents, the audit, how often may be asked, and the pages of the document.

use std::ffi::OsStr;

use apispec::{ActionView, AgentList, AnswerView, AuditList, CancelReasonView, Presence};
use model::{
    event::run::{Answer, CancelReason, Question, WaitKey},
    plan::{StageKind, Value, Wait},
    protocol::agent::{AgentStatus, Lease},
};

use super::*;

fn heard(served: &Served, name: &str, leases: Vec<Lease>) {
    let agent: AgentName = name.parse().unwrap();
    let facts = [("cores".to_owned(), Value::Integer(8))].into();
    let status = AgentStatus { agent: agent.clone(), slots: 2, slots_free: 1, price_micros_per_s: 7, facts, leases, number: 1 };
    served.orchestrator.runs.agents().remember(&agent, status);
}

#[tokio::test]
async fn agents_are_shown_with_what_they_run_of_the_tokens_projects() {
    let served = super::rights::with_tokens();
    let run = served.begin("1", &["Build"], 1);
    let attempt = AttemptId { run: run.id.clone(), stage: StageId::of("Build"), attempt: 1 };
    heard(&served, "one", vec![Lease { attempt, fence: 2 }]);
    heard(&served, "two", Vec::new());
    let first: AgentList = served.read("/v1/agents?limit=1").await;
    let [one] = first.agents.as_slice() else { panic!("{first:?}") };
    assert_eq!((one.name.as_str(), one.presence, one.slots, one.slots_free), ("one", Presence::Present, 2, 1));
    assert_eq!((one.facts["cores"].clone(), one.price_micros_per_s), (json!(8), 7));
    assert_eq!((&one.stages[0].run, one.stages[0].stage.path.as_str(), one.stages[0].attempt), (&run.id, "Build", 1));
    let second: AgentList = served.read(&format!("/v1/agents?cursor={}", first.cursor.unwrap())).await;
    assert_eq!((second.agents.len(), second.agents[0].name.as_str(), second.cursor), (1, "two", None));
    let strangers = served.client.get(format!("{}/v1/agents", served.base)).bearer_auth(super::rights::STRANGER);
    let list: AgentList = strangers.send().await.unwrap().json().await.unwrap();
    assert_eq!((list.agents.len(), list.agents[0].stages.len()), (2, 0));
    for query in ["limit=0", "limit=1001", "cursor=NO!", "x=1"] {
        check_problem(served.get(&format!("/v1/agents?{query}")).await, Code::InvalidQuery).await;
    }
}

#[tokio::test]
async fn the_audit_says_who_did_what_to_the_runs_of_the_tokens_projects() {
    let served = super::rights::with_tokens();
    let stage = StageId::of("Ship");
    let prompt = Wait::Prompt { message: Value::from("Which?"), into: "which".to_owned(), options: vec![], by: vec![], timeout_ms: None };
    let plan = Plan::new(vec![Stage { kind: StageKind::Wait(prompt), ..Stage::new("Ship") }]);
    let question = Question::Prompt { message: "Which?".to_owned(), into: "which".to_owned(), options: vec![], by: vec![] };
    let opened = RunEvent::WaitOpened { stage: stage.clone(), wait: WaitKey::Itself, question, due_at: None };
    let text = Answer::Text { text: "that".to_owned() };
    let answered = RunEvent::WaitAnswered { stage, wait: WaitKey::Itself, answer: text, by: Some("ann".to_owned()) };
    let mut run = served.begin_plan("1", plan, 1, &[opened]);
    served.append(&mut run, 3, vec![answered]);
    served.append(&mut run, 4, vec![RunEvent::CancelRequested { by: "bob".to_owned(), reason: CancelReason::Person, force: true }]);
    let told = |list: AuditList| list.entries.into_iter().map(|entry| (entry.actor, entry.action)).collect::<Vec<_>>();
    let whole = told(served.read("/v1/audit").await);
    let cancelled = (Some("bob".to_owned()), ActionView::Cancelled { reason: CancelReasonView::Person, force: true });
    let answer = AnswerView::Text { by: Some("ann".to_owned()), text: "that".to_owned() };
    let answered = (Some("ann".to_owned()), ActionView::Answered { stage: "Ship".to_owned(), answer });
    assert_eq!(whole[..2], [cancelled.clone(), answered]);
    assert!(matches!(whole[2].1, ActionView::Started { .. }), "{whole:?}");

    let first: AuditList = served.read("/v1/audit?limit=1").await;
    let cursor = first.cursor.clone().unwrap();
    assert_eq!(told(first), [cancelled]);
    assert_eq!(told(served.read(&format!("/v1/audit?limit=1&cursor={cursor}")).await), whole[1..2]);
    assert_eq!(told(served.read("/v1/audit?actor=ann").await), whole[1..2]);
    assert_eq!(told(served.read("/v1/audit?project=other").await), []);
    assert_eq!(told(served.read(&format!("/v1/audit?run={}", run.id)).await).len(), 3);
    assert_eq!(told(served.read("/v1/audit?until=1").await), []);
    let strangers = async |query: &str| {
        let request = served.client.get(format!("{}/v1/audit{query}", served.base)).bearer_auth(super::rights::STRANGER);
        told(request.send().await.unwrap().json().await.unwrap())
    };
    assert_eq!(strangers("").await, []);
    assert_eq!(strangers(&format!("?project={}", run.trigger.project)).await, []);
    for query in ["limit=0", "cursor=x", "run=x", "since=-1"] {
        check_problem(served.get(&format!("/v1/audit?{query}")).await, Code::InvalidQuery).await;
    }
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_ask_again_and_nobody_else_is() {
    // One in a second, and five at once.
    let served = Served::start_limited(NonZeroU32::new(1), |_| ());
    let mut refused = None;
    for _ in 0..100 {
        let answer = served.get("/v1/token").await;
        if answer.status() != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a hundred requests are too many");
    let wait: u32 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait > 0);
    check_problem(refused, Code::TooManyRequests).await;
    // Whoever has no token is counted apart, also one who tries tokens.
    let wrong = async || served.client.get(format!("{}/v1/token", served.base)).bearer_auth("wrong").send().await.unwrap();
    check_problem(wrong().await, Code::Unauthorized).await;
    let mut last = wrong().await;
    for _ in 0..100 {
        if last.status() == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        last = wrong().await;
    }
    check_problem(last, Code::TooManyRequests).await;
}

#[tokio::test]
async fn the_document_has_pages_that_load_nothing_from_elsewhere() {
    let served = Served::start();
    let moved = served.client.get(format!("{}/docs", served.base)).send().await.unwrap();
    assert_eq!((moved.status(), moved.headers()["location"].to_str().unwrap()), (StatusCode::TEMPORARY_REDIRECT, "/docs/"));
    let page = served.client.get(format!("{}/docs/", served.base)).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'"));
    let text = page.text().await.unwrap();
    let is_part = |part: &&str| [Some("js"), Some("css")].contains(&Path::new(part).extension().and_then(OsStr::to_str));
    let named: Vec<&str> = text.split(['"', '\'']).filter(is_part).collect();
    assert!(named.len() > 2, "{text}");
    for name in named {
        assert!(!name.contains("://"), "{name}");
        let part = served.client.get(format!("{}/docs/{name}", served.base)).send().await.unwrap();
        assert_eq!(part.status(), StatusCode::OK, "{name}");
        let text = part.text().await.unwrap();
        assert!(!name.contains("initializer") || text.contains("/v1/openapi.json"), "{text}");
    }
}
