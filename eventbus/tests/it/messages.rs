//! Messages as roles make them: at least one of each kind in the table, and of each form that a kind has.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AttemptId, AuctionId, Digest, RunOutcome, StageId, StageOutcome, Timestamp, TriggerId,
    context::EventKind,
    diagnostic::{Diagnostic, Severity, Span},
    event::run::{Answer, CancelReason, Outputs, Planned, RECORD_SCHEMA, RunEvent, RunRecord, StoredLog, StoredTree, WaitKey},
    plan::{Condition, Function, Stage, Step, Value as PlanValue, Wait},
    planning::{PlanReply, PlanRequest, Text, TriggerRule, TriggersReply, TriggersRequest},
    protocol::{
        agent::{
            AgentCommand, AgentReport, AgentStatus, Assignment, CacheRestore, Callback, Lease, Report, ReportKind, Revoked, StartedRun,
        },
        auction::{
            Announcement, AuctionRequest, Bid, Declined, Experience, Offer, Proposal, Ran, RankedOffer, Reservation, Routine, Wanted,
        },
        enrolment::{AgentTrust, DrainReply, DrainRequest, Enrolled, RenewalReply, RenewalRequest, RollPage, RollRequest},
        forge::{ProjectRunReply, ProjectRunRequest, Revision},
        log::{LogHeader, LogMark, Stream},
        orchestrator::{Asked, Here, Member, Told},
        step::RunRequest,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::buses::{agent, run, trigger};

/// A message, and whether a changed one reads.
pub(crate) struct Message {
    /// Of its channel; `None` for an answer.
    pub(crate) kind: Option<&'static str>,
    /// The path of its type in the model.
    pub(crate) payload: &'static str,
    pub(crate) json: Value,
    pub(crate) reads: fn(&Value) -> bool,
}

fn message<T: Serialize + DeserializeOwned>(kind: &'static str, payload: &'static str, value: &T) -> Message {
    let kind = (!kind.is_empty()).then_some(kind);
    Message { kind, payload, json: serde_json::to_value(value).unwrap(), reads: |json| serde_json::from_value::<T>(json.clone()).is_ok() }
}

fn digest() -> Digest {
    Digest::of(b"x")
}

fn lease() -> Lease {
    Lease { attempt: AttemptId { run: run("1"), stage: StageId::of("Build"), attempt: 1 }, fence: 7 }
}

fn auction() -> AuctionId {
    AuctionId::of(&lease().attempt, 0)
}

fn values() -> BTreeMap<String, PlanValue> {
    let text = || PlanValue::from("a");
    let call = PlanValue::Call { function: Function::Concat, arguments: vec![text(), PlanValue::Variable { variable: "v".to_owned() }] };
    let steps = PlanValue::Steps { steps: vec![Step::new("stdlib", "sh", BTreeMap::from([("script".to_owned(), text())]))] };
    let decimal = PlanValue::Decimal { decimal: "3.10".to_owned() };
    let list = PlanValue::List(vec![text(), PlanValue::Integer(-1), PlanValue::Boolean(true)]);
    [("call", call), ("decimal", decimal), ("list", list), ("steps", steps)].map(|(name, value)| (name.to_owned(), value)).into()
}

fn assignment() -> Assignment {
    let tree = || StoredTree { archive: digest(), bytes: 9, entries: 1 };
    let stage = Stage {
        conditions: vec![Condition::Not(Box::new(Condition::Equal("a".into(), "b".into()))), Condition::Is(true_value())],
        enter: vec![Wait::Confirm { message: "go?".into(), by: vec!["ops".to_owned()], timeout_ms: Some(1) }, Wait::Pause],
        exit: vec![Wait::Webhook { description: "tested".into(), timeout_ms: None }],
        environment: values(),
        steps: vec![Step::new("stdlib", "sh", values())],
        lock: Some("production".to_owned()),
        ..Stage::new("Build")
    };
    Assignment {
        source: Some(digest()),
        artifacts: BTreeMap::from([("web".to_owned(), tree())]),
        caches: BTreeMap::from([("npm".to_owned(), CacheRestore { tree: tree(), required: true })]),
        libraries: BTreeMap::from([("./steps".to_owned(), digest())]),
        configuration: BTreeMap::from([("sh".to_owned(), values())]),
        callbacks: vec![Callback { description: "tested".to_owned(), url: "http://127.0.0.1/x".to_owned() }],
        ..Assignment::new(lease(), stage, "demo".to_owned())
    }
}

fn true_value() -> PlanValue {
    PlanValue::Boolean(true)
}

fn diagnostics() -> Vec<Diagnostic> {
    vec![Diagnostic {
        code: "E0101".to_owned(),
        severity: Severity::Error,
        message: "no".to_owned(),
        file: "Ottofile".to_owned(),
        line: 1,
        column: 2,
        span: Span { start: 1, end: 2 },
        label: String::new(),
        help: String::new(),
    }]
}

fn commands() -> Vec<AgentCommand> {
    let answer = |answer| AgentCommand::RunAnswer { lease: lease(), number: 1, answer };
    vec![
        AgentCommand::Assign(Box::new(assignment())),
        AgentCommand::Cancel { lease: lease(), force: true },
        AgentCommand::Renewed { status: 3, leases: vec![lease()] },
        AgentCommand::TellOutput { lease: lease() },
        answer(Ok(StartedRun { run: run("2"), outcome: Some(RunOutcome::Unstable) })),
        answer(Err("no such project".to_owned())),
        AgentCommand::Acknowledge { lease: lease(), report: ReportKind::LogStored },
    ]
}

/// Each with the kind of its channel.
fn reports() -> Vec<(&'static str, Report)> {
    let outputs =
        Outputs { variables: BTreeMap::from([("v".to_owned(), Some("1".to_owned())), ("w".to_owned(), None)]), ..Outputs::default() };
    let finished = Report::Finished {
        outcome: StageOutcome::Failure,
        reason: Some("exit code 1".to_owned()),
        started_at: Some(Timestamp(1)),
        finished_at: Timestamp(2),
        outputs,
    };
    let request = RunRequest { pipeline: "deploy.otto".to_owned(), project: Some("web".to_owned()), parameters: BTreeMap::new() };
    vec![
        ("declined", Report::Declined { reason: "busy".to_owned() }),
        ("started", Report::Started { at: Timestamp(1) }),
        ("finished", finished),
        ("finished", Report::Lost { reason: "restarted".to_owned() }),
        ("stored", Report::LogStored { log: StoredLog::whole(digest(), 3, digest()) }),
        ("requested", Report::RunRequested { number: 1, request }),
    ]
}

fn plan_replies() -> Vec<PlanReply> {
    vec![
        PlanReply::Planned { digest: digest(), plan: Text::Depot(digest()), warnings: diagnostics(), not_triggered: Some("no".to_owned()) },
        PlanReply::Refused { diagnostics: diagnostics() },
        PlanReply::Needs { files: vec!["a.blueprint".to_owned()] },
        PlanReply::Unavailable { message: "starting".to_owned() },
    ]
}

fn asked() -> Vec<Asked> {
    let stage = StageId::of("Build");
    vec![
        Asked::WhoIsThere,
        Asked::Trigger { trigger: Box::new(trigger("1")) },
        Asked::Cancel { run: run("1"), by: "ann".to_owned(), reason: CancelReason::Person, force: true },
        Asked::Answered { run: run("1"), stage, wait: WaitKey::Enter(0), answer: Answer::Resumed, by: None },
    ]
}

fn triggers_replies() -> Vec<TriggersReply> {
    let rule = TriggerRule {
        event: EventKind::Cron,
        branches: vec!["main".to_owned()],
        tags: vec!["v*".to_owned()],
        paths: vec!["src/**".to_owned()],
        cron: "0 3 * * *".to_owned(),
    };
    vec![
        TriggersReply::Read { rules: vec![rule] },
        TriggersReply::Refused { diagnostics: diagnostics() },
        TriggersReply::Unavailable { message: "starting".to_owned() },
    ]
}

fn told() -> [Told; 3] {
    let member = Member::new("orchestrator", 1);
    let here = Here { member: member.clone(), number: 1, view: BTreeSet::from([member.clone()]), settled: true };
    [Told::Here(here), Told::Leaving { member }, Told::Appended { sequence: 7 }]
}

/// Those about who is enrolled.
fn of_enrolment() -> Vec<Message> {
    let enrolled = || Enrolled { class: "big".parse().unwrap(), trust: AgentTrust::Any, draining: true };
    let page = RollPage { after: Some(agent("a0")), through: Some(agent("a1")), agents: BTreeMap::from([(agent("a1"), enrolled())]) };
    vec![
        message("roll", "protocol::enrolment::RollRequest", &RollRequest { after: Some(agent("a0")) }),
        message("", "protocol::enrolment::RollPage", &page),
        message("enrolled", "protocol::enrolment::RollPage", &page),
        message("drain", "protocol::enrolment::DrainRequest", &DrainRequest { agent: agent("a1"), draining: true }),
        message("", "protocol::enrolment::DrainReply", &DrainReply::Done { enrolled: enrolled() }),
        message("", "protocol::enrolment::DrainReply", &DrainReply::Unknown),
        message("", "protocol::enrolment::DrainReply", &DrainReply::Unavailable { message: "the disk is full".to_owned() }),
        message("renew", "protocol::enrolment::RenewalRequest", &RenewalRequest {}),
        message("renewed", "protocol::enrolment::RenewalReply", &RenewalReply::Signed { jwt: "e30.e30.AA".to_owned() }),
        message(
            "",
            "protocol::enrolment::RenewalReply",
            &RenewalReply::Refused { message: "no agent a1 was enrolled or invited".to_owned() },
        ),
    ]
}

/// Those by which a run of a project's own code is asked for.
fn of_project_runs() -> Vec<Message> {
    let request = |revision| ProjectRunRequest {
        id: TriggerId::of("api", "1"),
        project: "demo".parse().unwrap(),
        revision,
        parameters: BTreeMap::from([("target".to_owned(), "staging".to_owned())]),
        timeout_ms: Some(1),
        actor: "ann".to_owned(),
    };
    let revisions = [Revision::DefaultBranch, Revision::Branch { name: "main".to_owned() }, Revision::Tag { name: "v1".to_owned() }];
    let replies = [
        ProjectRunReply::Accepted { run: run("1") },
        ProjectRunReply::Refused { message: "there is no such branch".to_owned() },
        ProjectRunReply::Unavailable { message: "it is being fetched".to_owned() },
    ];
    let requests = revisions.into_iter().map(|revision| message("project_run", "protocol::forge::ProjectRunRequest", &request(revision)));
    requests.chain(replies.iter().map(|reply| message("", "protocol::forge::ProjectRunReply", reply))).collect()
}

/// Every message.
pub(crate) fn all() -> Vec<Message> {
    let offer = || Offer { has: 1, load_permille: 500, ..Offer::new(10, 0, Reservation::Handover) };
    let routine = || Routine { project: "demo".parse().unwrap(), pipeline: "Ottofile".to_owned(), stage: "Build".to_owned() };
    let request = || AuctionRequest {
        requires: values(),
        routine: Some(routine()),
        wants: vec![Wanted { digest: digest(), bytes: Some(9) }],
        after: vec![lease().attempt],
        except: vec![agent("a2")],
        ..AuctionRequest::new(auction(), lease().attempt)
    };
    let accepted = RunEvent::RunAccepted { trigger: trigger("1"), planned: Planned::plan(digest()) };
    let record = RunRecord { schema: RECORD_SCHEMA, previous: None, actor: "otto".to_owned(), at: Timestamp(1), events: vec![accepted] };
    let plan_request = PlanRequest {
        path: "Ottofile".to_owned(),
        source: Text::Inline("pipeline {}".to_owned()),
        context: trigger("1").context,
        files: BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(Text::Depot(digest())))]),
        listing: Some(digest()),
        changed: None,
    };
    let proposal = Proposal {
        auction: auction(),
        attempt: lease().attempt,
        offers: vec![RankedOffer { agent: agent("a1"), offer: offer() }],
        declined: vec![Declined { agent: agent("a2"), reason: "busy".to_owned() }],
        unmet: vec!["no agent has gpu".to_owned()],
        closed_at: Timestamp(1),
    };
    let status = AgentStatus {
        agent: agent("a1"),
        slots: 2,
        slots_free: 1,
        price_micros_per_s: 1,
        facts: values(),
        leases: vec![lease()],
        number: 3,
    };
    let mark = LogMark { offset: 3, length: 4, step: 0, stream: Stream::Out, at: Timestamp(9), lines_before: 0 };
    let header = LogHeader { lease: lease(), mark, segments: StoredLog::whole(digest(), 3, digest()).segments };
    let mut all = vec![
        message("trigger", "trigger::Trigger", &trigger("1")),
        message("run", "event::run::RunRecord", &record),
        message("plan", "planning::PlanRequest", &plan_request),
        message("triggers", "planning::TriggersRequest", &TriggersRequest { path: "Ottofile".to_owned(), source: Text::Depot(digest()) }),
        message("for_auction", "protocol::auction::AuctionRequest", &request()),
        message("auction", "protocol::auction::Announcement", &Announcement { request: request() }),
        message("call", "protocol::auction::Announcement", &Announcement { request: request() }),
        message(
            "ran",
            "protocol::auction::Experience",
            &Experience { ran: vec![Ran { routine: routine(), agent: agent("a1"), took_ms: None }] },
        ),
        message("proposed", "protocol::auction::Proposal", &proposal),
        message("revoked", "protocol::agent::Revoked", &Revoked { agents: BTreeSet::from([agent("a1")]) }),
        message("bid", "protocol::auction::Bid", &Bid::Offer(offer())),
        message("bid", "protocol::auction::Bid", &Bid::Decline { reason: "busy".to_owned() }),
        message("status", "protocol::agent::AgentStatus", &status),
        message("log", "protocol::log::LogChunk", &header),
    ];
    all.extend(asked().iter().map(|asked| message("orchestrators_asked", "protocol::orchestrator::Asked", asked)));
    all.extend(of_enrolment());
    all.extend(of_project_runs());
    all.extend(told().iter().map(|told| message("orchestrators_told", "protocol::orchestrator::Told", told)));
    all.extend(triggers_replies().iter().map(|reply| message("", "planning::TriggersReply", reply)));
    all.extend(plan_replies().iter().map(|reply| message("", "planning::PlanReply", reply)));
    all.extend(commands().iter().map(|command| message("inbox", "protocol::agent::AgentCommand", command)));
    let report = |(kind, report)| message(kind, "protocol::agent::AgentReport", &AgentReport { lease: lease(), report });
    all.extend(reports().into_iter().map(report));
    all
}
