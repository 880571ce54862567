//! The engine on the bus within the process, with a parser, an auctioneer and an agent that the tests play themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use blob::{Blobs, DiskStore, disk::Durability};
use eventbus::{Bus, Pattern, Subject, Subscription};
use model::{
    AgentName, RunOutcome, StageId, StageOutcome, Timestamp, TriggerId,
    context::TriggerContext,
    event::run::RunEvent,
    plan::{Effect, Need, NeedReason, PLAN_SCHEMA, Plan, PlanDocument, Stage},
    planning::{PlanReply, PlanRequest, Text},
    protocol::{
        agent::{AgentCommand, AgentReport, Assignment, Lease, Report, ReportKind},
        auction::{AuctionRequest, Offer, Proposal, RankedOffer, Reservation},
    },
    trigger::Trigger,
};
use orchestrator::{
    Orchestrator,
    core::Run,
    engine::{self, EngineOptions},
};
use service::{OnError, Supervisor};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

fn agent() -> AgentName {
    "one".parse().unwrap()
}

/// A chain of stages.
fn chain(names: &[&str]) -> Plan {
    let stages = names.iter().enumerate().map(|(at, name)| Stage {
        id: StageId::of(name),
        path: (*name).to_owned(),
        needs: at.checked_sub(1).map(|at| Need { stage: StageId::of(names[at]), reason: NeedReason::Order }).into_iter().collect(),
        requires: BTreeMap::new(),
        environment: BTreeMap::new(),
        steps: Vec::new(),
        timeout_ms: 60_000,
        effect: Effect::Safe,
        retries_lost: 2,
    });
    Plan { schema: PLAN_SCHEMA, stages: stages.collect(), libraries: BTreeMap::new() }
}

fn trigger(delivery: &str) -> Trigger {
    Trigger {
        id: TriggerId::of("test", delivery),
        project: "demo".parse().unwrap(),
        context: TriggerContext::default(),
        pipeline_path: "Ottofile".to_owned(),
        pipeline: Text::Inline("pipeline {}".to_owned()),
        source: None,
    }
}

/// A bus and a depot, which outlive the orchestrators that are started on them.
struct House {
    bus: Bus,
    blobs: Blobs,
    others: Supervisor,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let house = Self { bus: eventbus::memory::bus(), blobs, others: Supervisor::new(), _folder: folder };
        house.play_parser(plan).await;
        house.play_auctioneer().await;
        house
    }

    async fn start(&self) -> (Orchestrator, Supervisor) {
        let supervisor = Supervisor::new();
        let options = EngineOptions { name: "test".to_owned(), signer: None };
        let orchestrator = engine::start(options, self.bus.clone(), self.blobs.clone(), &supervisor).await.unwrap();
        (orchestrator, supervisor)
    }

    async fn play_parser(&self, plan: Plan) {
        let document = PlanDocument::new(plan);
        let plan = Text::Inline(String::from_utf8(document.bytes().to_vec()).unwrap());
        let reply = PlanReply::Planned { digest: document.digest(), plan };
        let mut asked = self.bus.subscribe_group(Subject::plan(), "parser").await.unwrap();
        self.others.spawn("parser", OnError::Log, async move {
            while let Some(message) = asked.next().await {
                message.read::<PlanRequest>()?;
                message.reply(&reply).await?;
            }
            Ok(())
        });
    }

    /// Proposes the one agent for whatever is asked.
    async fn play_auctioneer(&self) {
        let mut asked = self.bus.subscribe(Subject::for_auction()).await.unwrap();
        let bus = self.bus.clone();
        self.others.spawn("auctioneer", OnError::Log, async move {
            while let Some(message) = asked.next().await {
                let request: AuctionRequest = message.read()?;
                let reservation = if request.after.is_empty() { Reservation::Slot } else { Reservation::Handover };
                let offer = Offer { price_micros_per_s: 0, start_ms: 0, reservation };
                let offers = if request.except.contains(&agent()) { vec![] } else { vec![RankedOffer { agent: agent(), offer }] };
                let AuctionRequest { auction, attempt, .. } = request;
                let proposal = Proposal { auction, attempt, offers, declined: vec![], closed_at: Timestamp(0) };
                bus.publish(&Subject::proposed(), &proposal).await?;
            }
            Ok(())
        });
    }

    async fn inbox(&self) -> Inbox {
        Inbox { commands: self.bus.subscribe(Subject::inbox(&agent())).await.unwrap(), bus: self.bus.clone() }
    }
}

/// The agent's side of the bus.
struct Inbox {
    commands: Subscription,
    bus: Bus,
}

impl Inbox {
    async fn next(&mut self) -> AgentCommand {
        let message = timeout(DEADLINE, self.commands.next()).await.expect("the orchestrator speaks in time").unwrap();
        message.read().unwrap()
    }

    /// The next assignment for a lease that was not assigned before.
    async fn assignment(&mut self, before: Option<&Lease>) -> Assignment {
        loop {
            if let AgentCommand::Assign(assignment) = self.next().await
                && before != Some(&assignment.lease)
            {
                return *assignment;
            }
        }
    }

    async fn acknowledged(&mut self, kind: ReportKind) {
        while !matches!(self.next().await, AgentCommand::Acknowledge { report, .. } if report == kind) {}
    }

    async fn report(&self, lease: &Lease, report: Report) {
        let subject = Subject::report(&agent(), report.kind());
        self.bus.publish(&subject, &AgentReport { lease: lease.clone(), report }).await.unwrap();
    }

    async fn succeed(&self, lease: &Lease) {
        let report =
            Report::Finished { outcome: StageOutcome::Success, reason: None, started_at: Some(Timestamp(1)), finished_at: Timestamp(2) };
        self.report(lease, report).await;
    }
}

async fn ended(orchestrator: &Orchestrator, trigger: &Trigger) -> Arc<Run> {
    let mut appended = orchestrator.runs.follow();
    let ends = async {
        loop {
            match orchestrator.runs.get(&trigger.run()) {
                Some(snapshot) if snapshot.run.ended.is_some() => return snapshot.run,
                _ => appended.recv().await.unwrap(),
            };
        }
    };
    timeout(DEADLINE, ends).await.expect("the run ends in time")
}

#[tokio::test]
async fn a_run_of_three_stages_takes_one_record_from_stage_to_stage() {
    let house = House::new(chain(&["a", "b", "c"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let mut last = None;
    for _ in 0..3 {
        let assignment = inbox.assignment(last.as_ref()).await;
        inbox.succeed(&assignment.lease).await;
        last = Some(assignment.lease);
    }
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(run.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Success));
    let records = orchestrator.runs.get(&run.id).unwrap().records;
    let kinds: Vec<Vec<&str>> = records.iter().map(|record| record.record.events.iter().map(RunEvent::kind).collect()).collect();
    let handed_over = vec!["stage_finished", "stage_ready", "stage_awarded"];
    assert!(kinds.contains(&handed_over), "{kinds:?}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_new_orchestrator_goes_on_where_the_old_one_fell() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    supervisor.shut_down().await;
    // The stage ends while nobody listens; the agent says it again until it is acknowledged.
    inbox.succeed(&a.lease).await;
    let (second, supervisor) = house.start().await;
    let again = inbox.assignment(None).await;
    assert_eq!(again.lease, a.lease, "an award that was not taken up yet is said again, and is the same");
    inbox.succeed(&a.lease).await;
    let b = inbox.assignment(Some(&a.lease)).await;
    assert!(b.lease.fence > a.lease.fence);
    inbox.succeed(&b.lease).await;
    assert_eq!(ended(&second, &trigger).await.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn the_same_trigger_a_hundred_times_is_one_run() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    for _ in 0..100 {
        orchestrator.create(&trigger).await.unwrap();
    }
    let a = inbox.assignment(None).await;
    inbox.succeed(&a.lease).await;
    ended(&orchestrator, &trigger).await;
    assert_eq!(orchestrator.runs.list(None, 10).len(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_late_report_for_an_ended_run_is_stored_or_acknowledged() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let trigger = trigger("1");
    first.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    inbox.succeed(&a.lease).await;
    ended(&first, &trigger).await;
    supervisor.shut_down().await;
    let (second, supervisor) = house.start().await;
    inbox.succeed(&a.lease).await;
    inbox.acknowledged(ReportKind::Finished).await;
    let digest = model::Digest::of(b"");
    let log = model::event::run::StoredLog { bytes: digest, length: 0, index: digest };
    inbox.report(&a.lease, Report::LogStored { log: log.clone() }).await;
    inbox.acknowledged(ReportKind::LogStored).await;
    let snapshot = second.runs.get(&trigger.run()).unwrap();
    assert_eq!(snapshot.run.stages[0].attempts[0].log, Some(log));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn an_agent_that_speaks_of_no_run_is_told_to_forget_it() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (_orchestrator, supervisor) = house.start().await;
    let attempt = model::AttemptId { run: trigger("none").run(), stage: StageId::of("a"), attempt: 1 };
    inbox.succeed(&Lease { attempt, fence: 1 }).await;
    inbox.acknowledged(ReportKind::Finished).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_cancelled_run_tells_its_agent_and_ends_when_the_agent_has() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    inbox.report(&a.lease, Report::Started { at: Timestamp(1) }).await;
    orchestrator.cancel(&trigger.run(), "ann").await.unwrap();
    while !matches!(inbox.next().await, AgentCommand::Cancel { lease } if lease == a.lease) {}
    assert!(orchestrator.runs.get(&trigger.run()).unwrap().run.ended.is_none());
    let report =
        Report::Finished { outcome: StageOutcome::Aborted, reason: None, started_at: Some(Timestamp(1)), finished_at: Timestamp(2) };
    inbox.report(&a.lease, report).await;
    assert_eq!(ended(&orchestrator, &trigger).await.ended.map(|(outcome, _)| outcome), Some(RunOutcome::Aborted));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_silent_winner_is_passed_over_and_fenced() {
    let house = House::new(chain(&["a"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let first = inbox.assignment(None).await;
    let declined = |run: &Run| run.stages[0].attempts.iter().any(|attempt| attempt.end.is_some());
    let mut appended = orchestrator.runs.follow();
    let passed_over = async {
        while !declined(&orchestrator.runs.get(&trigger.run()).unwrap().run) {
            appended.recv().await.unwrap();
        }
    };
    timeout(DEADLINE, passed_over).await.expect("the winner is passed over in time");
    inbox.report(&first.lease, Report::Started { at: Timestamp(1) }).await;
    while !matches!(inbox.next().await, AgentCommand::Cancel { lease } if lease == first.lease) {}
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_damaged_log_is_named_and_not_run_upon() {
    let house = House::new(chain(&["a", "b"])).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let a = inbox.assignment(None).await;
    supervisor.shut_down().await;
    // A record that does not name its predecessor's digest.
    let last = house.bus.run_log(&trigger.run()).await.unwrap().pop().unwrap();
    let text = String::from_utf8(last.bytes.to_vec()).unwrap();
    house.bus.append(&trigger.run(), last.sequence, text.into_bytes().into()).await.unwrap();
    let (second, supervisor) = house.start().await;
    inbox.succeed(&a.lease).await;
    assert!(second.runs.get(&trigger.run()).is_none(), "the run is set aside");
    let _reports_are_heard = house.bus.subscribe(Pattern::statuses()).await.unwrap();
    supervisor.shut_down().await;
}
