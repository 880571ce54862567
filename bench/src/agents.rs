//! Agents that answer as agents do, each with its own key and connection, and run nothing: a process of their own (`bench agents`), so that
//! the services can be given more agents, and more stages a second, than this machine could run.
//!
//! What such an agent is given prints a line when a shell would have, ends, and its output is stored in the depot as any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use blob::{Blobs, DepotClient};
use bytes::Bytes;
use eventbus::{
    Bus, Message, Subject,
    nats::{Identity, Keys, NatsOptions, connect},
    signed,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    AgentName, AttemptId, StageOutcome, Timestamp,
    event::run::{Outputs, StoredLog},
    plan::Value,
    protocol::{
        agent::{AgentCommand, AgentReport, AgentStatus, Lease, RENEW_MS, RESEND_MS, Report, ReportKind},
        auction::{Announcement, AuctionRequest, Bid, OFFER_VALID_MS, Offer, Reservation},
        log::{LogChunk, LogHeader, LogMark, Stream},
    },
};
use serde::{Deserialize, Serialize};
use service::clock;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// The argument with which the bench is these agents.
pub(crate) const ARGUMENT: &str = "agents";
/// What the process says when all of them have connected.
const READY: &str = "ready";
/// What each stage prints.
const OUTPUT: &str = "x\n";
/// Agents that connect at once: each handshake has two signatures to check.
const CONNECTING: usize = 32;
/// The fact that only one agent of a fleet has.
pub(crate) const RARE: &str = "bench_rare";

/// Who they are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cast {
    /// The folder of the `otto up`.
    pub(crate) data: PathBuf,
    /// The first and the last, by number.
    pub(crate) numbers: (usize, usize),
    /// The slots of each.
    pub(crate) slots: u32,
    /// How long a stage takes until it prints, in milliseconds.
    pub(crate) stage_ms: u64,
    /// Whether they differ: in price, and one in ten has no slot free.
    pub(crate) differ: bool,
    /// The number of the agent that has [`RARE`].
    pub(crate) rare: Option<usize>,
}

/// The `number`th agent's name, which is that of `otto up`.
pub(crate) fn name(number: usize) -> AgentName {
    format!("agent-{number}").parse().expect("letters, a dash and digits are a name")
}

/// What a second of the agent costs where they differ: any of a thousand prices, in no order.
pub(crate) fn price(number: usize) -> u64 {
    100 + spread(number, 7) % 1_000
}

/// Whether others have all slots of the agent where they differ.
pub(crate) fn is_full(number: usize) -> bool {
    spread(number, 3).is_multiple_of(10)
}

/// How long stages take there where they differ, which nobody knows but by running there, in milliseconds.
pub(crate) fn took_ms(number: usize) -> u64 {
    200 + spread(number, 5) % 800
}

fn spread(number: usize, of: u64) -> u64 {
    (number as u64 + of).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

/// The process, as the bench sees it. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Agents(Child);

impl Agents {
    /// Starts them, and returns when all have connected and said that they are there.
    pub(crate) fn start(cast: &Cast) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).arg(serde_json::to_string(cast)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut agents = Self(command.spawn()?);
        let mut line = String::new();
        BufReader::new(agents.0.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
        ensure!(line.trim_end() == READY, "the agents are not ready: {line}");
        Ok(agents)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Where the nats-server of an `otto up` listens.
pub(crate) fn bus_url(data: &Path) -> anyhow::Result<String> {
    Ok(format!("nats://127.0.0.1:{}", port(data, "nats")?))
}

/// The port on which a role of an `otto up` listens.
pub(crate) fn port(data: &Path, role: &str) -> anyhow::Result<u64> {
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(data.join("ports.json"))?)?;
    ports[role].as_u64().with_context(|| format!("ports.json has no {role}"))
}

/// The keys of an `otto up`.
pub(crate) fn keys(data: &Path) -> anyhow::Result<Keys> {
    Ok(Keys::open(&data.join("keys/bus"))?)
}

/// The process itself. It ends when its standard input does.
pub(crate) async fn play(cast: &str) -> anyhow::Result<()> {
    let cast: Cast = serde_json::from_str(cast)?;
    let (url, keys) = (bus_url(&cast.data)?, keys(&cast.data)?);
    let depot = Blobs::Depot(DepotClient::new(&format!("http://127.0.0.1:{}", port(&cast.data, "depot")?), "")?);
    let join = async |number: usize| {
        let name = name(number);
        let credentials = fs::read_to_string(keys.agent_credentials_file(&name))?;
        let bus = connect(&NatsOptions { urls: vec![url.clone()], credentials, identity: Identity::Agent(name.clone()) }).await?;
        let differs = |of: fn(usize) -> u64| if cast.differ { of(number) } else { 0 };
        let ears = [Subject::inbox(&name), Subject::auction("default"), Subject::call(&name)];
        let [inbox, auctions, calls] = ears.map(|subject| bus.subscribe(subject));
        let ears = (inbox.await?, auctions.await?, calls.await?);
        let agent = Agent {
            name,
            slots: cast.slots,
            taken: if cast.differ && is_full(number) { cast.slots } else { 0 },
            price: differs(price),
            is_rare: cast.rare == Some(number),
            stage: Duration::from_millis(cast.stage_ms),
            depot: depot.clone(),
            number: 0,
            bus,
            promised: BTreeMap::new(),
            running: BTreeSet::new(),
            ended: BTreeMap::new(),
            unheard: BTreeMap::new(),
            unstored: BTreeMap::new(),
        };
        anyhow::Ok((agent, ears))
    };
    let joined: Vec<_> = stream::iter(cast.numbers.0..=cast.numbers.1).map(join).buffer_unordered(CONNECTING).try_collect().await?;
    let mut all = JoinSet::new();
    for (mut agent, ears) in joined {
        agent.show().await?;
        all.spawn(agent.work(ears));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    drop(out);
    tokio::select! {
        Some(ended) = all.join_next() => ended?,
        _ = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())) => Ok(()),
    }
}

type Ears = (eventbus::Subscription, eventbus::Subscription, eventbus::Subscription);

struct Agent {
    name: AgentName,
    slots: u32,
    /// Slots that others have.
    taken: u32,
    price: u64,
    is_rare: bool,
    stage: Duration,
    depot: Blobs,
    number: u64,
    bus: Bus,
    /// Until when a slot is kept for an attempt.
    promised: BTreeMap<AttemptId, Instant>,
    running: BTreeSet<Lease>,
    ended: BTreeMap<AttemptId, Instant>,
    /// What was said and not acknowledged, and when.
    unheard: BTreeMap<Lease, (Report, Instant)>,
    /// The right to store what an ended stage has printed, and that with its index: stored when the end was heard, as agents do.
    unstored: BTreeMap<Lease, (String, Bytes)>,
}

/// What an agent has done beside listening.
enum Done {
    Printed(Lease, String, Timestamp),
    Stored(Lease, StoredLog),
}

impl Agent {
    async fn work(mut self, (mut inbox, mut auctions, mut calls): Ears) -> anyhow::Result<()> {
        let mut doing = JoinSet::new();
        let mut show_at = Instant::now() + Duration::from_millis(RENEW_MS);
        loop {
            let said_again_at = self.unheard.values().map(|(_, said)| *said + Duration::from_millis(RESEND_MS)).min();
            let wake_at = said_again_at.map_or(show_at, |at| at.min(show_at));
            tokio::select! {
                biased;
                Some(done) = doing.join_next() => self.done(done??).await?,
                message = inbox.next() => self.obey(&message.context("the bus is closed")?, &mut doing).await?,
                message = calls.next() => self.answer(&message.context("the bus is closed")?).await?,
                message = auctions.next() => self.answer(&message.context("the bus is closed")?).await?,
                () = sleep_until(wake_at) => {
                    let now = Instant::now();
                    if now >= show_at {
                        show_at = now + Duration::from_millis(RENEW_MS);
                        self.show().await?;
                    }
                    let due = |(_, said): &(Report, Instant)| now >= *said + Duration::from_millis(RESEND_MS);
                    let again: Vec<_> = self.unheard.iter().filter(|(_, said)| due(said)).map(|(lease, said)| (lease.clone(), said.0.clone())).collect();
                    for (lease, report) in again {
                        self.report(lease, report).await?;
                    }
                    self.ended.retain(|_, at| now < *at + Duration::from_millis(OFFER_VALID_MS));
                }
            }
        }
    }

    fn free(&self) -> u32 {
        let taken = self.taken as usize + self.running.len() + self.promised.len();
        self.slots.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    async fn show(&mut self) -> anyhow::Result<()> {
        self.number += 1;
        let mut facts = BTreeMap::from([("cores".to_owned(), Value::Integer(2))]);
        if self.is_rare {
            facts.insert(RARE.to_owned(), Value::Boolean(true));
        }
        let status = AgentStatus {
            agent: self.name.clone(),
            slots: self.slots,
            slots_free: self.free(),
            price_micros_per_s: self.price,
            facts,
            leases: self.running.iter().chain(self.unheard.keys()).cloned().collect(),
            number: self.number,
        };
        Ok(self.bus.publish(&Subject::status(&self.name), &status).await?)
    }

    async fn answer(&mut self, message: &Message) -> anyhow::Result<()> {
        let Announcement { request } = message.read()?;
        let now = Instant::now();
        self.promised.retain(|_, until| now < *until);
        let bid = match self.offer(&request) {
            Some(reservation) => {
                if reservation == Reservation::Slot {
                    self.promised.insert(request.attempt.clone(), now + Duration::from_millis(OFFER_VALID_MS));
                }
                Bid::Offer(Offer::new(self.price, 0, reservation))
            }
            None => Bid::Decline { reason: format!("all {} slots are busy", self.slots) },
        };
        Ok(self.bus.publish(&Subject::bid(&self.name, &request.auction), &bid).await?)
    }

    fn offer(&self, request: &AuctionRequest) -> Option<Reservation> {
        let runs = |attempt: &AttemptId| self.running.iter().any(|lease| lease.attempt == *attempt);
        if request.after.iter().any(|before| runs(before) || self.ended.contains_key(before)) {
            return Some(Reservation::Handover);
        }
        (self.free() > 0).then_some(if request.after.is_empty() { Reservation::Slot } else { Reservation::Quote })
    }

    async fn obey(&mut self, message: &Message, doing: &mut JoinSet<anyhow::Result<Done>>) -> anyhow::Result<()> {
        match signed::open(&self.name, &message.payload, None)? {
            AgentCommand::Assign(assignment) => {
                let lease = assignment.lease.clone();
                self.promised.remove(&lease.attempt);
                if self.unheard.contains_key(&lease) || self.ended.contains_key(&lease.attempt) || !self.running.insert(lease.clone()) {
                    return Ok(());
                }
                let started_at = Timestamp(clock::unix_ms());
                self.say(&lease, Report::Started { at: started_at }).await?;
                let stage = self.stage;
                doing.spawn(async move {
                    tokio::time::sleep(stage).await;
                    Ok(Done::Printed(lease, assignment.depot_token, started_at))
                });
            }
            AgentCommand::Acknowledge { lease, report } => {
                if self.unheard.get(&lease).is_some_and(|(said, _)| said.kind() == report) {
                    self.unheard.remove(&lease);
                }
                if report == ReportKind::Finished
                    && let Some((depot_token, both)) = self.unstored.remove(&lease)
                {
                    let depot = self.depot.with_token(&depot_token);
                    doing.spawn(async move {
                        let digest = depot.put(both).await?;
                        Ok(Done::Stored(lease, StoredLog::whole(digest, OUTPUT.len() as u64, digest)))
                    });
                }
            }
            AgentCommand::Cancel { lease, .. } => {
                if self.running.remove(&lease) || self.unheard.remove(&lease).is_some() {
                    self.ended.insert(lease.attempt.clone(), Instant::now());
                }
            }
            AgentCommand::Renewed { .. } | AgentCommand::TellOutput { .. } | AgentCommand::RunAnswer { .. } => {}
        }
        Ok(())
    }

    async fn done(&mut self, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Printed(lease, depot_token, started_at) => {
                if !self.running.contains(&lease) {
                    return Ok(());
                }
                let at = Timestamp(clock::unix_ms());
                let length = u32::try_from(OUTPUT.len())?;
                let mark = LogMark { offset: 0, length, step: 0, stream: Stream::Out, at, lines_before: 0 };
                let both = Bytes::from(OUTPUT.to_owned() + &serde_json::to_string(&mark)? + "\n");
                let header = LogHeader { lease: lease.clone(), mark, segments: Vec::new() };
                let chunk = LogChunk { header, bytes: OUTPUT.into() };
                let subject = Subject::log(&self.name, &lease.attempt.run, &lease.attempt.stage);
                self.bus.publish_bytes(&subject, chunk.encode().into()).await?;
                self.running.remove(&lease);
                self.ended.insert(lease.attempt.clone(), Instant::now());
                let (outcome, started_at, finished_at) = (StageOutcome::Success, Some(started_at), Timestamp(clock::unix_ms()));
                let finished = Report::Finished { outcome, reason: None, started_at, finished_at, outputs: Outputs::default() };
                self.unstored.insert(lease.clone(), (depot_token, both));
                self.report(lease, finished).await?;
            }
            Done::Stored(lease, log) => self.report(lease, Report::LogStored { log }).await?,
        }
        Ok(())
    }

    /// Says it until it is acknowledged, or there is more to say.
    async fn report(&mut self, lease: Lease, report: Report) -> anyhow::Result<()> {
        self.say(&lease, report.clone()).await?;
        self.unheard.insert(lease, (report, Instant::now()));
        Ok(())
    }

    async fn say(&self, lease: &Lease, report: Report) -> anyhow::Result<()> {
        let subject = Subject::report(&self.name, report.kind());
        Ok(self.bus.publish(&subject, &AgentReport { lease: lease.clone(), report }).await?)
    }
}
