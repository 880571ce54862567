//! A bus and a depot, and the roles around the orchestrator, which the tests play themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use blob::{Blobs, DiskStore, disk::Durability};
use eventbus::{Bus, Subject, Subscription};
use model::{
    AgentName, RunId, StageId, StageOutcome, Timestamp, TriggerId,
    context::TriggerContext,
    plan::{Need, NeedReason, Plan, PlanDocument, Stage, Step, Value},
    planning::{PlanReply, PlanRequest, Text},
    protocol::{
        agent::{AgentCommand, AgentReport, Assignment, Lease, Report, ReportKind},
        auction::{AuctionRequest, Offer, Proposal, RankedOffer, Reservation},
    },
    trigger::Trigger,
};
use orchestrator::{
    Orchestrator,
    callbacks::CallbackKey,
    core::Run,
    engine::{self, EngineOptions},
};
use service::{OnError, Supervisor};
use tokio::time::timeout;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn agent() -> AgentName {
    "one".parse().unwrap()
}

/// A chain of stages.
pub(crate) fn chain(names: &[&str]) -> Plan {
    let stages = names.iter().enumerate().map(|(at, name)| Stage {
        needs: at.checked_sub(1).map(|at| Need { stage: StageId::of(names[at]), reason: NeedReason::Order }).into_iter().collect(),
        timeout_ms: 60_000,
        steps: vec![Step::new("stdlib", "sh", BTreeMap::from([("script".to_owned(), Value::from("make"))]))],
        ..Stage::new(name)
    });
    Plan::new(stages.collect())
}

pub(crate) fn trigger(delivery: &str) -> Trigger {
    Trigger {
        id: TriggerId::of("test", delivery),
        project: "demo".parse().unwrap(),
        context: TriggerContext::default(),
        pipeline_path: "Ottofile".to_owned(),
        pipeline: Text::Inline("pipeline {}".to_owned()),
        source: None,
        listing: None,
        changed: None,
        lock: None,
        missing_libraries: BTreeMap::new(),
        claims: model::trigger::Claims::default(),
        rerun: None,
        timeout_ms: None,
        only: None,
        stop_at_failure: false,
    }
}

/// The parser's answer with this plan.
pub(crate) fn planned(plan: Plan, not_triggered: Option<String>) -> PlanReply {
    let document = PlanDocument::new(plan);
    let plan = Text::Inline(String::from_utf8(document.bytes().to_vec()).unwrap());
    PlanReply::Planned { digest: document.digest(), plan, warnings: vec![], not_triggered }
}

/// A bus and a depot, which outlive the orchestrators that are started on them.
pub(crate) struct House {
    pub(crate) bus: Bus,
    pub(crate) blobs: Blobs,
    pub(crate) others: Supervisor,
    /// It outlives the orchestrators.
    callback_key: CallbackKey,
    _folder: tempfile::TempDir,
}

impl House {
    pub(crate) async fn new(plan: Plan) -> Self {
        Self::on(eventbus::memory::bus(), plan).await
    }

    pub(crate) async fn on(bus: Bus, plan: Plan) -> Self {
        let house = Self::without_parser(bus).await;
        house.play_parser(planned(plan, None)).await;
        house
    }

    pub(crate) async fn without_parser(bus: Bus) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let callback_key = CallbackKey::generate().unwrap();
        let house = Self { bus, blobs, others: Supervisor::new(), callback_key, _folder: folder };
        house.play_auctioneer().await;
        house
    }

    pub(crate) async fn start(&self) -> (Orchestrator, Supervisor) {
        self.start_with(|options| options).await
    }

    /// With options of its own.
    pub(crate) async fn start_with(&self, change: impl FnOnce(EngineOptions) -> EngineOptions) -> (Orchestrator, Supervisor) {
        let supervisor = Supervisor::new();
        let options = change(EngineOptions::new("test", self.callback_key.clone()));
        let orchestrator = engine::start(options, self.bus.clone(), self.blobs.clone(), &supervisor).await.unwrap();
        (orchestrator, supervisor)
    }

    /// Gives the one answer to every question.
    pub(crate) async fn play_parser(&self, reply: PlanReply) {
        self.play_parser_with(move |_| reply.clone()).await;
    }

    pub(crate) async fn play_parser_with(&self, answer: impl Fn(&PlanRequest) -> PlanReply + Send + 'static) {
        let mut asked = self.bus.subscribe_group(Subject::plan(), "parser").await.unwrap();
        self.others.spawn("parser", OnError::Log, async move {
            while let Some(message) = asked.next().await {
                let request: PlanRequest = message.read()?;
                message.reply(&answer(&request)).await?;
            }
            Ok(())
        });
    }

    /// Proposes the one agent for whatever is asked.
    pub(crate) async fn play_auctioneer(&self) {
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

    pub(crate) async fn inbox(&self) -> Inbox {
        Inbox { commands: self.bus.subscribe(Subject::inbox(&agent())).await.unwrap(), bus: self.bus.clone() }
    }
}

/// The agent's side of the bus.
pub(crate) struct Inbox {
    pub(crate) commands: Subscription,
    bus: Bus,
}

impl Inbox {
    pub(crate) async fn next(&mut self) -> AgentCommand {
        let message = timeout(DEADLINE, self.commands.next()).await.expect("the orchestrator speaks in time").unwrap();
        message.read().unwrap()
    }

    /// The next assignment for a lease that was not assigned before.
    pub(crate) async fn assignment(&mut self, before: Option<&Lease>) -> Assignment {
        loop {
            if let AgentCommand::Assign(assignment) = self.next().await
                && before != Some(&assignment.lease)
            {
                return *assignment;
            }
        }
    }

    pub(crate) async fn acknowledged(&mut self, kind: ReportKind) {
        while !matches!(self.next().await, AgentCommand::Acknowledge { report, .. } if report == kind) {}
    }

    pub(crate) async fn report(&self, lease: &Lease, report: Report) {
        let subject = Subject::report(&agent(), report.kind());
        self.bus.publish(&subject, &AgentReport { lease: lease.clone(), report }).await.unwrap();
    }

    pub(crate) async fn succeed(&self, lease: &Lease) {
        let report = Report::Finished {
            outcome: StageOutcome::Success,
            reason: None,
            started_at: Some(Timestamp(1)),
            finished_at: Timestamp(2),
            outputs: model::event::run::Outputs::default(),
        };
        self.report(lease, report).await;
    }
}

pub(crate) async fn ended(orchestrator: &Orchestrator, trigger: &Trigger) -> Arc<Run> {
    ended_within(orchestrator, trigger, DEADLINE).await
}

pub(crate) async fn ended_within(orchestrator: &Orchestrator, trigger: &Trigger, limit: Duration) -> Arc<Run> {
    run_ended_within(orchestrator, &trigger.run(), limit).await
}

pub(crate) async fn ended_run(orchestrator: &Orchestrator, run: &RunId) -> Arc<Run> {
    run_ended_within(orchestrator, run, DEADLINE).await
}

async fn run_ended_within(orchestrator: &Orchestrator, run: &RunId, limit: Duration) -> Arc<Run> {
    let mut appended = orchestrator.runs.follow();
    let ends = async {
        loop {
            match orchestrator.runs.get(run) {
                Some(snapshot) if snapshot.run.ended.is_some() => return snapshot.run,
                _ => drop(appended.recv().await),
            }
        }
    };
    timeout(limit, ends).await.expect("the run ends in time")
}
