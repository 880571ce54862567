//! What plays the orchestrator: it announces, assigns, listens and acknowledges.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use agent::{AgentOptions, Isolation, Level, SandboxError, SandboxOptions, Variables, container::Containers, tool_homes};
use blob::{Blobs, DiskStore, Durability};
use bytes::{Bytes, BytesMut};
use eventbus::{Bus, Pattern, Subject, Subscription, signed::CommandVerifier};
use model::{
    AgentName, AttemptId, AuctionId, Digest, RunId, StageOutcome, TriggerId,
    event::run::Outputs,
    event::run::{LogSegment, StoredLog},
    plan::{Stage, Step, Value},
    protocol::{
        agent::{AgentCommand, AgentReport, AgentStatus, Assignment, Lease, Report, ReportKind},
        auction::{Announcement, AuctionRequest, Bid},
        log::{LogChunk, LogMark, Stream},
    },
};
use service::{Supervisor, supervisor::Ended};
use tempfile::TempDir;
use testkit::TEST_DEADLINE;
use tokio::time::timeout;

pub(crate) struct Office {
    /// Whose commands the agent obeys.
    pub(crate) commands: Option<CommandVerifier>,
    /// The orchestrator's.
    pub(crate) bus: Bus,
    auctioneer: Bus,
    agent: Bus,
    pub(crate) blobs: Blobs,
    pub(crate) supervisor: Supervisor,
    /// What the agent runs containers with.
    pub(crate) containers: Containers,
    pub(crate) disk_reserve_bytes: u64,
    /// How long is waited for a report.
    pub(crate) patience: Duration,
    folder: TempDir,
    reports: [Subscription; 5],
    bids: Subscription,
    pub(crate) logs: Subscription,
    pub(crate) statuses: Subscription,
    pub(crate) sandbox: SandboxOptions,
    pub(crate) passthrough: Variables,
}

/// What became of an assignment.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: StageOutcome,
    pub(crate) reason: Option<String>,
    pub(crate) outputs: Outputs,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) otto: String,
}

impl Ran {
    /// Whether it leaves nothing to others; when its steps ran is told all the same.
    pub(crate) fn left_nothing(&self) -> bool {
        Outputs { steps: Vec::new(), ..self.outputs.clone() }.is_empty()
    }
}

impl Ran {
    pub(crate) fn end(&self) -> (StageOutcome, Option<&str>) {
        (self.outcome, self.reason.as_deref())
    }
}

pub(crate) fn name() -> AgentName {
    "a1".parse().unwrap()
}

/// Stages at this level.
pub(crate) fn isolated(level: Level) -> SandboxOptions {
    let otto = env!("CARGO_BIN_EXE_otto-in-stages").into();
    SandboxOptions { isolation: Isolation::Level(level), otto: Some(otto), ..SandboxOptions::none() }
}

pub(crate) fn sh(script: &str) -> Step {
    step("sh", "script", script)
}

pub(crate) fn step(symbol: &str, parameter: &str, text: &str) -> Step {
    let parameters = BTreeMap::from([(parameter.to_owned(), Value::Text(text.to_owned()))]);
    Step::new("stdlib", symbol, parameters)
}

pub(crate) fn stage(path: &str, steps: Vec<Step>) -> Stage {
    Stage { steps, timeout_ms: 60_000, ..Stage::new(path) }
}

pub(crate) fn lease(stage: &Stage, fence: u64) -> Lease {
    Lease { attempt: AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: stage.id.clone(), attempt: 1 }, fence }
}

pub(crate) fn assignment(stage: Stage, fence: u64) -> Assignment {
    Assignment { branch: "main".to_owned(), commit: "c0ffee".to_owned(), ..Assignment::new(lease(&stage, fence), stage, "shop".to_owned()) }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(TEST_DEADLINE, what, future).await
}

async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    timeout(deadline, future).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}

impl Office {
    /// With an agent of two slots.
    pub(crate) async fn open() -> Self {
        let office = Self::without_agent().await;
        office.start_agent().await;
        office
    }

    /// With an agent that isolates stages so far; `None`, said aloud, where this machine does not offer that.
    pub(crate) async fn isolated(level: Level) -> Option<Self> {
        let mut office = Self::without_agent().await;
        // Few: others work on this machine, too.
        office.sandbox = SandboxOptions { processes: Some(100), ..isolated(level) };
        office.start_if_offered(level).await.then_some(office)
    }

    /// Starts an agent, if this machine offers the level; otherwise says aloud that it does not.
    pub(crate) async fn start_if_offered(&self, level: Level) -> bool {
        match self.try_start().await {
            Ok(()) => true,
            Err(agent::Error::Sandbox(error @ (SandboxError::NotOffered { .. } | SandboxError::NoUsers { .. }))) => {
                println!("SKIPPED at the level `{level}`: {error}");
                false
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    pub(crate) async fn without_agent() -> Self {
        let bus = eventbus::memory::bus();
        Self::on(bus.clone(), bus.clone(), bus).await
    }

    /// Without an agent, on the connections of orchestrator, auctioneer and agent.
    pub(crate) async fn on(bus: Bus, auctioneer: Bus, agent: Bus) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [declined, started, ended, stored, asked] = Pattern::reports();
        let reports = [
            bus.subscribe(declined).await.unwrap(),
            bus.subscribe(started).await.unwrap(),
            bus.subscribe(ended).await.unwrap(),
            bus.subscribe(stored).await.unwrap(),
            bus.subscribe(asked).await.unwrap(),
        ];
        Self {
            blobs: Blobs::Disk(DiskStore::open(&folder.path().join("depot"), Durability::None).unwrap()),
            supervisor: Supervisor::new(),
            containers: Containers::None,
            commands: None,
            disk_reserve_bytes: 0,
            patience: TEST_DEADLINE,
            reports,
            bids: auctioneer.subscribe(Pattern::bids()).await.unwrap(),
            logs: bus.subscribe(Pattern::logs()).await.unwrap(),
            statuses: bus.subscribe(Pattern::statuses()).await.unwrap(),
            bus,
            auctioneer,
            agent,
            folder,
            sandbox: isolated(Level::Group),
            passthrough: tool_homes(&BTreeMap::new()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self) -> AgentOptions {
        AgentOptions {
            name: name(),
            slots: 2,
            data: self.path("agent"),
            price_micros_per_s: 0,
            commands: self.commands.clone(),
            class: "default".to_owned(),
            facts: agent::machine_facts(),
            passthrough: self.passthrough.clone(),
            containers: self.containers.clone(),
            finds_tools: false,
            sandbox: self.sandbox.clone(),
            program: agent::THIS_PROGRAM.into(),
            in_place: None,
            attempts: u32::MAX,
            disk_reserve_bytes: self.disk_reserve_bytes,
        }
    }

    pub(crate) async fn start_agent(&self) {
        self.try_start().await.unwrap();
    }

    pub(crate) async fn try_start(&self) -> Result<(), agent::Error> {
        agent::run(self.options(), self.agent.clone(), self.blobs.clone(), &self.supervisor).await
    }

    /// Its stages run in this directory.
    pub(crate) async fn start_agent_in_place(&self, directory: &Path) {
        let options = AgentOptions { in_place: Some(directory.to_owned()), ..self.options() };
        agent::run(options, self.agent.clone(), self.blobs.clone(), &self.supervisor).await.unwrap();
    }

    pub(crate) async fn stop_agent(&mut self) {
        assert_eq!(self.supervisor.shut_down().await, Ended::InOrder);
        self.supervisor = Supervisor::new();
    }

    pub(crate) async fn ask(&mut self, stage: &Stage, round: u32, after: &[&Stage]) -> Bid {
        let attempt = lease(stage, 0).attempt;
        let request = AuctionRequest {
            requires: stage.requires.clone(),
            after: after.iter().map(|stage| lease(stage, 0).attempt).collect(),
            ..AuctionRequest::new(AuctionId::of(&attempt, round), attempt)
        };
        self.auctioneer.publish(&Subject::auction("default"), &Announcement { request }).await.unwrap();
        soon("a bid", self.bids.next()).await.unwrap().read().unwrap()
    }

    pub(crate) async fn send(&self, command: AgentCommand) {
        self.bus.publish(&Subject::inbox(&name()), &command).await.unwrap();
    }

    pub(crate) async fn assign(&self, assignment: &Assignment) {
        self.send(AgentCommand::Assign(Box::new(assignment.clone()))).await;
    }

    /// Auction and assignment.
    pub(crate) async fn award(&mut self, assignment: &Assignment) {
        let bid = self.ask(&assignment.stage, 0, &[]).await;
        assert!(matches!(bid, Bid::Offer(_)), "{bid:?}");
        self.assign(assignment).await;
    }

    /// The next that the agent says of itself.
    pub(crate) async fn status(&mut self) -> AgentStatus {
        soon("a status", self.statuses.next()).await.unwrap().read().unwrap()
    }

    pub(crate) async fn acknowledge(&self, lease: &Lease, report: ReportKind) {
        self.send(AgentCommand::Acknowledge { lease: lease.clone(), report }).await;
    }

    /// The next report of this kind, not acknowledged. Those of its channel that come before it are skipped.
    pub(crate) async fn report(&mut self, kind: ReportKind) -> AgentReport {
        let channel = match kind {
            ReportKind::Declined => 0,
            ReportKind::Started => 1,
            ReportKind::Finished | ReportKind::Lost => 2,
            ReportKind::LogStored => 3,
            ReportKind::RunRequested => 4,
        };
        let patience = self.patience;
        let [.., subscription] = &mut self.reports[..=channel] else { unreachable!() };
        within(patience, &format!("a report {kind:?}"), async {
            loop {
                let report: AgentReport = subscription.next().await.unwrap().read().unwrap();
                if report.report.kind() == kind {
                    return report;
                }
            }
        })
        .await
    }

    /// The result, acknowledged.
    pub(crate) async fn result(&mut self, lease: &Lease) -> (StageOutcome, Option<String>) {
        let (outcome, reason, _) = self.finished(lease).await;
        (outcome, reason)
    }

    /// The result and what is left to others, acknowledged.
    pub(crate) async fn finished(&mut self, lease: &Lease) -> (StageOutcome, Option<String>, Outputs) {
        loop {
            let report = self.report(ReportKind::Finished).await;
            let Report::Finished { outcome, reason, outputs, .. } = report.report else { unreachable!() };
            if report.lease == *lease {
                self.acknowledge(lease, ReportKind::Finished).await;
                return (outcome, reason, outputs);
            }
        }
    }

    /// Runs an assignment; its outcome, the reason, what is left to others, and its whole output.
    pub(crate) async fn run_assignment(&mut self, assignment: &Assignment) -> Ran {
        self.award(assignment).await;
        let (outcome, reason, outputs) = self.finished(&assignment.lease).await;
        let (bytes, index) = self.stored(&assignment.lease).await;
        let stream = |stream| String::from_utf8_lossy(&said(&bytes, &index, stream)).into_owned();
        Ran { outcome, reason, outputs, out: stream(Stream::Out), err: stream(Stream::Err), otto: stream(Stream::Otto) }
    }

    /// The stored output and its index, acknowledged.
    pub(crate) async fn stored(&mut self, of: &Lease) -> (Bytes, Bytes) {
        let log = self.stored_log(of).await;
        let (mut bytes, mut index) = (BytesMut::new(), BytesMut::new());
        for segment in &log.segments {
            let (its_bytes, its_index) = self.stored_part(segment).await;
            bytes.extend_from_slice(&its_bytes);
            index.extend_from_slice(&its_index);
        }
        assert_eq!(bytes.len() as u64, log.length);
        (bytes.freeze(), index.freeze())
    }

    /// The bytes of a stored part, and its index.
    pub(crate) async fn stored_part(&self, segment: &LogSegment) -> (Bytes, Bytes) {
        let mut bytes = self.blobs.get(&segment.bytes).await.unwrap();
        let index = bytes.split_off(usize::try_from(segment.length).unwrap());
        if segment.is_one_blob() {
            return (bytes, index);
        }
        assert!(index.is_empty(), "{segment:?}");
        (bytes, self.blobs.get(&segment.index).await.unwrap())
    }

    /// Where the output is stored, acknowledged.
    pub(crate) async fn stored_log(&mut self, of: &Lease) -> StoredLog {
        loop {
            let AgentReport { lease, report: Report::LogStored { log } } = self.report(ReportKind::LogStored).await else { unreachable!() };
            if lease == *of {
                self.acknowledge(of, ReportKind::LogStored).await;
                return log;
            }
        }
    }

    /// The first part of an output that the agent says is stored.
    pub(crate) async fn segment(&mut self) -> LogSegment {
        soon("a stored part", async {
            loop {
                let mut chunk = LogChunk::decode(&self.logs.next().await.unwrap().payload).unwrap();
                if !chunk.header.segments.is_empty() {
                    return chunk.header.segments.remove(0);
                }
            }
        })
        .await
    }

    /// Runs a stage of these steps; its outcome, the reason, and its standard output.
    pub(crate) async fn run(&mut self, path: &str, steps: Vec<Step>) -> (StageOutcome, Option<String>, String) {
        self.run_stage(stage(path, steps), None).await
    }

    pub(crate) async fn run_stage(&mut self, stage: Stage, source: Option<Digest>) -> (StageOutcome, Option<String>, String) {
        let assignment = Assignment { source, ..assignment(stage, 1) };
        self.award(&assignment).await;
        let (outcome, reason) = self.result(&assignment.lease).await;
        let (bytes, index) = self.stored(&assignment.lease).await;
        let said = said(&bytes, &index, Stream::Out);
        (outcome, reason, String::from_utf8(said).unwrap())
    }

    /// The next chunk of live output that is the stage's own.
    pub(crate) async fn chunk(&mut self) -> LogChunk {
        soon("live output", async {
            loop {
                let chunk = LogChunk::decode(&self.logs.next().await.unwrap().payload).unwrap();
                if chunk.header.mark.stream == Stream::Out {
                    return chunk;
                }
            }
        })
        .await
    }

    /// Waits until the agent says this itself.
    pub(crate) async fn chunk_of_otto(&mut self, text: &str) {
        soon(text, async {
            loop {
                let chunk = LogChunk::decode(&self.logs.next().await.unwrap().payload).unwrap();
                if chunk.header.mark.stream == Stream::Otto && String::from_utf8_lossy(&chunk.bytes).contains(text) {
                    return;
                }
            }
        })
        .await;
    }

    /// What the agent has written down of what was said, and not stored yet.
    pub(crate) fn kept_output(&self) -> Vec<u8> {
        let attempts = std::fs::read_dir(self.path("agent/spool")).unwrap().map(|entry| entry.unwrap().path());
        let files = attempts.flat_map(|attempt| std::fs::read_dir(attempt).unwrap().map(|entry| entry.unwrap()));
        let outputs = files.filter(|file| file.file_name().to_string_lossy().starts_with("output"));
        outputs.flat_map(|output| std::fs::read(output.path()).unwrap_or_default()).collect()
    }

    /// The agent's folders of attempts, without those that are made ahead: their journal is empty.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let (spool, work) = (self.path("agent/spool"), self.path("agent/work"));
        let list = |folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_ahead = |folder: &Path| std::fs::metadata(folder.join("journal")).map_or(folder.exists(), |journal| journal.len() == 0);
        let forgotten = list(&work).filter(|folder| !is_ahead(&spool.join(folder.file_name().unwrap())));
        forgotten.chain(list(&spool).filter(|folder| !is_ahead(folder))).collect()
    }
}

/// The marks of an index.
pub(crate) fn marks(index: &[u8]) -> Vec<LogMark> {
    index.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The bytes of one stream.
pub(crate) fn said(bytes: &[u8], index: &[u8], stream: Stream) -> Vec<u8> {
    let of_stream = marks(index).into_iter().filter(|mark| mark.stream == stream);
    of_stream.flat_map(|mark| bytes[usize::try_from(mark.offset).unwrap()..][..mark.length as usize].to_vec()).collect()
}

/// Whether a process is there, and no zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    testkit::wait_for(TEST_DEADLINE, what, async || condition().then_some(())).await;
}

/// A short time in which nothing may happen.
pub(crate) const QUIET: Duration = Duration::from_millis(200);
