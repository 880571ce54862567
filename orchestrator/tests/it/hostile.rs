//! Whatever is said on the bus, the engine goes on: odd reports, bids and requests change nothing but what they are about.

use eventbus::Subject;
use model::{
    AuctionId, Digest, RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::{LogSegment, Outputs, StoredLog, StoredTree, TestReport},
    protocol::{
        agent::{AgentReport, AgentStatus, Lease, Report, ReportKind},
        auction::{Declined, Proposal},
        log::{LogChunk, LogHeader, LogMark, Stream},
    },
};
use serde_json::{Value as Json, json};

use crate::house::{House, Inbox, agent, chain, ended, outcome, trigger, until};

const KINDS: [ReportKind; 6] =
    [ReportKind::Declined, ReportKind::Started, ReportKind::Finished, ReportKind::Lost, ReportKind::LogStored, ReportKind::RunRequested];

async fn say(house: &House, subject: &Subject, bytes: Vec<u8>) {
    house.bus.publish_bytes(subject, bytes.into()).await.unwrap();
}

/// No JSON, not this JSON, or JSON without an end.
fn garbage() -> Vec<Vec<u8>> {
    let deep = "[".repeat(10_000);
    let texts = ["", "{}", "null", "[]", "0", "\"x\"", "{\"lease\":{}}", "{\"lease\":", "\u{0}", deep.as_str()];
    let mut garbage: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    garbage.push(vec![0xff; 100_000]);
    garbage.push(b"{\"lease\":{\"attempt\":".repeat(1_000));
    garbage
}

/// Reports about a lease, each with one field changed so that it is no report about it.
fn twisted(lease: &Lease) -> Vec<Json> {
    let digest = Digest::of(b"");
    let reports = [
        Report::Declined { reason: "x".repeat(2_000) },
        Report::Started { at: Timestamp(u64::MAX) },
        Report::Finished {
            outcome: StageOutcome::Success,
            reason: None,
            started_at: Some(Timestamp(u64::MAX)),
            finished_at: Timestamp(0),
            outputs: Outputs::default(),
        },
        Report::Lost { reason: String::new() },
        Report::LogStored { log: StoredLog::whole(digest, u64::MAX, digest) },
    ];
    let another = model::RunId::of(&model::TriggerId::of("t", "another"));
    let changes = [
        (
            "/lease/fence",
            vec![json!(0), json!(-1), json!(u64::MAX), json!(1.5), json!("1"), json!(null), json!(lease.fence + 1), json!(1e300)],
        ),
        ("/lease/attempt/attempt", vec![json!(0), json!(2), json!(u32::MAX), json!(4_294_967_296_u64), json!(-1)]),
        ("/lease/attempt/run", vec![json!(another), json!(""), json!("run_"), json!("x".repeat(10_000)), json!(7)]),
        ("/lease/attempt/stage", vec![json!(StageId::of("b")), json!(StageId::of("nothing")), json!("../a"), json!({})]),
        ("/report/kind", vec![json!("nothing"), json!(""), json!(7)]),
    ];
    let mut twisted = Vec::new();
    for report in reports {
        let whole = serde_json::to_value(AgentReport { lease: lease.clone(), report }).unwrap();
        for (place, values) in &changes {
            for value in values {
                let mut changed = whole.clone();
                *changed.pointer_mut(place).unwrap() = value.clone();
                // Of the stage that is meant itself, it would be a report.
                if changed != whole {
                    twisted.push(changed);
                }
            }
        }
    }
    twisted
}

fn chunk(lease: &Lease, offset: u64, lines_before: u64, segments: Vec<LogSegment>) -> Vec<u8> {
    let mark = LogMark { offset, length: 2, step: u32::MAX, stream: Stream::Out, at: Timestamp(u64::MAX), lines_before };
    LogChunk { header: LogHeader { lease: lease.clone(), mark, segments }, bytes: b"x\n".to_vec() }.encode()
}

/// Output that none has.
fn odd_output(lease: &Lease) -> Vec<Vec<u8>> {
    let segment = |offset, length, lines_before| {
        let digest = Digest::of(b"");
        vec![LogSegment { bytes: digest, length, offset, lines_before, index: digest }]
    };
    vec![
        chunk(lease, u64::MAX, 0, vec![]),
        chunk(lease, u64::MAX - 1, 0, vec![]),
        chunk(lease, 0, u64::MAX, vec![]),
        chunk(lease, 1 << 60, 0, vec![]),
        chunk(lease, 0, 0, segment(u64::MAX, u64::MAX, 0)),
        chunk(lease, 0, 0, segment(0, u64::MAX, 0)),
        chunk(lease, 0, 0, segment(0, 1, u64::MAX)),
    ]
}

async fn odd_bids(house: &House, lease: &Lease) {
    let odd = |stage: &str, number: u32, count: usize| {
        let attempt = model::AttemptId { run: lease.attempt.run.clone(), stage: StageId::of(stage), attempt: number };
        let declined = (0..count).map(|_| Declined { agent: agent(), reason: "x".to_owned() }).collect();
        Proposal {
            auction: AuctionId::of(&attempt, number),
            attempt,
            offers: vec![],
            declined,
            unmet: vec![],
            closed_at: Timestamp(u64::MAX),
        }
    };
    for (stage, number, count) in [("nothing", 1, 0), ("a", 0, 1), ("a", u32::MAX, 1), ("b", 1, 5_000), ("b", 7, 0)] {
        house.bus.publish(&Subject::proposed(), &odd(stage, number, count)).await.unwrap();
    }
    for leases in [vec![lease.clone(); 2_000], vec![Lease { fence: u64::MAX, ..lease.clone() }]] {
        let status = AgentStatus {
            agent: agent(),
            slots: 0,
            slots_free: u32::MAX,
            price_micros_per_s: 0,
            facts: [].into(),
            leases,
            number: u64::MAX,
        };
        house.bus.publish(&Subject::status(&agent()), &status).await.unwrap();
    }
}

/// Everything odd that can be said about a lease.
async fn say_all(house: &House, lease: &Lease) {
    for kind in KINDS {
        let subject = Subject::report(&agent(), kind);
        for bytes in garbage() {
            say(house, &subject, bytes).await;
        }
        for report in twisted(lease) {
            say(house, &subject, serde_json::to_vec(&report).unwrap()).await;
        }
    }
    let log = Subject::log(&agent(), &lease.attempt.run, &lease.attempt.stage);
    for subject in [Subject::status(&agent()), Subject::proposed(), log.clone()] {
        for bytes in garbage() {
            say(house, &subject, bytes).await;
        }
    }
    for bytes in odd_output(lease) {
        say(house, &log, bytes).await;
    }
    odd_bids(house, lease).await;
}

/// A run of two stages whose first one runs.
async fn running(house: &House, inbox: &mut Inbox, orchestrator: &orchestrator::Orchestrator) -> Lease {
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    inbox.report(&lease, Report::Started { at: Timestamp(u64::MAX) }).await;
    inbox.report(&lease, Report::Started { at: Timestamp(0) }).await;
    until(orchestrator, &trigger, "its start", |run| run.stages[0].status == orchestrator::core::Status::Running).await;
    assert_eq!(house.bus.run_log(&trigger.run()).await.unwrap().last().map(|record| &record.run), Some(&trigger.run()));
    lease
}

#[tokio::test]
async fn what_cannot_be_meant_changes_nothing() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let lease = running(&house, &mut inbox, &orchestrator).await;
    let before = house.bus.run_log(&lease.attempt.run).await.unwrap();
    say_all(&house, &lease).await;
    // The next word is heard behind all of them.
    inbox.report(&Lease { fence: lease.fence + 7, ..lease.clone() }, Report::Started { at: Timestamp(1) }).await;
    let (status, _) = api.get(&format!("/v1/runs/{}/log", lease.attempt.run)).await;
    assert_eq!(status, 200);
    assert_eq!(house.bus.run_log(&lease.attempt.run).await.unwrap(), before, "nothing was stored");
    inbox.succeed(&lease).await;
    let b = inbox.assignment(Some(&lease)).await.lease;
    inbox.succeed(&b).await;
    say_all(&house, &b).await;
    assert_eq!(outcome(&*ended(&orchestrator, &trigger("1")).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_result_with_odd_numbers_is_a_result() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let lease = running(&house, &mut inbox, &orchestrator).await;
    let tree = StoredTree { archive: Digest::of(b""), bytes: u64::MAX, entries: u64::MAX };
    let tests = TestReport { passed: u64::MAX, failed: u64::MAX, skipped: u64::MAX, duration_ms: u64::MAX, failures: Vec::new() };
    let outputs = Outputs { artifacts: [(String::new(), tree)].into(), tests: Some(tests), ..Outputs::default() };
    let (started_at, finished_at) = (Some(Timestamp(u64::MAX)), Timestamp(0));
    let report = Report::Finished { outcome: StageOutcome::Success, reason: None, started_at, finished_at, outputs };
    inbox.report(&lease, report).await;
    let digest = Digest::of(b"");
    for log in [StoredLog::whole(digest, u64::MAX, digest), StoredLog { segments: Vec::new(), length: u64::MAX }] {
        inbox.report(&lease, Report::LogStored { log }).await;
        inbox.acknowledged(ReportKind::LogStored).await;
    }
    let run = ended(&orchestrator, &trigger("1")).await;
    assert_eq!((outcome(&run), &run.stages[0].attempts[0].log), (Some(RunOutcome::Success), &None));
    for what in ["", "/log", "/events", "/output?stage=a&range=tail%3D5", "/output?stage=a&range=bytes%3D999999999999999999-"] {
        let (status, shown) = api.get(&format!("/v1/runs/{}{what}", run.id)).await;
        assert_eq!(status, 200, "{what}: {shown}");
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn what_no_record_takes_fails_its_stage_and_is_not_said_for_ever() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let lease = running(&house, &mut inbox, &orchestrator).await;
    let variables = (0..10).map(|number| (format!("v{number}"), Some("x".repeat(90 * 1024)))).collect();
    inbox.finish(&lease, StageOutcome::Success, Outputs { variables, ..Outputs::default() }).await;
    inbox.acknowledged(ReportKind::Finished).await;
    let run = ended(&orchestrator, &trigger("1")).await;
    let reason = run.stages[0].reason.as_deref().unwrap_or_default();
    assert!(outcome(&run) == Some(RunOutcome::Failure) && reason.contains("over the limit"), "{reason}");
    let digest = Digest::of(b"");
    let segment = |number: u64| LogSegment { bytes: digest, length: 1, offset: number, lines_before: 0, index: digest };
    let log = StoredLog { segments: (0..3_500).map(segment).collect(), length: 3_500 };
    inbox.report(&lease, Report::LogStored { log }).await;
    inbox.acknowledged(ReportKind::LogStored).await;
    supervisor.shut_down().await;
}
