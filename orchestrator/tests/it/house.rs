//! A bus and a depot, and the roles around the orchestrator, which the tests play themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use blob::{Blobs, DiskStore, disk::Durability};
use eventbus::{Bus, Subject, Subscription};
use model::{
    AgentClass, AgentName, Digest, RunId, RunOutcome, StageId, StageOutcome, Timestamp, TriggerId,
    context::TriggerContext,
    diagnostic::{Diagnostic, Severity, Span},
    event::run::Outputs,
    plan::{Need, NeedReason, Plan, PlanDocument, Stage, StageKind, Step, Value, Wait},
    planning::{PlanReply, PlanRequest, Text},
    protocol::{
        agent::{AgentCommand, AgentReport, Assignment, Lease, Report, ReportKind},
        auction::{AuctionRequest, Offer, Proposal, RankedOffer, Reservation},
        enrolment::{AgentTrust, DrainReply, DrainRequest, Enrolled, RollPage, RollRequest},
    },
    trigger::Trigger,
};
use orchestrator::{
    Orchestrator,
    callbacks::CallbackKey,
    core::Run,
    engine::{self, EngineOptions},
    http::{ApiToken, HttpOptions, Projects, Tokens},
    runs::Snapshot,
};
use serde_json::Value as Json;
use service::{OnError, Supervisor};
use tokio::time::timeout;

pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// What no agent has.
pub(crate) const NOBODY: &str = "nobody";
const TOKEN: &str = "a token for tests";

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
    Trigger::new(TriggerId::of("test", delivery), "demo".parse().unwrap(), "Ottofile", Text::Inline("pipeline {}".to_owned()))
}

/// The parser's answer with this plan.
pub(crate) fn planned(plan: Plan, not_triggered: Option<String>) -> PlanReply {
    let document = PlanDocument::new(plan);
    let plan = Text::Inline(String::from_utf8(document.bytes().to_vec()).unwrap());
    PlanReply::Planned { digest: document.digest(), plan, warnings: vec![], not_triggered }
}

/// The parser's answer where it refuses the file.
pub(crate) fn refused(request: &PlanRequest) -> PlanReply {
    let diagnostic = Diagnostic {
        code: "E0201".into(),
        severity: Severity::Error,
        message: "the file has no `pipeline` block".to_owned(),
        file: request.path.clone(),
        line: 1,
        column: 1,
        span: Span::default(),
        label: String::new(),
        help: String::new(),
    };
    PlanReply::Refused { diagnostics: vec![diagnostic] }
}

/// A bus and a depot, which outlive the orchestrators that are started on them.
pub(crate) struct House {
    pub(crate) bus: Bus,
    pub(crate) blobs: Blobs,
    pub(crate) others: Supervisor,
    /// It outlives the orchestrators.
    callback_key: CallbackKey,
    folder: tempfile::TempDir,
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
        let house = Self { bus, blobs, others: Supervisor::new(), callback_key, folder };
        house.play_auctioneer().await;
        house
    }

    pub(crate) async fn start(&self) -> (Orchestrator, Supervisor) {
        self.start_with(|options| options).await
    }

    /// With options of its own.
    pub(crate) async fn start_with(&self, change: impl FnOnce(EngineOptions) -> EngineOptions) -> (Orchestrator, Supervisor) {
        self.start_on(self.bus.clone(), change).await
    }

    /// With options of its own, and a line of its own to the bus.
    pub(crate) async fn start_on(&self, bus: Bus, change: impl FnOnce(EngineOptions) -> EngineOptions) -> (Orchestrator, Supervisor) {
        let supervisor = Supervisor::new();
        let options = change(EngineOptions::new("test", self.callback_key.clone()));
        let orchestrator = engine::start(options, bus, self.blobs.clone(), &supervisor).await.unwrap();
        (orchestrator, supervisor)
    }

    /// The API of an orchestrator, as a client sees it.
    pub(crate) fn serve(&self, orchestrator: &Orchestrator) -> Api {
        self.serve_for(orchestrator, Tokens::default())
    }

    /// The same, for others besides the owner.
    pub(crate) fn serve_for(&self, orchestrator: &Orchestrator, tokens: Tokens) -> Api {
        let text = "title: The demo\nsource: { url: 'https://git.example/demo' }\nprotection: { environments: { production: {} } }\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("demo.yml"), text).unwrap();
        let projects = Projects::of(config::load(folder.path()).unwrap());
        let options = HttpOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            token: ApiToken::new(TOKEN),
            tokens,
            projects,
            requests_per_s: None,
            hosts: vec![],
            origins: vec![],
        };
        let address = orchestrator::http::serve(options, orchestrator.clone(), &self.others).unwrap();
        Api {
            client: service::web::client("").timeout(DEADLINE).build().unwrap(),
            base: format!("http://{address}"),
            token: TOKEN.to_owned(),
        }
    }

    /// The depot loses these bytes.
    pub(crate) fn lose(&self, digest: &Digest) {
        let mut open = vec![self.folder.path().to_owned()];
        let mut lost = 0;
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.to_string_lossy().replace('/', "").ends_with(digest.hex().as_str()) {
                    std::fs::remove_file(path).unwrap();
                    lost += 1;
                }
            }
        }
        assert_eq!(lost, 1, "the depot has {digest} in one file");
    }

    /// Gives the one answer to every question.
    pub(crate) async fn play_parser(&self, reply: PlanReply) {
        self.play_parser_with(move |_| reply.clone()).await;
    }

    pub(crate) async fn play_parser_with(&self, answer: impl Fn(&PlanRequest) -> PlanReply + Send + 'static) {
        let mut asked = self.bus.subscribe_group(Subject::plan()).await.unwrap();
        self.others.spawn("parser", OnError::Log, async move {
            while let Some(message) = asked.next().await {
                let request: PlanRequest = message.read()?;
                message.reply(&answer(&request)).await?;
            }
            Ok(())
        });
    }

    /// Proposes the one agent for whatever is asked, but for stages that demand [`NOBODY`].
    pub(crate) async fn play_auctioneer(&self) {
        let mut asked = self.bus.subscribe(Subject::for_auction()).await.unwrap();
        let bus = self.bus.clone();
        self.others.spawn("auctioneer", OnError::Log, async move {
            while let Some(message) = asked.next().await {
                let request: AuctionRequest = message.read()?;
                let reservation = if request.after.is_empty() { Reservation::Slot } else { Reservation::Handover };
                let offer = Offer::new(0, 0, reservation);
                let nobody = request.except.contains(&agent()) || request.requires.contains_key(NOBODY);
                let offers = if nobody { vec![] } else { vec![RankedOffer { agent: agent(), offer }] };
                let AuctionRequest { auction, attempt, .. } = request;
                let proposal = Proposal { auction, attempt, offers, declined: vec![], unmet: vec![], closed_at: Timestamp(0) };
                bus.publish(&Subject::proposed(), &proposal).await?;
            }
            Ok(())
        });
    }

    /// Says who is enrolled, each in the class of all, and has them drain. A draining one is not remembered as such.
    pub(crate) async fn play_enrolment(&self, agents: &[(&str, AgentTrust)]) {
        let class = AgentClass::default();
        let enrolled = |trust| Enrolled { class: class.clone(), trust, draining: false };
        let agents: BTreeMap<AgentName, Enrolled> = agents.iter().map(|(name, trust)| (name.parse().unwrap(), enrolled(*trust))).collect();
        let mut asked = self.bus.subscribe(Subject::roll()).await.unwrap();
        let mut drained = self.bus.subscribe(Subject::drain()).await.unwrap();
        self.others.spawn("eventbus", OnError::Log, async move {
            loop {
                tokio::select! {
                    Some(message) = asked.next() => {
                        let RollRequest { after } = message.read()?;
                        message.reply(&RollPage { after, through: None, agents: agents.clone() }).await?;
                    }
                    Some(message) = drained.next() => {
                        let DrainRequest { agent, draining } = message.read()?;
                        let known = agents.get(&agent).cloned();
                        let done = |enrolled| DrainReply::Done { enrolled: Enrolled { draining, ..enrolled } };
                        message.reply(&known.map_or(DrainReply::Unknown, done)).await?;
                    }
                    else => return Ok(()),
                }
            }
        });
    }

    /// An agent does whatever it is told to, at once.
    pub(crate) async fn with_an_agent(&self) {
        self.have_it_done(self.inbox().await);
    }

    /// The same, of an agent whose inbox is listened to.
    pub(crate) fn have_it_done(&self, mut inbox: Inbox) {
        self.others.spawn("agent", OnError::Log, async move {
            while let Some(message) = inbox.commands.next().await {
                if let AgentCommand::Assign(assignment) = message.read()? {
                    inbox.succeed(&assignment.lease).await;
                }
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
        self.finish(lease, StageOutcome::Success, Outputs::default()).await;
    }

    pub(crate) async fn finish(&self, lease: &Lease, outcome: StageOutcome, outputs: Outputs) {
        let report = Report::Finished { outcome, reason: None, started_at: Some(Timestamp(1)), finished_at: Timestamp(2), outputs };
        self.report(lease, report).await;
    }
}

/// The API of an orchestrator.
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// The same, asked with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { client: self.client.clone(), base: self.base.clone(), token: token.to_owned() }
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// What it is asked with.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A question with the token, which is not sent yet.
    pub(crate) fn ask(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Json) {
        self.answer(self.client.get(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        self.answer(self.client.post(format!("{}{path}", self.base)).json(body)).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Json) {
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Json::String(text)))
    }
}

/// The code of a refusal, and its status.
pub(crate) fn refusal((status, problem): (u16, Json)) -> (u16, String) {
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

/// The run as soon as it is as it should be.
pub(crate) async fn until(orchestrator: &Orchestrator, trigger: &Trigger, what: &str, is: impl Fn(&Run) -> bool) -> Snapshot {
    let mut appended = orchestrator.runs.follow();
    let seen = async {
        loop {
            match orchestrator.runs.get(&trigger.run()) {
                Some(snapshot) if is(&snapshot.run) => return snapshot,
                _ => drop(appended.recv().await),
            }
        }
    };
    timeout(DEADLINE, seen).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}

pub(crate) fn is_asked(run: &Run, stage: &str) -> bool {
    run.stage(&StageId::of(stage)).is_some_and(|(_, stage)| stage.open_waits().next().is_some())
}

pub(crate) fn outcome(run: &Run) -> Option<RunOutcome> {
    run.ended.map(|(outcome, _)| outcome)
}

/// A stage that is a wait.
pub(crate) fn waiting(path: &str, wait: Wait) -> Stage {
    Stage { kind: StageKind::Wait(wait), ..Stage::new(path) }
}

pub(crate) fn after(stage: Stage, need: &str) -> Stage {
    Stage { needs: vec![Need { stage: StageId::of(need), reason: NeedReason::Order }], ..stage }
}

/// The trigger of a run of this branch.
pub(crate) fn on_branch(delivery: &str, branch: &str) -> Trigger {
    Trigger { context: TriggerContext { branch: branch.to_owned(), ..TriggerContext::default() }, ..trigger(delivery) }
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
