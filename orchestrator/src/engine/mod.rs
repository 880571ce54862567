//! The engine: the one loop that owns all open runs, and does IO around their pure cores.
//!
//! ```text
//! triggers ─┐                                      ┌─▶ log (append, one under way for each run)
//! reports ──┼─▶ Engine ── decide ── effects ───────┼─▶ outbox ─▶ agents, auctioneer
//! commands ─┘      ▲                               └─▶ Runs (readers, followers)
//!                  └───────── Done ◀──────────────────┘
//! ```
//!
//! The loop awaits nothing that it does not select on: what takes time is a future among `work`, and comes back as a `Done`.
//! Whatever is lost here is in the log, or is said again by whoever said it.

pub(crate) mod log;

mod intake;
mod leases;
mod open;
mod outbox;
pub(crate) mod plans;
pub(crate) mod recovery;
mod refusal;
mod speak;
mod starving;
mod supply;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blob::{Blobs, token::Signer};
use eventbus::{AppendError, Bus, BusError, Message, Pattern, Subject, Subscription, TriggerDelivery, Triggers};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use model::{
    AgentName, Digest, RunId, Timestamp,
    event::run::{CancelReason, RunEvent, RunRecord},
    protocol::{
        agent::{AgentReport, AgentStatus},
        auction::Proposal,
    },
};
use service::{OnError, Supervisor, clock};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, trace, warn};

pub use self::log::LogError;
pub use plans::PlanningError;
pub use refusal::CODES;
pub use supply::SupplyError;

use self::{
    leases::Leases,
    log::Tail,
    open::{APPEND_PAUSE, OpenRun},
    outbox::{Outbox, post},
    plans::Plans,
    starving::Starving,
};
use crate::{
    core::{Answer, Context, Input, decide, effects::touched},
    handle::{COMMANDS_MAX, Command, CommandError, Orchestrator},
    logs::LogHub,
    runs::{Appended, Runs},
};

/// The target of the log lines from which the benchmark draws where the time of a stage goes.
pub(crate) const WATERFALL: &str = "waterfall";
/// How often time itself is looked at while a run is open.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at the time so much means that the process was stopped: what agents said meanwhile is not heard yet.
const STALL: Duration = Duration::from_secs(2);
/// Triggers whose plan is being made at once; more wait in the stream.
const INTAKE_MAX: usize = 64;
/// Stages without an agent that are auctioned again for one slot that became free, or one tick.
const WOKEN_MAX: usize = 16;

/// What the engine is told at its start.
#[derive(Debug)]
pub struct EngineOptions {
    /// Stands in every record as its actor.
    pub name: String,
    /// Signs the agents' rights at the depot; none where agents read the store on disk.
    pub signer: Option<Signer>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The bus is not there.
    #[error("the orchestrator cannot listen to the bus")]
    Bus(#[from] BusError),
}

/// Reads the logs, starts the engine under `supervisor`, and gives the handle. When it returns, every open run is in memory.
pub async fn start(options: EngineOptions, bus: Bus, blobs: Blobs, supervisor: &Supervisor) -> Result<Orchestrator, EngineError> {
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let handle = Orchestrator { runs: Runs::default(), logs: LogHub::default(), blobs: blobs.clone(), bus: bus.clone(), commands };
    let [declined, started, finished, stored, requested] = Pattern::reports();
    let ears = Ears {
        reports: [
            bus.subscribe(declined).await?,
            bus.subscribe(started).await?,
            bus.subscribe(finished).await?,
            bus.subscribe(stored).await?,
            bus.subscribe(requested).await?,
        ],
        statuses: bus.subscribe(Pattern::statuses()).await?,
        proposals: bus.subscribe(Subject::proposed()).await?,
        commands: received,
    };
    let output = LogHub::subscribe(&bus).await?;
    let (outbox, letters) = Outbox::new();
    let mut engine = Engine {
        name: options.name,
        signer: options.signer,
        plans: Plans::new(bus.clone(), blobs),
        bus: bus.clone(),
        runs: handle.runs.clone(),
        outbox,
        open: BTreeMap::new(),
        damaged: BTreeSet::new(),
        intake: BTreeSet::new(),
        reloading: BTreeSet::new(),
        work: FuturesUnordered::new(),
        leases: Leases::default(),
        starving: Starving::default(),
        agents: BTreeSet::new(),
        ticked: Instant::now(),
    };
    engine.recover().await?;
    let triggers = bus.triggers().await?;
    let token = supervisor.token().clone();
    supervisor.spawn("outbox", OnError::Shutdown, {
        let (bus, token) = (bus.clone(), token.clone());
        async move {
            post(bus, letters, token).await;
            Ok(())
        }
    });
    let logs = handle.logs.clone().collect(output, handle.runs.clone(), token.clone());
    supervisor.spawn("logs", OnError::Shutdown, async move { Ok(logs.await?) });
    supervisor.spawn("engine", OnError::Shutdown, async move { Ok(engine.run(ears, triggers, token).await?) });
    Ok(handle)
}

/// Everything that the engine listens to but triggers.
struct Ears {
    reports: [Subscription; 5],
    statuses: Subscription,
    proposals: Subscription,
    commands: mpsc::Receiver<Command>,
}

struct Engine {
    name: String,
    signer: Option<Signer>,
    bus: Bus,
    plans: Plans,
    runs: Runs,
    outbox: Outbox,
    open: BTreeMap<RunId, OpenRun>,
    /// Runs whose log must not be run upon.
    damaged: BTreeSet<RunId>,
    /// Runs whose triggers are being taken in.
    intake: BTreeSet<RunId>,
    /// Runs whose log is being read again.
    reloading: BTreeSet<RunId>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    leases: Leases,
    starving: Starving,
    /// Agents that were heard of.
    agents: BTreeSet<AgentName>,
    /// The last look at the time.
    ticked: Instant,
}

/// What came of work that took time.
#[expect(clippy::large_enum_variant, reason = "each is moved once, out of the future that made it")]
enum Done {
    /// A trigger has become the first record of a run, or is one already.
    TakenIn { delivery: TriggerDelivery, outcome: intake::TakenIn },
    /// A trigger's run is known: the bus was told.
    Dismissed,
    /// An append came to an end.
    Appended { run: RunId, pending: Pending, outcome: Result<u64, AppendError> },
    /// A log was read again.
    Reloaded { run: RunId, asker: Option<recovery::Asker>, outcome: recovery::Reloaded },
}

/// A record on its way to the log.
struct Pending {
    inputs: Vec<Input>,
    record: RunRecord,
    digest: Digest,
    answers: Vec<Answer>,
}

/// Something that arrived.
enum Heard {
    Report(Message),
    Status(Message),
    Proposal(Message),
    Command(Command),
}

impl Ears {
    /// The next thing that arrives. Cancel safe.
    async fn next(&mut self) -> Option<Heard> {
        let [declined, started, finished, stored, requested] = &mut self.reports;
        tokio::select! {
            message = finished.next() => message.map(Heard::Report),
            message = started.next() => message.map(Heard::Report),
            message = declined.next() => message.map(Heard::Report),
            message = stored.next() => message.map(Heard::Report),
            message = requested.next() => message.map(Heard::Report),
            message = self.proposals.next() => message.map(Heard::Proposal),
            message = self.statuses.next() => message.map(Heard::Status),
            command = self.commands.recv() => command.map(Heard::Command),
        }
    }
}

impl Engine {
    async fn run(mut self, mut ears: Ears, mut triggers: Triggers, token: CancellationToken) -> Result<(), BusError> {
        let mut ticker = interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let open: Vec<RunId> = self.open.keys().cloned().collect();
        for run in open {
            self.speak(&run);
        }
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                heard = ears.next() => match heard {
                    Some(heard) => self.hear(heard),
                    None => return if token.is_cancelled() { Ok(()) } else { Err(BusError::Closed) },
                },
                delivery = triggers.next(), if self.intake.len() < INTAKE_MAX => match delivery {
                    Some(delivery) => self.take_in(delivery),
                    None => return if token.is_cancelled() { Ok(()) } else { Err(BusError::Closed) },
                },
                _ = ticker.tick(), if !self.open.is_empty() => self.tick(),
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Report(message) => {
                let Some((agent, report)) = spoken::<AgentReport>(&message) else { return };
                let run = report.lease.attempt.run.clone();
                trace!(target: WATERFALL, point = "report heard", attempt = %report.lease.attempt, report = ?report.report.kind());
                self.leases.renew(&report.lease, &agent, Instant::now());
                self.input(&run, Input::Report { agent, report });
            }
            Heard::Status(message) => {
                let Some((agent, status)) = spoken::<AgentStatus>(&message) else { return };
                self.status(&agent, &status);
            }
            Heard::Proposal(message) => match message.read::<Proposal>() {
                Ok(proposal) => self.propose(proposal),
                Err(error) => warn!(error = service::supervisor::chain(&error), "not a proposal"),
            },
            Heard::Command(Command::Cancel { run, by, done }) => {
                let known = self.runs.get(&run).map(|snapshot| snapshot.run.ended.is_some());
                let outcome = match known {
                    None => Err(CommandError::UnknownRun(run)),
                    Some(true) => Err(CommandError::Ended(run)),
                    Some(false) => {
                        self.input(&run, Input::Cancel { by, reason: CancelReason::Person, force: false });
                        Ok(())
                    }
                };
                let _caller_left = done.send(outcome);
            }
        }
    }

    /// Gives an input to its run. A run that is not in memory is read from the log first; the input is said again by then.
    fn input(&mut self, run: &RunId, input: Input) {
        if self.damaged.contains(run) {
            return;
        }
        if let Some(open) = self.open.get_mut(run) {
            open.push(input, Instant::now());
            self.advance(run);
        } else if let Input::Report { agent, report } = &input {
            self.reopen(run, agent, report);
        }
    }

    fn propose(&mut self, proposal: Proposal) {
        let run = proposal.attempt.run.clone();
        let Some(open) = self.open.get_mut(&run) else { return };
        let stage = proposal.attempt.stage.clone();
        let unplaced = proposal.offers.is_empty().then(|| proposal.declined.clone());
        let at = open.run.shape.find(&stage);
        let starves = open.propose(proposal, Instant::now());
        self.runs.set_unplaced(&run, &stage, unplaced);
        if let (true, Some(at)) = (starves, at) {
            self.starving.push(run.clone(), at);
        }
        self.advance(&run);
    }

    /// Decides what is due for the run, and sends the record on its way.
    fn advance(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run) else { return };
        let Some(inputs) = open.due(Instant::now()) else { return };
        let now = Timestamp(clock::unix_ms());
        let context = Context { proposals: &open.proposals, callback_secrets: &intake::no_secrets };
        let decision = decide(&open.run, &context, &inputs, now);
        if decision.events.is_empty() {
            self.answer(decision.answers);
            return;
        }
        trace!(target: WATERFALL, point = "decided", %run);
        open.busy = true;
        let tail = open.tail;
        let (record, bytes) = log::encode(tail, &self.name, now, decision.events);
        let pending = Pending { inputs, record, digest: Digest::of(&bytes), answers: decision.answers };
        let (bus, run) = (self.bus.clone(), run.clone());
        self.work.push(Box::pin(async move {
            let outcome = bus.append(&run, tail.sequence, bytes).await;
            Done::Appended { run, pending, outcome }
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::TakenIn { delivery, outcome } => self.taken_in(delivery, outcome),
            Done::Dismissed => {}
            Done::Appended { run, pending, outcome: Ok(sequence) } => self.appended(&run, pending, sequence),
            Done::Appended { run, pending, outcome: Err(error) } => self.not_appended(&run, pending, &error),
            Done::Reloaded { run, asker, outcome } => self.reloaded(&run, asker, outcome),
        }
    }

    fn appended(&mut self, run: &RunId, pending: Pending, sequence: u64) {
        trace!(target: WATERFALL, point = "stored", %run);
        let Some(open) = self.open.get_mut(run) else { return };
        let appended = Appended { run: run.clone(), sequence, record: pending.record };
        let freed = appended.record.events.iter().filter(|event| frees_a_slot(event)).count();
        if let Err(error) = log::apply(&mut open.run, &appended, 0) {
            error!(%run, error = service::supervisor::chain(&error), "the run is set aside");
            self.open.remove(run);
            self.damaged.insert(run.clone());
            return;
        }
        open.stored(Tail { sequence, digest: Some(pending.digest) });
        let now = Instant::now();
        if open.run.next_due().is_some_and(|due| due <= Timestamp(clock::unix_ms())) {
            open.push(Input::TimePassed, now);
        }
        let touched = touched(&open.run, &appended.record.events);
        let unsaid = if let Some(stages) = touched {
            for at in &stages {
                self.leases.follow_stage(&open.run, *at, now);
            }
            open.unsaid_of(&stages, now)
        } else {
            self.leases.follow(&open.run, now);
            open.unsaid(now)
        };
        self.runs.publish(&open.run, appended);
        self.say_all(run, unsaid);
        self.answer(pending.answers);
        self.wake(freed);
        self.advance(run);
    }

    fn not_appended(&mut self, run: &RunId, pending: Pending, failure: &AppendError) {
        warn!(%run, error = service::supervisor::chain(failure), "a record was not appended");
        let Some(open) = self.open.get_mut(run) else { return };
        let now = Instant::now();
        match failure {
            AppendError::Bus(BusError::TooLarge { .. }) => {
                if let Some(input) = open.divide(pending.inputs, now) {
                    error!(%run, ?input, "an input whose events are too large for a record is dropped");
                }
                self.advance(run);
            }
            AppendError::Bus(_) => {
                open.put_back(pending.inputs, now, APPEND_PAUSE);
                open.busy = false;
            }
            AppendError::Conflict { .. } | AppendError::Unknown { .. } => {
                open.put_back(pending.inputs, now, APPEND_PAUSE);
                open.reloading = true;
                self.reload(run.clone(), None);
            }
        }
    }

    /// Looks at the time: what is late is said again, given up, or forgotten.
    fn tick(&mut self) {
        let now = Instant::now();
        let stalled = now - std::mem::replace(&mut self.ticked, now) >= STALL;
        // Whoever could not be heard is not late.
        let heard = self.bus.is_connected() && !stalled;
        if !heard {
            self.leases.excuse(now);
        }
        for lease in self.leases.lapsed(now) {
            let run = lease.attempt.run.clone();
            debug!(attempt = %lease.attempt, "the lease lapsed");
            self.input(&run, Input::LeaseLapsed(lease));
        }
        let runs: Vec<RunId> = self.open.keys().cloned().collect();
        for run in runs {
            let Some(open) = self.open.get_mut(&run) else { continue };
            if heard {
                for input in open.not_taken_up(now) {
                    open.push(input, now);
                }
            } else {
                open.excuse(now);
            }
            if open.run.next_due().is_some_and(|due| due <= Timestamp(clock::unix_ms())) {
                open.push(Input::TimePassed, now);
            }
            if open.is_done(now) {
                self.leases.forget(&run);
                self.open.remove(&run);
                continue;
            }
            self.speak(&run);
            self.advance(&run);
        }
    }
}

fn frees_a_slot(event: &RunEvent) -> bool {
    matches!(event, RunEvent::StageFinished { .. } | RunEvent::StageLost { .. } | RunEvent::StageDeclined { .. })
}

/// What an agent says under its own subject, whatever the message claims.
fn spoken<T: serde::de::DeserializeOwned>(message: &Message) -> Option<(AgentName, T)> {
    let agent = message.subject.agent()?;
    match message.read() {
        Ok(said) => Some((agent, said)),
        Err(error) => {
            warn!(%agent, error = service::supervisor::chain(&error), "an agent said what cannot be read");
            None
        }
    }
}
