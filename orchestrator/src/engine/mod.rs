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

mod agenda;
mod assign;
mod beside;
mod ears;
mod hints;
mod intake;
mod leases;
mod locks;
mod members;
mod open;
mod others;
mod outbox;
mod parts;
pub(crate) mod plans;
mod polls;
mod protect;
pub(crate) mod putaway;
pub(crate) mod recovery;
mod refusal;
mod requests;
mod series;
mod snapshots;
mod speak;
mod starving;
mod supply;
mod timing;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use blob::{Blobs, token::Signer};
use eventbus::{AppendError, Bus, BusError, TriggerDelivery, Triggers, bus::SUBSCRIPTION_MESSAGES_MAX, roll, signed::CommandSigner};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use model::{
    AgentName, Digest, RunId, StageId, Timestamp,
    context::CacheScope,
    event::run::{RunEvent, RunRecord, WaitKey},
    protocol::{
        auction::{Declined, Proposal},
        orchestrator::Member,
    },
};
use service::{OnError, Supervisor, clock};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, trace, warn};

pub use self::log::LogError;
pub use hints::Hint;
pub use plans::PlanningError;
pub use polls::{InvalidReach, Reach};
pub use protect::Protections;
pub use refusal::CODES;
pub use supply::SupplyError;

pub(crate) use self::hints::Hints;
use self::{
    agenda::Agenda,
    beside::Beside,
    ears::Ears,
    leases::Leases,
    locks::Locks,
    log::Tail,
    open::{APPEND_PAUSE, INPUTS_MAX, OpenRun},
    outbox::{Outbox, post},
    plans::Plans,
    polls::Poller,
    putaway::put_all_away,
    series::{AllSeries, Key},
    snapshots::Snapshots,
    starving::Starving,
    timing::PollKey,
};
use crate::{
    admission::{Admission, Bounds},
    auctions::Auction,
    callbacks::CallbackKey,
    core::{Answer, Context, Input, Run, Status, decide, effects::touched, resolve, work},
    handle::{COMMANDS_MAX, Orchestrator},
    logs::LogHub,
    runs::{Appended, ENDED_RUNS_MAX, Runs},
    traces::{Beginnings, Exporter, TraceOptions},
    views::{Views, ViewsPlace, rebuild::keep},
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
    /// Signs what gives agents work and takes it from them; none where they are in the same process.
    pub commands: Option<CommandSigner>,
    /// From this, the secrets of callbacks are derived. After a restart it must be the same.
    pub callback_key: CallbackKey,
    /// Where outside systems reach the API, such as `https://otto.example.org`; without it, stages are told of no callback.
    pub callback_base: Option<String>,
    /// Which addresses may be polled.
    pub reach: Reach,
    /// What protects the projects.
    pub protections: Protections,
    /// Caches of earlier runs that are in no log of the bus.
    pub hints: Vec<Hint>,
    /// Where the read models are.
    pub views: ViewsPlace,
    /// Ended runs that stay in memory, and in the stream.
    pub ended_runs_max: usize,
    /// What may be under way at once; without it, everything.
    pub bounds: Option<Bounds>,
    /// Whether the logs of older ones go from the stream to the depot.
    pub puts_away: bool,
    /// Whether other orchestrators may work on the same bus.
    pub beside_others: bool,
    /// Where snapshots of long logs lie; without it, none are taken.
    pub snapshots: Option<PathBuf>,
    /// Whether agents get only what they were enrolled for. Where all roles are in one process, nobody was enrolled.
    pub asks_the_roll: bool,
    /// Where spans of runs are exported to; without it, none are made.
    pub traces: Option<TraceOptions>,
}

impl EngineOptions {
    /// An engine whose runs call nobody, and that only this machine's addresses are polled of besides the public ones.
    pub fn new(name: &str, callback_key: CallbackKey) -> Self {
        Self {
            name: name.to_owned(),
            signer: None,
            commands: None,
            callback_key,
            callback_base: None,
            reach: Reach::Loopback,
            protections: Protections::default(),
            hints: Vec::new(),
            views: ViewsPlace::default(),
            ended_runs_max: ENDED_RUNS_MAX,
            bounds: None,
            puts_away: false,
            beside_others: false,
            snapshots: None,
            asks_the_roll: false,
            traces: None,
        }
    }
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The bus is not there.
    #[error("the orchestrator cannot listen to the bus")]
    Bus(#[from] BusError),
    /// No random number tells this start from others.
    #[error("the system gives no random bytes: {0}")]
    Randomness(getrandom::Error),
}

/// Reads the logs, starts the engine under `supervisor`, and gives the handle. When it returns, every open run is in memory.
pub async fn start(options: EngineOptions, bus: Bus, blobs: Blobs, supervisor: &Supervisor) -> Result<Orchestrator, EngineError> {
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let views = Views::at(options.views.clone());
    let beginnings = options.traces.is_some().then(Beginnings::default);
    let handle = Orchestrator {
        runs: Runs::new(views, options.ended_runs_max),
        logs: LogHub::default(),
        plans: Plans::new(bus.clone(), blobs.clone()).protected_by(options.protections.clone()),
        protections: options.protections.clone(),
        blobs,
        bus: bus.clone(),
        commands,
        callback_key: Some(options.callback_key.clone()),
        hints: Arc::default(),
        admission: Admission::new(options.bounds),
    };
    let roll = if options.asks_the_roll {
        handle.runs.agents().ask_the_roll();
        Some(roll::follow(&bus, supervisor).await?)
    } else {
        None
    };
    let (ears, alone) = Ears::open(&bus, received, roll, options.beside_others).await?;
    let beside = if options.beside_others {
        let start = getrandom::u64().map_err(EngineError::Randomness)?;
        // Nothing is put away before it is known whose it is.
        handle.runs.leaving().owns(&BTreeSet::new());
        Some(Beside::new(Member::new(&options.name, start), alone))
    } else {
        None
    };
    let output = LogHub::subscribe(&bus).await?;
    let (outbox, letters) = Outbox::new();
    let (commands, puts_away, name, traces) = (options.commands.clone(), options.puts_away, options.name.clone(), options.traces.clone());
    let mut engine = Engine::new(options, &handle, outbox, beside);
    engine.beginnings.clone_from(&beginnings);
    let end = engine.recover().await?;
    let triggers = bus.triggers().await?;
    let token = supervisor.token().clone();
    supervisor.spawn("outbox", OnError::Shutdown, {
        let (bus, token) = (bus.clone(), token.clone());
        async move {
            post(bus, letters, commands, token).await;
            Ok(())
        }
    });
    spawn_beside(supervisor, "room", handle.admission.clone().watch(handle.blobs.clone()));
    if let Some((traces, beginnings)) = traces.zip(beginnings) {
        let appended = handle.runs.follow();
        let exporter = Exporter::new(traces, name.clone(), handle.runs.clone(), beginnings);
        let token = token.clone();
        supervisor.spawn("traces", OnError::Log, async move {
            exporter.run(appended, token).await;
            Ok(())
        });
    }
    if puts_away {
        spawn_beside(supervisor, "put away", put_all_away(handle.runs.leaving().clone(), name, bus.clone(), handle.blobs.clone()));
    }
    if handle.runs.views().are_kept() {
        let handle = handle.clone();
        spawn_beside(supervisor, "views", async move { keep(&handle, end).await });
    }
    let logs = handle.logs.clone().collect(output, handle.runs.clone(), token.clone());
    supervisor.spawn("logs", OnError::Shutdown, async move { Ok(logs.await?) });
    supervisor.spawn("engine", OnError::Shutdown, async move { Ok(engine.run(ears, triggers, token).await?) });
    Ok(handle)
}

/// What is done beside the runs, until the process ends.
fn spawn_beside(supervisor: &Supervisor, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let token = supervisor.token().clone();
    supervisor.spawn(name, OnError::Log, async move {
        token.run_until_cancelled(work).await;
        Ok(())
    });
}

struct Engine {
    name: String,
    signer: Option<Signer>,
    callback_key: CallbackKey,
    callback_base: Option<String>,
    bus: Bus,
    blobs: Blobs,
    plans: Plans,
    snapshots: Snapshots,
    runs: Runs,
    admission: Admission,
    /// The output of running attempts.
    logs: LogHub,
    outbox: Outbox,
    open: BTreeMap<RunId, OpenRun>,
    /// Runs whose log must not be run upon.
    damaged: BTreeSet<RunId>,
    /// Runs whose triggers are being taken in.
    intake: BTreeSet<RunId>,
    /// Runs whose log is being read again.
    reloading: BTreeSet<RunId>,
    /// Runs of which it is not known yet what they hold: their plans could not be read at the start.
    unread: BTreeSet<RunId>,
    /// How often in a row something was not there that a trigger's or a log's run needs.
    tries: BTreeMap<RunId, u32>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    leases: Leases,
    starving: Starving,
    locks: Locks,
    series: AllSeries,
    /// Series in which something changed, and nothing was made of it yet.
    unsettled: BTreeSet<Key>,
    /// Runs that begin when the one before them in their series has.
    turns: BTreeMap<Key, VecDeque<(TriggerDelivery, intake::Prepared)>>,
    /// Shared with those who ask the handle.
    hints: Arc<RwLock<Hints>>,
    /// Runs that steps have asked for, and whose triggers are being stored.
    requested: BTreeSet<requests::Asked>,
    poller: Poller,
    /// Open runs by when something happens to them by itself.
    agenda: Agenda,
    /// Waits by when their address is asked again.
    polls: Agenda<PollKey>,
    /// Open runs that are looked at in each tick. The others only wait.
    awake: BTreeSet<RunId>,
    /// Runs that have something to decide, once all that is here was heard.
    stirred: BTreeSet<RunId>,
    /// The other orchestrators of this bus, where there may be any.
    beside: Option<Beside>,
    /// Not all logs are read yet, so nothing is made of what runs mean to each other.
    recovering: bool,
    /// When triggers were taken up, for their spans; none where none are made.
    beginnings: Option<Beginnings>,
    /// Agents that were heard of.
    agents: BTreeSet<AgentName>,
    /// The last look at the time.
    ticked: Instant,
}

/// What came of work that took time.
#[expect(clippy::large_enum_variant, reason = "each is moved once, out of the future that made it")]
enum Done {
    /// A trigger's plan is made, or was found.
    Prepared { delivery: TriggerDelivery, outcome: Result<intake::Prepared, intake::LaterReason> },
    /// A trigger has become the first record of a run, or is one already.
    TakenIn { delivery: TriggerDelivery, outcome: intake::TakenIn },
    /// A trigger's run is known: the bus was told.
    Dismissed,
    /// An append came to an end.
    Appended { run: RunId, pending: Pending, outcome: Result<u64, AppendError> },
    /// A log was read again.
    Reloaded { run: RunId, asker: Option<recovery::Asker>, outcome: recovery::Reloaded },
    /// An address was asked.
    Polled { key: PollKey, expected: u16, every: Duration, outcome: timing::Polled },
    /// The trigger that a step asked for was stored, or not.
    Requested { asked: requests::Asked, outcome: Result<RunId, requests::RequestError> },
    /// Whoever held a lock for a run that is set aside has ended.
    Unlocked { run: RunId },
    /// What others have appended was read.
    Followed(beside::Followed),
    /// What nobody waits for: another orchestrator was told something, or a snapshot was taken.
    Told,
}

/// A record on its way to the log.
struct Pending {
    sent: Instant,
    inputs: Vec<Input>,
    record: RunRecord,
    digest: Digest,
    answers: Vec<Answer>,
}

impl Engine {
    fn new(options: EngineOptions, handle: &Orchestrator, outbox: Outbox, beside: Option<Beside>) -> Self {
        let engine = Self {
            name: options.name,
            signer: options.signer,
            callback_key: options.callback_key,
            callback_base: options.callback_base.map(|base| base.trim_end_matches('/').to_owned()),
            plans: handle.plans.clone(),
            snapshots: Snapshots::at(options.snapshots),
            bus: handle.bus.clone(),
            blobs: handle.blobs.clone(),
            runs: handle.runs.clone(),
            admission: handle.admission.clone(),
            logs: handle.logs.clone(),
            outbox,
            open: BTreeMap::new(),
            damaged: BTreeSet::new(),
            intake: BTreeSet::new(),
            reloading: BTreeSet::new(),
            unread: BTreeSet::new(),
            tries: BTreeMap::new(),
            work: FuturesUnordered::new(),
            leases: Leases::default(),
            starving: Starving::default(),
            locks: Locks::default(),
            series: AllSeries::default(),
            unsettled: BTreeSet::new(),
            turns: BTreeMap::new(),
            hints: handle.hints.clone(),
            requested: BTreeSet::new(),
            poller: Poller::new(options.reach),
            agenda: Agenda::default(),
            polls: Agenda::default(),
            awake: BTreeSet::new(),
            stirred: BTreeSet::new(),
            beside,
            recovering: false,
            beginnings: None,
            agents: BTreeSet::new(),
            ticked: Instant::now(),
        };
        engine.give_hints(options.hints);
        engine
    }

    async fn run(mut self, mut ears: Ears, mut triggers: Triggers, token: CancellationToken) -> Result<(), BusError> {
        let mut ticker = interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let open: Vec<RunId> = self.open.keys().cloned().collect();
        for run in open {
            self.speak(&run);
        }
        self.beat();
        loop {
            while let Some(run) = self.stirred.pop_first() {
                self.advance(&run);
            }
            let pause = self.pause();
            let due = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => pending().await,
                }
            };
            let beat_at = self.beside.as_ref().map(Beside::beat_at);
            let beat = async {
                match beat_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => {
                    self.leave().await;
                    return Ok(());
                }
                () = due => self.on_time(),
                () = beat => self.beat(),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                heard = ears.next() => match heard {
                    Some(heard) => {
                        self.hear(heard);
                        self.hear_more(&mut ears, INPUTS_MAX);
                    }
                    None => return if token.is_cancelled() { Ok(()) } else { Err(BusError::Closed) },
                },
                delivery = triggers.next(), if self.takes_in() => match delivery {
                    Some(delivery) => self.take_in(delivery),
                    None => return if token.is_cancelled() { Ok(()) } else { Err(BusError::Closed) },
                },
                _ = ticker.tick(), if !self.awake.is_empty() => {
                    // What was said in time is heard before anything counts as late.
                    self.hear_more(&mut ears, SUBSCRIPTION_MESSAGES_MAX);
                    self.tick();
                }
            }
        }
    }

    /// Whether another trigger can become a run; until then it waits in the stream.
    fn takes_in(&self) -> bool {
        let passed_on = self.beside.as_ref().map_or(0, Beside::passed_on);
        self.intake.len() + passed_on < INTAKE_MAX && self.admission.is_below(self.runs.load_now()).is_ok()
    }

    /// Gives an input to its run. A run that is not in memory is read from the log first; the input is said again by then.
    fn input(&mut self, run: &RunId, input: Input) {
        if self.damaged.contains(run) {
            return;
        }
        if let Some(open) = self.open.get_mut(run) {
            if open.is_own() {
                open.push(input, Instant::now());
                self.awake.insert(run.clone());
                self.stirred.insert(run.clone());
            }
        } else if let Input::Report { agent, report } = &input {
            self.reopen(run, agent, report);
        }
    }

    fn propose(&mut self, mut proposal: Proposal) {
        let run = proposal.attempt.run.clone();
        let Some(open) = self.open.get_mut(&run) else { return };
        let stage = proposal.attempt.stage.clone();
        let Some(at) = open.run.shape.find(&stage) else { return };
        let agents = self.runs.agents();
        work::with(&open.run, at, |asked| {
            let Proposal { offers, declined, unmet, .. } = &mut proposal;
            offers.retain(|ranked| match agents.refuses(&ranked.agent, asked) {
                None => true,
                Some(reason) => {
                    declined.push(Declined { agent: ranked.agent.clone(), reason });
                    false
                }
            });
            if offers.is_empty() && unmet.is_empty() {
                unmet.extend(agents.unmet(asked));
            }
        });
        let unplaced = proposal.offers.is_empty().then(|| proposal.declined.clone());
        let project = open.run.trigger.project.clone();
        self.runs.auctions().remember(Auction { project: project.clone(), proposal: proposal.clone() });
        if !open.is_own() {
            let starves = matches!(open.run.stages[at].status, Status::Ready { .. });
            if starves || unplaced.is_none() {
                self.runs.set_unplaced(&run, &stage, unplaced);
            }
            return;
        }
        self.runs.metrics().auctioned(unplaced.is_none());
        let starves = open.propose(at, proposal, Instant::now());
        // Of a stage that has an agent, or of a run that has ended, a late word says nothing.
        if starves || unplaced.is_none() {
            self.runs.set_unplaced(&run, &stage, unplaced);
        }
        if starves {
            self.starving.push(&project, run.clone(), at, Instant::now());
        } else {
            self.starving.remove(&project, &run, at);
        }
        self.stirred.insert(run);
    }

    /// Decides what is due for the run, and sends the record on its way.
    fn advance(&mut self, run: &RunId) {
        if !self.may_decide() || self.is_unplaced(run) {
            return;
        }
        let Some(open) = self.open.get_mut(run).filter(|open| open.is_own()) else { return };
        let Some(inputs) = open.due(Instant::now()) else { return };
        let now = Timestamp(clock::unix_ms());
        let secrets = secrets(&self.callback_key);
        let agents = self.runs.agents().clone();
        let may_have = |run: &Run, at, agent: &AgentName| work::with(run, at, |asked| agents.refuses(agent, asked).is_none());
        let context = Context { proposals: &open.proposals, may_have: &may_have, callback_secrets: &secrets };
        let decision = decide(&open.run, &context, &inputs, now);
        if decision.events.is_empty() {
            self.answer(decision.answers);
            if inputs.contains(&Input::TimePassed) {
                self.schedule_later(run);
            }
            return;
        }
        trace!(target: WATERFALL, point = "decided", %run);
        self.append(run, inputs, decision.events, decision.answers);
    }

    /// Sends a record on its way.
    fn append(&mut self, run: &RunId, inputs: Vec<Input>, events: Vec<RunEvent>, answers: Vec<Answer>) {
        let Some(open) = self.open.get_mut(run) else { return };
        open.busy = true;
        let tail = open.tail;
        let (record, bytes) = log::encode(tail, &self.name, Timestamp(clock::unix_ms()), events);
        let pending = Pending { sent: Instant::now(), inputs, record, digest: Digest::of(&bytes), answers };
        let (bus, run) = (self.bus.clone(), run.clone());
        self.work.push(Box::pin(async move {
            let outcome = bus.append(&run, tail.sequence, bytes).await;
            Done::Appended { run, pending, outcome }
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Prepared { delivery, outcome } => self.prepared(delivery, outcome),
            Done::TakenIn { delivery, outcome } => self.taken_in(delivery, outcome),
            Done::Dismissed | Done::Told => {}
            Done::Followed(followed) => self.followed(followed),
            Done::Appended { run, pending, outcome: Ok(sequence) } => self.appended(&run, pending, sequence),
            Done::Appended { run, pending, outcome: Err(error) } => self.not_appended(&run, pending, &error),
            Done::Reloaded { run, asker, outcome } => self.reloaded(&run, asker, outcome),
            Done::Polled { key, expected, every, outcome } => self.polled(&key, expected, every, &outcome),
            Done::Requested { asked, outcome } => self.requested(&asked, outcome),
            Done::Unlocked { run } => {
                self.locks.forget(&run);
                self.settle_others();
            }
        }
    }

    fn appended(&mut self, run: &RunId, pending: Pending, sequence: u64) {
        trace!(target: WATERFALL, point = "stored", %run);
        self.runs.metrics().append.took(pending.sent.elapsed());
        self.tell_appended(sequence);
        if !self.open.get(run).is_some_and(|open| open.is_own() && open.tail.digest == pending.record.previous) {
            self.stored_late(run, pending, sequence);
            return;
        }
        self.fenced(run);
        let appended = Appended { run: run.clone(), sequence, record: pending.record };
        self.stored(appended, pending.digest, pending.answers);
        self.settle_others();
    }

    /// Takes up a record that follows the end of its run's log as it is known.
    fn stored(&mut self, appended: Appended, digest: Digest, answers: Vec<Answer>) {
        let run = appended.run.clone();
        let Some(open) = self.open.get_mut(&run) else { return };
        let freed = appended.record.events.iter().filter(|event| frees_a_slot(event)).count();
        if let Err(error) = log::apply(&mut open.run, &appended, 0) {
            self.set_aside(&run, recovery::Damaged { error: error.into(), seen: None });
            return;
        }
        open.stored(Tail { sequence: appended.sequence, digest: Some(digest) });
        let (now, is_own) = (Instant::now(), open.is_own());
        let touched = touched(&open.run, &appended.record.events);
        let unsaid = if !is_own {
            Vec::new()
        } else if let Some(stages) = touched {
            for at in &stages {
                self.leases.follow_stage(&open.run, *at, now);
            }
            open.unsaid_of(&stages, now)
        } else {
            self.leases.follow(&open.run, now);
            open.unsaid(now)
        };
        let (state, appended) = self.runs.publish(&open.run, appended, is_own);
        self.took(&state, &appended);
        self.snapshot(&run, &state);
        if !is_own {
            if state.ended.is_some() {
                // It leaves memory as the owner's does.
                self.awake.insert(run);
            }
            return;
        }
        self.say_all(&run, unsaid);
        self.answer(answers);
        self.wake(freed);
        self.awake.insert(run.clone());
        self.schedule(&run);
        self.teach(&state, &appended);
        self.advance(&run);
    }

    /// Takes a snapshot of the run, every so many records.
    fn snapshot(&self, run: &RunId, state: &Arc<Run>) {
        let Some(open) = self.open.get(run).filter(|open| self.snapshots.wants(open.records) && state.ended.is_none()) else { return };
        let taken = self.snapshots.clone().take(state.clone(), open.tail);
        self.work.push(Box::pin(async move {
            taken.await;
            Done::Told
        }));
    }

    /// Takes up what a stored record means beyond its own run.
    fn took(&mut self, run: &Run, appended: &Appended) {
        self.follow_others(run, appended);
        for (index, event) in appended.record.events.iter().enumerate() {
            let RunEvent::StageFinished { stage, outputs, .. } = event else { continue };
            let Some(at) = run.shape.find(stage).filter(|_| !outputs.caches.is_empty()) else { continue };
            let Ok(stage) = resolve::stage(run, at) else { continue };
            let mut hints = self.hints.write().expect("no holder of this lock panics");
            for (name, tree) in &outputs.caches {
                let key = stage.caches.get(name).and_then(|cache| cache.key.as_ref()?.as_text().map(str::to_owned));
                let hint = Hint {
                    project: run.trigger.project.clone(),
                    scope: CacheScope::of(&run.trigger.context),
                    stage: stage.path.clone(),
                    cache: name.clone(),
                    key,
                    tree: tree.clone(),
                };
                hints.note(hint, (appended.sequence, index));
            }
        }
    }

    /// What earlier runs have left that are in no log here.
    fn give_hints(&self, given: Vec<Hint>) {
        let mut hints = self.hints.write().expect("no holder of this lock panics");
        // Older than every record: the first sequence is 1.
        given.into_iter().enumerate().for_each(|(index, hint)| hints.note(hint, (0, index)));
    }

    /// A run was put among the open ones.
    fn opened(&mut self, run: &RunId) {
        self.awake.insert(run.clone());
        if let Some(open) = self.open.get(run) {
            self.leases.follow(&open.run, Instant::now());
        }
        self.schedule(run);
        self.speak(run);
        self.advance(run);
    }

    /// SHA-256 of the secret of each callback.
    fn secrets(&self) -> impl Fn(&RunId, &StageId, WaitKey) -> Digest + use<> {
        secrets(&self.callback_key)
    }

    fn not_appended(&mut self, run: &RunId, pending: Pending, failure: &AppendError) {
        warn!(%run, error = service::supervisor::chain(failure), "a record was not appended");
        let Some(open) = self.open.get_mut(run) else { return };
        let now = Instant::now();
        if !open.is_own() {
            // What follows from it is its owner's; what of it is stored is read with the rest.
            return;
        }
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
}

fn secrets(key: &CallbackKey) -> impl Fn(&RunId, &StageId, WaitKey) -> Digest + use<> {
    let key = key.clone();
    move |run, stage, wait| Digest::of(key.secret(run, stage, wait).as_bytes())
}

fn frees_a_slot(event: &RunEvent) -> bool {
    matches!(event, RunEvent::StageFinished { .. } | RunEvent::StageLost { .. } | RunEvent::StageDeclined { .. })
}
