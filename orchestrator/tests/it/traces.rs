//! What an endpoint of OTLP is told of runs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use model::{
    AttemptId, StageId, StageOutcome, Timestamp,
    event::run::{Outputs, StepTime},
    protocol::agent::{Lease, Report},
    trace::{SpanId, TraceId},
};
use orchestrator::{engine::EngineOptions, traces::TraceOptions};
use serde_json::Value as Json;
use service::Supervisor;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::house::{DEADLINE, House, Inbox, chain, ended, trigger};

/// Hears what is posted to `/v1/traces`.
struct Receiver {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    spans: watch::Receiver<Vec<Json>>,
    supervisor: Supervisor,
}

impl Receiver {
    async fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, spans) = watch::channel(Vec::new());
        let (status, supervisor) = (Arc::new(AtomicU16::new(200)), Supervisor::new());
        let (answers, token, others) = (status.clone(), supervisor.token().clone(), supervisor.clone());
        supervisor.spawn("receiver", service::OnError::Log, async move {
            let told = Arc::new(told);
            while let Some(Ok((connection, _))) = token.run_until_cancelled(listener.accept()).await {
                let (told, answers, token) = (told.clone(), answers.clone(), token.clone());
                others.spawn("connection", service::OnError::Log, async move {
                    token.run_until_cancelled(hear(connection, &told, &answers)).await;
                    Ok(())
                });
            }
            Ok(())
        });
        Self { address, status, spans, supervisor }
    }

    /// The spans when there are such.
    async fn until(&self, what: &str, are: impl Fn(&[Json]) -> bool) -> Vec<Json> {
        let mut spans = self.spans.clone();
        let found = timeout(DEADLINE, spans.wait_for(|spans| are(spans))).await;
        found.unwrap_or_else(|_| panic!("{what}: {:#?}", self.spans.borrow())).unwrap().clone()
    }
}

/// One request after the other, until the connection is closed.
async fn hear(connection: TcpStream, told: &watch::Sender<Vec<Json>>, answers: &AtomicU16) {
    let mut connection = BufReader::new(connection);
    loop {
        let (mut length, mut line, mut is_first) = (0, String::new(), true);
        loop {
            line.clear();
            if connection.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let header = line.trim().to_ascii_lowercase();
            if is_first {
                assert_eq!(line.trim(), "POST /v1/traces HTTP/1.1");
            }
            is_first = false;
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            assert!(!header.starts_with("content-type:") || header.ends_with("application/json"), "{header}");
            if header.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.unwrap();
        let status = answers.load(Ordering::Relaxed);
        if status == 200 {
            let document: Json = serde_json::from_slice(&body).unwrap();
            let resource = &document["resourceSpans"][0];
            assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "otto");
            let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap().clone();
            told.send_modify(|known| known.extend(spans));
        }
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\n{{}}");
        if connection.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn traced(receiver: SocketAddr, state: Option<&Path>) -> impl FnOnce(EngineOptions) -> EngineOptions {
    let endpoint = format!("http://{receiver}").parse().unwrap();
    let traces = Some(TraceOptions { endpoint, state: state.map(Path::to_owned) });
    |options| EngineOptions { traces, ..options }
}

fn named<'a>(spans: &'a [Json], name: &str) -> &'a Json {
    let found: Vec<&Json> = spans.iter().filter(|span| span["name"] == name).collect();
    let [span] = found.as_slice() else { panic!("{} spans are called {name}: {spans:#?}", found.len()) };
    span
}

fn has_root(spans: &[Json]) -> bool {
    spans.iter().any(|span| span.get("parentSpanId").is_none())
}

fn time(span: &Json, which: &str) -> u64 {
    span[which].as_str().unwrap().parse().unwrap()
}

fn attribute<'a>(span: &'a Json, key: &str) -> &'a Json {
    let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("{key}: {span:#}"))["value"]
}

/// Ends the attempt, with one step whose times are told.
async fn finish(inbox: &Inbox, lease: &Lease, outcome: StageOutcome, reason: Option<&str>) {
    let now = service::clock::unix_ms();
    let time = StepTime { step: 0, started_at: Timestamp(now), finished_at: Timestamp(now + 3), failed: outcome != StageOutcome::Success };
    let report = Report::Finished {
        outcome,
        reason: reason.map(str::to_owned),
        started_at: Some(Timestamp(now)),
        finished_at: Timestamp(now + 5),
        outputs: Outputs { steps: vec![time], ..Outputs::default() },
    };
    inbox.report(lease, report).await;
}

#[tokio::test]
async fn a_run_is_one_trace_whose_spans_say_what_belongs_to_what_and_how_it_ended() {
    let house = House::new(chain(&["a", "b"])).await;
    let (mut inbox, receiver) = (house.inbox().await, Receiver::start().await);
    let (orchestrator, supervisor) = house.start_with(traced(receiver.address, None)).await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    finish(&inbox, &a.lease, StageOutcome::Success, None).await;
    let b = inbox.assignment(Some(&a.lease)).await;
    finish(&inbox, &b.lease, StageOutcome::Failure, Some("exit code 1")).await;
    ended(&orchestrator, &trigger).await;
    let spans = receiver.until("the root", has_root).await;

    let run = trigger.run();
    let attempt = |stage: &str| AttemptId { run: run.clone(), stage: StageId::of(stage), attempt: 1 };
    let root = named(&spans, "run demo");
    let ids = [
        ("run demo", SpanId::of_run(&run), None),
        ("plan", SpanId::of(&run, "plan"), Some(SpanId::of_run(&run))),
        ("stage a", SpanId::of_attempt(&attempt("a")), Some(SpanId::of_run(&run))),
        ("stage b", SpanId::of_attempt(&attempt("b")), Some(SpanId::of_run(&run))),
    ];
    for (name, id, parent) in ids {
        let span = named(&spans, name);
        assert_eq!(span["spanId"], id.to_string(), "{name}");
        assert_eq!(span.get("parentSpanId").and_then(Json::as_str).map(str::to_owned), parent.map(|parent| parent.to_string()), "{name}");
    }
    for stage in ["a", "b"] {
        let auction = named(&spans, &format!("auction {stage}"));
        assert_eq!(auction["parentSpanId"], SpanId::of_attempt(&attempt(stage)).to_string());
        assert_eq!(attribute(auction, "cicd.worker.name")["stringValue"], "one");
        let step = spans.iter().find(|span| span["spanId"] == SpanId::of_step(&attempt(stage), 0).to_string()).unwrap();
        assert_eq!((&step["name"], &step["parentSpanId"]), (&"step sh".into(), &SpanId::of_attempt(&attempt(stage)).to_string().into()));
        assert_eq!(time(step, "endTimeUnixNano") - time(step, "startTimeUnixNano"), 3_000_000);
    }
    for span in &spans {
        assert_eq!(span["traceId"], TraceId::of(&run).to_string(), "{span:#}");
        assert!(time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano"), "{span:#}");
        assert!(time(span, "startTimeUnixNano") >= time(root, "startTimeUnixNano"), "{span:#}");
    }
    let status = |name: &str| named(&spans, name)["status"]["code"].as_u64().unwrap();
    assert_eq!(["run demo", "plan", "stage a", "stage b"].map(status), [2, 1, 1, 2]);
    assert_eq!(named(&spans, "stage b")["status"]["message"], "exit code 1");
    assert_eq!(attribute(root, "cicd.pipeline.result")["stringValue"], "failure");
    assert_eq!(attribute(root, "cicd.pipeline.run.id")["stringValue"], run.to_string());
    assert_eq!(spans.len(), 8, "each once: {spans:#?}");
    supervisor.shut_down().await;
    receiver.supervisor.shut_down().await;
}

#[tokio::test]
async fn a_restart_goes_on_with_the_trace_and_says_nothing_twice() {
    let house = House::new(chain(&["a", "b"])).await;
    let (mut inbox, receiver) = (house.inbox().await, Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("traces.state");
    let (orchestrator, supervisor) = house.start_with(traced(receiver.address, Some(&state))).await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    finish(&inbox, &a.lease, StageOutcome::Success, None).await;
    let b = inbox.assignment(Some(&a.lease)).await;
    receiver.until("the first stage", |spans| spans.iter().any(|span| span["name"] == "stage a")).await;
    // In order: what is left is sent, and how far that is written down.
    supervisor.shut_down().await;

    let (orchestrator, supervisor) = house.start_with(traced(receiver.address, Some(&state))).await;
    finish(&inbox, &b.lease, StageOutcome::Success, None).await;
    ended(&orchestrator, &trigger).await;
    let spans = receiver.until("the root", has_root).await;
    supervisor.shut_down().await;
    let (_orchestrator, supervisor) = house.start_with(traced(receiver.address, Some(&state))).await;
    supervisor.shut_down().await;
    assert_eq!(*receiver.spans.borrow(), spans, "a run that is over is told once");
    for name in ["run demo", "plan", "stage a", "auction a", "stage b", "auction b"] {
        assert_eq!(named(&spans, name)["traceId"], TraceId::of(&trigger.run()).to_string());
    }
    assert_eq!(spans.len(), 8, "{spans:#?}");
    receiver.supervisor.shut_down().await;
}

#[tokio::test]
async fn an_endpoint_that_is_down_holds_up_no_run_and_hears_of_it_later() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let receiver = Receiver::start().await;
    let address = receiver.address;
    receiver.supervisor.shut_down().await;
    let (orchestrator, supervisor) = house.start_with(traced(address, None)).await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    finish(&inbox, &a.lease, StageOutcome::Success, None).await;
    ended(&orchestrator, &trigger).await;
    let receiver = Receiver::at(address).await;
    assert_eq!(receiver.until("the root", has_root).await.len(), 5);
    supervisor.shut_down().await;
    receiver.supervisor.shut_down().await;
}

#[tokio::test]
async fn what_an_endpoint_refuses_is_dropped_and_counted() {
    let house = House::new(chain(&["a"])).await;
    let (mut inbox, receiver) = (house.inbox().await, Receiver::start().await);
    receiver.status.store(400, Ordering::Relaxed);
    let (orchestrator, supervisor) = house.start_with(traced(receiver.address, None)).await;
    let api = house.serve(&orchestrator);
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    finish(&inbox, &a.lease, StageOutcome::Success, None).await;
    ended(&orchestrator, &trigger).await;
    let metrics = async || testkit::http_get(format!("{}/metrics", api.base())).await.unwrap().text().await.unwrap();
    let counted = async {
        while !metrics().await.contains("otto_spans_dropped_total 5") {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, counted).await.expect("they are counted");
    assert!(metrics().await.contains("otto_spans_sent_total 0"), "none was taken");
    supervisor.shut_down().await;
    receiver.supervisor.shut_down().await;
}
