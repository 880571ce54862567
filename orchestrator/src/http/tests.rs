//! The API as a client sees it: a real server on a free port, over runs whose records are given to it.

mod artifacts;
mod bodies;
mod delivered;
mod everything;
mod rights;
mod sources;
mod told;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use apispec::{Base64, ChunkView, Code, EventView, GapReason, Problem, RunCreate, RunCreated, RunDetail, RunList, RunStatus, StageStatus};
use blob::{Blobs, DiskStore, Durability};
use bytes::Bytes;
use futures_util::StreamExt as _;
use model::{
    AgentName, AttemptId, AuctionId, Digest, RunId, RunOutcome, StageId, StageOutcome, Timestamp, TriggerId,
    context::TriggerContext,
    event::run::{CancelReason, LogSegment, Outputs, Planned, RECORD_SCHEMA, RunEvent, RunRecord, SkipReason, StoredLog},
    plan::{Need, NeedReason, Plan, PlanDocument, Stage},
    planning::{INLINE_BYTES_MAX, Text},
    protocol::{
        agent::Lease,
        log::{LogChunk, LogHeader, LogMark, Stream},
    },
    trigger::Trigger,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::json;
use service::{Supervisor, clock, supervisor::Ended};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    callbacks::CallbackKey,
    core::{Position, Run, Shape},
    engine::{
        log::{Tail, encode},
        plans::Plans,
    },
    handle::Orchestrator,
    logs::LogHub,
    runs::{Appended, Runs},
};

const TOKEN: &str = "a token for tests";
/// More than anything here takes; a test that waits longer fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server with no engine behind it: tests append what the engine would.
struct Served {
    orchestrator: Orchestrator,
    supervisor: Supervisor,
    client: Client,
    base: String,
    folder: TempDir,
}

impl Served {
    fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// Starts in a folder in which `prepare` has put what it wants.
    fn start_with(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_limited(None, prepare)
    }

    /// The same, with so many requests a second.
    fn start_limited(requests_per_s: Option<NonZeroU32>, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let (commands, _nobody) = mpsc::channel(1);
        let bus = eventbus::memory::bus();
        let orchestrator = Orchestrator {
            runs: Runs::default(),
            logs: LogHub::default(),
            plans: Plans::new(bus.clone(), blobs.clone()),
            protections: crate::engine::Protections::default(),
            blobs,
            bus,
            commands,
            callback_key: Some(CallbackKey::generate().unwrap()),
            hints: Arc::default(),
            admission: crate::admission::Admission::default(),
        };
        let supervisor = Supervisor::new();
        let tokens = Tokens::open(folder.path().join("tokens.yml")).unwrap();
        let options = HttpOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            token: ApiToken::new(TOKEN),
            tokens,
            projects: projects(),
            requests_per_s,
            hosts: Vec::new(),
            origins: Vec::new(),
        };
        let address = serve(options, orchestrator.clone(), &supervisor).unwrap();
        let client = service::web::client("").timeout(DEADLINE).build().unwrap();
        Self { orchestrator, supervisor, client, base: format!("http://{address}"), folder }
    }

    /// The file of the tokens.
    fn tokens_file(&self) -> PathBuf {
        self.folder.path().join("tokens.yml")
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(TOKEN)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    /// Appends a record to the run, as the engine does.
    fn append(&self, run: &mut Run, sequence: u64, events: Vec<RunEvent>) {
        let at = Timestamp(clock::unix_ms());
        for event in &events {
            run.apply(Position { sequence, at }, event).unwrap();
        }
        let record = RunRecord { schema: RECORD_SCHEMA, previous: None, actor: "test".to_owned(), at, events };
        self.orchestrator.runs.publish(run, Appended { run: run.id.clone(), sequence, record }, true);
    }

    /// A run of the stages `paths`, one after the other, whose first stage is ready.
    fn begin(&self, delivery: &str, paths: &[&str], sequence: u64) -> Run {
        let ready = RunEvent::StageReady { stage: StageId::of(paths[0]), attempt: 1 };
        self.begin_plan(delivery, plan(paths), sequence, &[ready])
    }

    /// A run of this plan, in whose first record this follows.
    fn begin_plan(&self, delivery: &str, plan: Plan, sequence: u64, then: &[RunEvent]) -> Run {
        let trigger = trigger(delivery);
        let document = PlanDocument::new(plan);
        let planned = Planned::plan(document.digest());
        let shape = Arc::new(Shape::new(document.plan().clone()));
        let at = Timestamp(clock::unix_ms());
        let mut run = Run::accepted(trigger.run(), trigger.clone(), planned.clone(), shape, Position { sequence, at });
        for event in then {
            run.apply(Position { sequence, at }, event).unwrap();
        }
        let events = [&[RunEvent::RunAccepted { trigger, planned }], then].concat();
        let record = RunRecord { schema: RECORD_SCHEMA, previous: None, actor: "test".to_owned(), at, events };
        self.orchestrator.runs.publish(&run, Appended { run: run.id.clone(), sequence, record }, true);
        run
    }

    /// Stores output whose chunks are `parts`.
    async fn store(&self, parts: &[&str]) -> StoredLog {
        let mut offset = 0;
        let mut index = String::new();
        for part in parts {
            index.push_str(&serde_json::to_string(&mark(offset, part)).unwrap());
            index.push('\n');
            offset += part.len() as u64;
        }
        let put = |text: String| self.orchestrator.blobs.put(Bytes::from(text));
        StoredLog::whole(put(parts.concat()).await.unwrap(), offset, put(index).await.unwrap())
    }
}

/// The configured projects: that of the runs, and another one.
fn projects() -> Projects {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, title: &str| {
        let text = format!(
            "title: {title}\ndescription: What is sold.\nsource: {{ url: 'https://git.example/{name}' }}\nprotection:\n  \
             environments: {{ production: {{ from: {{ tags: ['v*'] }}, approvers: [ann] }} }}\n"
        );
        std::fs::write(folder.path().join(format!("{name}.yml")), text).unwrap();
    };
    file(crate::core::tests::trigger().project.as_str(), "The shop");
    file("other", "Another one");
    Projects::of(config::load(folder.path()).unwrap())
}

fn trigger(delivery: &str) -> Trigger {
    let context = TriggerContext { branch: "main".to_owned(), ..TriggerContext::default() };
    Trigger { id: TriggerId::of("api", delivery), context, ..crate::core::tests::trigger() }
}

fn plan(paths: &[&str]) -> Plan {
    let stage = |at: usize| Stage {
        needs: at.checked_sub(1).map(|before| Need { stage: StageId::of(paths[before]), reason: NeedReason::Order }).into_iter().collect(),
        timeout_ms: 1_000,
        ..Stage::new(paths[at])
    };
    Plan::new((0..paths.len()).map(stage).collect())
}

fn agent() -> AgentName {
    "a1".parse().unwrap()
}

fn lease(run: &Run, path: &str, fence: u64) -> Lease {
    Lease { attempt: AttemptId { run: run.id.clone(), stage: StageId::of(path), attempt: 1 }, fence }
}

fn mark(offset: u64, text: &str) -> LogMark {
    LogMark { offset, length: u32::try_from(text.len()).unwrap(), step: 0, stream: Stream::Out, at: Timestamp(5), lines_before: 0 }
}

fn chunk(run: &Run, path: &str, fence: u64, offset: u64, text: &str) -> LogChunk {
    LogChunk {
        header: LogHeader { lease: lease(run, path, fence), mark: mark(offset, text), segments: Vec::new() },
        bytes: text.as_bytes().to_vec(),
    }
}

fn awarded(path: &str) -> RunEvent {
    let attempt = AttemptId { run: RunId::of(&TriggerId::of("any", "auction")), stage: StageId::of(path), attempt: 1 };
    RunEvent::StageAwarded { stage: StageId::of(path), attempt: 1, agent: agent(), auction: AuctionId::of(&attempt, 1), offers: Vec::new() }
}

fn finished(path: &str) -> RunEvent {
    RunEvent::StageFinished {
        stage: StageId::of(path),
        attempt: 1,
        outcome: StageOutcome::Success,
        reason: None,
        started_at: Some(Timestamp(7)),
        finished_at: Timestamp(9),
        outputs: Outputs::default(),
    }
}

fn stored(path: &str, log: StoredLog) -> RunEvent {
    RunEvent::StageLogStored { stage: StageId::of(path), attempt: 1, log }
}

const END: RunEvent = RunEvent::RunFinished { outcome: RunOutcome::Success };

async fn check_problem(response: Response, code: Code) -> Problem {
    let status = response.status();
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    let problem: Problem = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!((problem.code, status.as_u16(), media.as_str()), (code, code.status(), "application/problem+json"), "{problem:?}");
    problem
}

/// Server-sent events as they arrive.
struct Followed {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<Bytes>>,
    text: String,
}

impl Followed {
    async fn of(served: &Served, path: &str) -> Self {
        Self::new(served.get(path).await)
    }

    fn new(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK, "{}", response.url());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.bytes_stream().boxed(), text: String::new() }
    }

    /// The name and the data of the next message; `None` at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        let message = self.message().await?;
        let field = |name: &str| message.lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
        Some((field("event: ").unwrap(), field("data: ").unwrap()))
    }

    /// The next message as it comes.
    async fn message(&mut self) -> Option<String> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let message = message.to_owned();
                self.text = rest.to_owned();
                return Some(message);
            }
            let bytes = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// A short form of the next message.
    async fn short(&mut self) -> String {
        match self.next().await {
            None => "closed".to_owned(),
            Some((name, data)) => match name.as_str() {
                "event" => serde_json::from_str::<EventView>(&data).unwrap().event.kind().to_owned(),
                "chunk" => {
                    let ChunkView { path, offset, bytes: Base64(bytes), .. } = serde_json::from_str(&data).unwrap();
                    format!("{path} {offset} {}", String::from_utf8(bytes).unwrap())
                }
                "gap" => {
                    let gap: apispec::GapView = serde_json::from_str(&data).unwrap();
                    format!("{} gap {}..{:?} {:?}", gap.path, gap.from, gap.to, gap.reason)
                }
                _ => name,
            },
        }
    }
}

#[tokio::test]
async fn nobody_is_served_without_the_token_or_under_another_name() {
    let served = Served::start();
    let url = |path: &str| format!("{}{path}", served.base);
    for path in [
        "/v1/runs",
        "/v1/runs/x",
        "/v1/runs/x/events",
        "/v1/runs/x/events/follow",
        "/v1/runs/x/log",
        "/v1/runs/x/log/follow",
        "/v1/runs/x/output?stage=x",
    ] {
        let bare = served.client.get(url(path)).send().await.unwrap();
        assert_eq!(bare.headers()["www-authenticate"], "Bearer");
        check_problem(bare, Code::Unauthorized).await;
        check_problem(served.client.get(url(path)).bearer_auth("wrong").send().await.unwrap(), Code::Unauthorized).await;
    }
    for path in ["/v1/runs", "/v1/runs/x/cancel"] {
        check_problem(served.client.post(url(path)).json(&json!({})).send().await.unwrap(), Code::Unauthorized).await;
    }
    for path in ["/health", "/v1/openapi.json", "/v1/runs"] {
        let request = |name, value| served.request(Method::GET, path).header(name, value).send();
        check_problem(request("host", "evil.test").await.unwrap(), Code::ForeignHost).await;
        check_problem(request("origin", "https://evil.test").await.unwrap(), Code::OriginRefused).await;
    }
    for path in ["/health", "/v1/openapi.json"] {
        assert_eq!(served.client.get(url(path)).send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let served = Served::start();
    let post = |body: String| served.request(Method::POST, "/v1/runs").header("content-type", "application/json").body(body).send();
    check_problem(post("{".to_owned()).await.unwrap(), Code::InvalidBody).await;
    check_problem(post(r#"{"pipelin": ""}"#.to_owned()).await.unwrap(), Code::InvalidBody).await;
    check_problem(post(r#"{"pipeline": "", "branch": "a\nb"}"#.to_owned()).await.unwrap(), Code::InvalidBody).await;
    check_problem(post(json!({ "pipeline": "a".repeat(BODY_BYTES_MAX) }).to_string()).await.unwrap(), Code::BodyTooLarge).await;
    let missing = Digest::of(b"nobody stored this");
    check_problem(post(json!({ "pipeline": "", "source": missing }).to_string()).await.unwrap(), Code::UnknownSource).await;
    check_problem(served.request(Method::POST, "/v1/runs").body("{}").send().await.unwrap(), Code::UnsupportedMediaType).await;

    let wrong_method = served.request(Method::DELETE, "/v1/runs").send().await.unwrap();
    assert_eq!(wrong_method.headers()["allow"], "GET, POST");
    check_problem(wrong_method, Code::MethodNotAllowed).await;
    for path in ["/", "/v1/nothing", "/v1/runs/x/y"] {
        check_problem(served.get(path).await, Code::UnknownPath).await;
    }
    for path in ["/v1/runs?limit=0", "/v1/runs?limit=x", "/v1/runs?nothing=1", "/v1/runs?cursor=x"] {
        check_problem(served.get(path).await, Code::InvalidQuery).await;
    }
    let unknown = RunId::of(&TriggerId::of("t", "unknown"));
    for path in ["/v1/runs/x".to_owned(), format!("/v1/runs/{unknown}"), format!("/v1/runs/{unknown}/log/follow")] {
        check_problem(served.get(&path).await, Code::UnknownRun).await;
    }
    let run = served.begin("one", &["Build"], 1);
    check_problem(served.get(&format!("/v1/runs/{}/log?stage=Nothing", run.id)).await, Code::UnknownStage).await;
    let follow = served.request(Method::GET, &format!("/v1/runs/{}/events/follow", run.id)).header("last-event-id", "x");
    check_problem(follow.send().await.unwrap(), Code::InvalidHeader).await;
}

#[tokio::test]
async fn a_run_is_stored_before_it_is_answered_and_the_same_key_is_the_same_run() {
    let served = Served::start();
    let mut triggers = served.orchestrator.bus.triggers().await.unwrap();
    let long = "a".repeat(INLINE_BYTES_MAX + 1);
    let create = |pipeline: &str, key: Option<&str>| {
        let body: RunCreate = serde_json::from_value(json!({ "pipeline": pipeline, "branch": "main" })).unwrap();
        let request = served.request(Method::POST, "/v1/runs").json(&body);
        key.map_or_else(|| request.try_clone().unwrap(), |key| request.try_clone().unwrap().header("Idempotency-Key", key)).send()
    };
    let first = create("pipeline {}", Some("k")).await.unwrap();
    assert_eq!(first.status(), StatusCode::CREATED);
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let RunCreated { run } = serde_json::from_str(&first.text().await.unwrap()).unwrap();
    assert_eq!(location, format!("/v1/runs/{run}"));
    assert_eq!(run, RunId::of(&TriggerId::of("api", "k")));
    let again: RunCreated = create("pipeline {}", Some("k")).await.unwrap().json().await.unwrap();
    let other: RunCreated = create(&long, None).await.unwrap().json().await.unwrap();
    assert_eq!(again.run, run);
    assert_ne!(other.run, run);

    let delivered = triggers.next().await.unwrap();
    assert_eq!(delivered.trigger.as_ref().unwrap().pipeline, Text::Inline("pipeline {}".to_owned()));
    let delivered = triggers.next().await.unwrap();
    let Text::Depot(digest) = &delivered.trigger.as_ref().unwrap().pipeline else { panic!("a long pipeline lies in the depot") };
    assert_eq!(served.orchestrator.blobs.get(digest).await.unwrap(), long.as_bytes());
}

#[tokio::test]
async fn runs_are_listed_newest_first_page_by_page() {
    let served = Served::start();
    let runs: Vec<RunId> = (1..=5u64).map(|sequence| served.begin(&sequence.to_string(), &["Build"], sequence).id).collect();
    let first: RunList = served.read("/v1/runs?limit=2").await;
    let second: RunList = served.read(&format!("/v1/runs?limit=2&cursor={}", first.cursor.clone().unwrap())).await;
    let last: RunList = served.read(&format!("/v1/runs?limit=2&cursor={}", second.cursor.clone().unwrap())).await;
    let listed: Vec<RunId> = [first, second, last.clone()].into_iter().flat_map(|page| page.runs).map(|run| run.id).collect();
    assert_eq!(listed, runs.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(last.cursor, None);
}

#[tokio::test]
async fn a_run_shows_where_each_stage_stands() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build", "Test"], 1);
    served.orchestrator.runs.set_unplaced(&run.id, &StageId::of("Build"), Some(Vec::new()));
    let path = format!("/v1/runs/{}", run.id);
    let shown: RunDetail = served.read(&path).await;
    assert_eq!(shown.run.status, RunStatus::Running);
    assert!(matches!(&shown.stages[0].status, StageStatus::Ready { attempt: 1, unplaced: Some(none), .. } if none.is_empty()));
    assert!(matches!(&shown.stages[1].status, StageStatus::Waiting { on } if on[0].path == "Build"));

    served.append(&mut run, 2, vec![awarded("Build")]);
    let declined = RunEvent::StageDeclined { stage: StageId::of("Build"), attempt: 1, agent: agent(), reason: "full".to_owned() };
    served.append(&mut run, 3, vec![declined, awarded("Build")]);
    let shown: RunDetail = served.read(&path).await;
    assert!(matches!(&shown.stages[0].status, StageStatus::Awarded { agent, .. } if agent.as_str() == "a1"));
    assert_eq!(shown.stages[0].attempts.len(), 2);

    let failed = RunEvent::StageFinished {
        stage: StageId::of("Build"),
        attempt: 1,
        outcome: StageOutcome::Failure,
        reason: Some("exit code 1".to_owned()),
        started_at: Some(Timestamp(7)),
        finished_at: Timestamp(9),
        outputs: Outputs::default(),
    };
    let skipped = RunEvent::StageSkipped { stage: StageId::of("Test"), reason: SkipReason::NeedFailed { stage: StageId::of("Build") } };
    served.append(&mut run, 4, vec![failed, skipped, RunEvent::RunFinished { outcome: RunOutcome::Failure }]);
    let shown: RunDetail = served.read(&path).await;
    assert!(matches!(shown.run.status, RunStatus::Ended { outcome: RunOutcome::Failure, .. }));
    assert!(matches!(&shown.stages[0].status, StageStatus::Ended { reason: Some(reason), .. } if reason == "exit code 1"));
    assert!(matches!(&shown.stages[1].status, StageStatus::Skipped { .. }));
    check_problem(served.get(&format!("{path}/cancel")).await, Code::MethodNotAllowed).await;
}

#[tokio::test]
async fn events_are_followed_once_each_and_after_the_last_that_is_known() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    let path = format!("/v1/runs/{}/events", run.id);
    let mut followed = Followed::of(&served, &format!("{path}/follow")).await;
    assert_eq!(followed.short().await, "run_accepted");
    assert_eq!(followed.short().await, "stage_ready");
    served.append(&mut run, 4, vec![awarded("Build")]);
    assert_eq!(followed.short().await, "stage_awarded");
    served.begin("another", &["Build"], 5);
    served.append(&mut run, 9, vec![finished("Build"), END]);
    assert_eq!(followed.short().await, "stage_finished");
    assert_eq!(followed.short().await, "run_finished");
    assert_eq!(followed.short().await, "end");
    assert_eq!(followed.short().await, "closed");

    let listed: Vec<EventView> = served.read(&path).await;
    assert_eq!(listed.iter().map(EventView::id).collect::<Vec<_>>(), ["1.0", "1.1", "4.0", "9.0", "9.1"]);
    let again = served.request(Method::GET, &format!("{path}/follow")).header("Last-Event-ID", "9.0").send().await.unwrap();
    assert!(again.text().await.unwrap().starts_with("event: event\nid: 9.1\n"));
}

#[tokio::test]
async fn output_comes_at_once_in_order_and_never_twice() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    served.append(&mut run, 2, vec![awarded("Build")]);
    let hub = &served.orchestrator.logs;
    hub.take(chunk(&run, "Build", 2, 0, "ab"));
    let mut followed = Followed::of(&served, &format!("/v1/runs/{}/log/follow", run.id)).await;
    assert_eq!(followed.short().await, "Build 0 ab");
    hub.take(chunk(&run, "Build", 2, 0, "ab"));
    hub.take(chunk(&run, "Build", 2, 1, "bc"));
    assert_eq!(followed.short().await, "Build 2 c");
    hub.take(chunk(&run, "Build", 2, 5, "f"));
    let hole = "abc\n[otto: 2 bytes of output are missing here: not kept]\nf";
    assert_eq!(served.text(&format!("/v1/runs/{}/log?stage=Build", run.id)).await, hole, "who does not follow does not wait");
    let part = served.store(&["abc", "de"]).await.segments;
    let mut word = chunk(&run, "Build", 2, 5, "");
    word.header.segments = part;
    hub.take(word);
    assert_eq!(followed.short().await, "Build 3 de", "what did not come live is fetched from the depot");
    assert_eq!(followed.short().await, "Build 5 f");

    served.append(&mut run, 3, vec![finished("Build"), END]);
    let log = served.store(&["abc", "de", "fg", "h"]).await;
    served.append(&mut run, 4, vec![stored("Build", log)]);
    assert_eq!(followed.short().await, "Build 6 g");
    assert_eq!(followed.short().await, "Build 7 h");
    assert_eq!(followed.short().await, "end");
    assert_eq!(followed.short().await, "closed");
}

#[tokio::test]
async fn stored_output_is_given_in_the_order_of_the_plan_and_its_absence_is_marked() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build", "Test", "Deploy/Production"], 1);
    let ready = |path: &str| RunEvent::StageReady { stage: StageId::of(path), attempt: 1 };
    let log = served.store(&["built\n", "without a line end"]).await;
    let gone = StoredLog::whole(Digest::of(b"never stored"), 12, Digest::of(b"no index"));
    served.append(&mut run, 2, vec![awarded("Build")]);
    served.append(&mut run, 3, vec![finished("Build"), ready("Test"), awarded("Test"), stored("Build", log)]);
    served.append(&mut run, 4, vec![finished("Test"), stored("Test", gone), ready("Deploy/Production"), awarded("Deploy/Production")]);
    served.append(&mut run, 5, vec![finished("Deploy/Production"), stored("Deploy/Production", served.store(&["shipped\n"]).await), END]);

    let path = format!("/v1/runs/{}/log", run.id);
    let text = "==> Build (attempt 1) <==\nbuilt\nwithout a line end\n==> Test (attempt 1) <==\n\
                [otto: 12 bytes of output are missing here: the depot does not give it now]\n\
                ==> Deploy/Production (attempt 1) <==\nshipped\n";
    assert_eq!(served.text(&path).await, text);
    for stage in ["Deploy/Production".to_owned(), "Production".to_owned(), StageId::of("Deploy/Production").to_string()] {
        assert_eq!(served.text(&format!("{path}?stage={stage}")).await, "shipped\n");
    }
    let mut followed = Followed::of(&served, &format!("{path}/follow?stage=Test")).await;
    assert_eq!(followed.short().await, format!("Test gap 0..Some(12) {:?}", GapReason::DepotUnavailable));
    assert_eq!(followed.short().await, "end");
}

/// An output of these parts, of which only those in `kept` lie in the depot. Each second one is one blob with its index.
async fn in_parts(served: &Served, parts: &[&str], kept: &[usize]) -> StoredLog {
    let (mut segments, mut offset, mut lines_before) = (Vec::new(), 0, 0);
    for (at, part) in parts.iter().enumerate() {
        let length = part.len() as u64;
        let put = |text: String| served.orchestrator.blobs.put(Bytes::from(text));
        let its_index = serde_json::to_string(&mark(offset, part)).unwrap();
        let is_one_blob = at % 2 == 1;
        let content = if is_one_blob { format!("{part}{its_index}") } else { (*part).to_owned() };
        let bytes = if kept.contains(&at) { put(content).await.unwrap() } else { Digest::of(content.as_bytes()) };
        let index = if is_one_blob { bytes } else { put(its_index).await.unwrap() };
        segments.push(LogSegment { bytes, length, offset, lines_before, index });
        offset += length;
        lines_before += part.matches('\n').count() as u64;
    }
    StoredLog { segments, length: offset }
}

#[tokio::test]
async fn the_end_of_an_output_that_is_still_being_stored_is_waited_for() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    served.append(&mut run, 2, vec![awarded("Build")]);
    served.orchestrator.logs.take(chunk(&run, "Build", 2, 0, "1\n"));
    let RunEvent::StageFinished { stage, attempt, outcome, reason, started_at, outputs, .. } = finished("Build") else { unreachable!() };
    let finished_at = Timestamp(clock::unix_ms());
    let just_now = RunEvent::StageFinished { stage, attempt, outcome, reason, started_at, finished_at, outputs };
    served.append(&mut run, 3, vec![just_now]);
    let path = format!("/v1/runs/{}/output?stage=Build", run.id);
    let mut asked = std::pin::pin!(served.text(&path));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut asked).await;
    assert!(early.is_err(), "half of it is not the output: {early:?}");
    let log = in_parts(&served, &["1\n", "2\n"], &[0, 1]).await;
    served.append(&mut run, 4, vec![stored("Build", log), END]);
    assert_eq!(asked.await, "1\n2\n");
}

#[tokio::test]
async fn a_part_of_an_output_is_given_by_bytes_by_lines_and_from_its_end() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    served.append(&mut run, 2, vec![awarded("Build")]);
    let path = format!("/v1/runs/{}/output?stage=Build", run.id);
    served.orchestrator.logs.take(chunk(&run, "Build", 2, 0, "1\n2"));
    assert_eq!(served.text(&format!("{path}&range=lines%3D2-")).await, "2", "of a running attempt, what there is");

    let log = in_parts(&served, &["1\n2", "2\n33\n", "4\n5"], &[0, 1, 2]).await;
    served.append(&mut run, 3, vec![finished("Build"), stored("Build", log), END]);
    let cases = [
        ("", "1\n22\n33\n4\n5", 0, 0),
        ("&range=bytes%3D3-6", "2\n33", 3, 1),
        ("&range=bytes=3-6&attempt=1", "2\n33", 3, 1),
        ("&range=bytes%3D99-", "", 99, 0),
        ("&range=bytes%3D6-3", "", 6, 0),
        ("&range=lines%3D1-1", "1\n", 0, 0),
        ("&range=lines%3D2-3", "22\n33\n", 2, 1),
        ("&range=lines%3D4-4", "4\n", 8, 3),
        ("&range=lines%3D5-", "5", 10, 4),
        ("&range=tail%3D0", "", 11, 4),
        ("&range=tail%3D1", "5", 10, 4),
        ("&range=tail%3D4", "22\n33\n4\n5", 2, 1),
        ("&range=tail%3D99", "1\n22\n33\n4\n5", 0, 0),
    ];
    for (query, text, offset, lines) in cases {
        let response = served.get(&format!("{path}{query}")).await;
        let of = |name: &str| response.headers()[name].to_str().unwrap().parse::<u64>().unwrap();
        let begin = (of(apispec::OUTPUT_OFFSET_HEADER), of(apispec::OUTPUT_LINES_HEADER));
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        assert_eq!((response.text().await.unwrap().as_str(), begin.0), (text, offset), "{query}");
        assert!(text.is_empty() || begin.1 == lines, "{query}: {begin:?}");
    }
    assert_eq!(served.text(&format!("{path}&range=lines%3D6-")).await, "", "there are not so many lines");
    for range in ["", "tail", "tail=", "tail=-1", "tail=+1", "lines=0-1", "lines=1-0", "lines=1", "lines=-1", "bytes=1-2-3", "words=1-2"] {
        let query = path.clone() + "&range=" + &range.replace('=', "%3D").replace('+', "%2B");
        check_problem(served.get(&query).await, Code::InvalidQuery).await;
    }
    check_problem(served.get(&format!("{path}&attempt=0")).await, Code::InvalidQuery).await;
    check_problem(served.get(&format!("{path}&attempt=2")).await, Code::UnknownAttempt).await;
}

#[tokio::test]
async fn a_part_of_an_output_needs_only_its_own_segments() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    let log = in_parts(&served, &["1\n", "2\n", "3\n"], &[0, 1]).await;
    served.append(&mut run, 2, vec![awarded("Build")]);
    served.append(&mut run, 3, vec![finished("Build"), stored("Build", log), END]);
    let path = format!("/v1/runs/{}/output?stage=Build", run.id);
    for query in ["&range=lines%3D2-2", "&range=bytes%3D2-3"] {
        assert_eq!(served.text(&format!("{path}{query}")).await, "2\n", "the part that is not there is not asked for: {query}");
    }
    let hole = "[otto: 2 bytes of output are missing here: the depot does not give it now]\n";
    assert_eq!(served.text(&path).await, format!("1\n2\n\n{hole}"));
}

#[tokio::test]
async fn the_output_of_a_lost_attempt_ends_with_a_gap() {
    let served = Served::start();
    let mut run = served.begin("one", &["Build"], 1);
    served.append(&mut run, 2, vec![awarded("Build")]);
    served.orchestrator.logs.take(chunk(&run, "Build", 2, 0, "begun"));
    let mut followed = Followed::of(&served, &format!("/v1/runs/{}/log/follow", run.id)).await;
    assert_eq!(followed.short().await, "Build 0 begun");
    let lost = RunEvent::StageLost { stage: StageId::of("Build"), attempt: 1, reason: "silent".to_owned() };
    let ready = RunEvent::StageReady { stage: StageId::of("Build"), attempt: 2 };
    served.append(&mut run, 3, vec![lost, ready]);
    assert_eq!(followed.short().await, "Build gap 5..None NeverStored");
    served.orchestrator.logs.take(chunk(&run, "Build", 2, 5, "late"));
    let cancelled = RunEvent::StageSkipped { stage: StageId::of("Build"), reason: SkipReason::Cancelled };
    served.append(
        &mut run,
        4,
        vec![
            RunEvent::CancelRequested { by: "t".to_owned(), reason: CancelReason::Person, force: false },
            cancelled,
            RunEvent::RunFinished { outcome: RunOutcome::Aborted },
        ],
    );
    assert_eq!(followed.short().await, "end");
}

#[tokio::test]
async fn streams_end_when_the_process_does() {
    let served = Served::start();
    let run = served.begin("one", &["Build"], 1);
    let mut events = Followed::of(&served, &format!("/v1/runs/{}/events/follow", run.id)).await;
    let mut log = Followed::of(&served, &format!("/v1/runs/{}/log/follow", run.id)).await;
    assert_eq!((events.short().await, events.short().await), ("run_accepted".to_owned(), "stage_ready".to_owned()));
    let (ended, events, log) = tokio::join!(served.supervisor.shut_down(), events.short(), log.short());
    assert_eq!((ended, events.as_str(), log.as_str()), (Ended::InOrder, "closed", "closed"));
}

#[tokio::test]
async fn a_run_that_has_left_memory_is_read_from_its_log() {
    let served = Served::start();
    let (trigger, document) = (trigger("old"), PlanDocument::new(plan(&["Build"])));
    let run = trigger.run();
    served.orchestrator.blobs.put(Bytes::copy_from_slice(document.bytes())).await.unwrap();
    let planned = Planned::plan(document.digest());
    let ready = RunEvent::StageReady { stage: StageId::of("Build"), attempt: 1 };
    let log = served.store(&["built\n"]).await;
    let records = [
        vec![RunEvent::RunAccepted { trigger, planned }, ready],
        vec![awarded("Build")],
        vec![finished("Build"), END],
        vec![stored("Build", log)],
    ];
    let mut tail = Tail::default();
    for events in records {
        let (_, bytes) = encode(tail, "test", Timestamp(1), events);
        let digest = Some(Digest::of(&bytes));
        tail = Tail { sequence: served.orchestrator.bus.append(&run, tail.sequence, bytes).await.unwrap(), digest };
    }
    assert!(served.orchestrator.runs.get(&run).is_none());
    let path = format!("/v1/runs/{run}");
    let shown: RunDetail = served.read(&path).await;
    assert!(matches!(shown.run.status, RunStatus::Ended { outcome: RunOutcome::Success, .. }), "{shown:?}");
    assert_eq!(served.text(&format!("{path}/log?stage=Build")).await, "built\n");
    assert_eq!(served.text(&format!("{path}/output?stage=Build&range=tail%3D1")).await, "built\n");
    let events: Vec<EventView> = served.read(&format!("{path}/events")).await;
    assert_eq!(events.len(), 6);
    let mut followed = Followed::of(&served, &format!("{path}/log/follow")).await;
    assert_eq!((followed.short().await, followed.short().await), ("Build 0 built\n".to_owned(), "end".to_owned()));
    let mut followed = Followed::of(&served, &format!("{path}/events/follow?")).await;
    let mut last = String::new();
    while last != "end" {
        last = followed.short().await;
    }
    let rerun = served.request(Method::POST, &format!("{path}/rerun")).json(&json!({})).send().await.unwrap();
    assert_eq!(rerun.status(), StatusCode::CREATED);
    assert!(served.orchestrator.runs.get(&run).is_none(), "it does not push another one out");

    served.orchestrator.bus.append(&run, tail.sequence, Bytes::from_static(b"{}")).await.unwrap();
    check_problem(served.get(&path).await, Code::RunDamaged).await;
}
