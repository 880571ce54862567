//! Between orchestrator and agent: assignments and cancels to the agent's inbox, reports and lease renewals back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AgentName, AttemptId, Digest, RunId, RunOutcome, StageOutcome, Timestamp,
    context::CacheScope,
    event::run::{Outputs, StoredLog, StoredTree},
    plan::{Stage, Value},
    protocol::step::RunRequest,
};

/// How long an agent may be silent before its attempts count as lost, in milliseconds.
pub const LEASE_MS: u64 = 15_000;
/// How often an agent renews its leases and shows that it is there, in milliseconds.
pub const RENEW_MS: u64 = 5_000;
/// How often an unanswered message to or from an agent is sent again, in milliseconds.
pub const RESEND_MS: u64 = 500;

/// An attempt together with the right to act for it. The fence is the sequence of the award in the bus's stream: a later award of
/// the stage has a greater one, and what carries a superseded fence changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lease {
    /// The attempt.
    pub attempt: AttemptId,
    /// The award's sequence.
    pub fence: u64,
}

/// What an agent says of itself, when it starts and then every [`RENEW_MS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentStatus {
    /// The agent.
    pub agent: AgentName,
    /// Stages that it runs at once.
    pub slots: u32,
    /// How many of them are free.
    pub slots_free: u32,
    /// The price of a second, in millionths of the installation's currency unit.
    #[serde(default)]
    pub price_micros_per_s: u64,
    /// What it is and has: `arch`, `os`, `cores`, …
    pub facts: BTreeMap<String, Value>,
    /// The leases that it holds: it renews them by saying so.
    pub leases: Vec<Lease>,
    /// Counts the statuses of this life of the agent, from 1; 0 of an agent that does not count.
    #[serde(default)]
    pub number: u64,
}

/// These agents have lately been revoked: nothing more is heard of them, and what they hold is fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Revoked {
    /// Their names.
    pub agents: BTreeSet<AgentName>,
}

/// What arrives in an agent's inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AgentCommand {
    /// Run this.
    Assign(Box<Assignment>),
    /// End this; a report is expected all the same. Also told to an agent that acts under a superseded fence.
    Cancel {
        /// What to end.
        lease: Lease,
        /// At once: no time for its processes to clear up, and no `notify` steps.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// These leases were renewed by the status of this number. Said of stages that hold a lock: their agent ends them before the lease does.
    Renewed {
        /// [`AgentStatus::number`] of the status.
        status: u64,
        /// The leases.
        leases: Vec<Lease>,
    },
    /// The orchestrator does not know what this attempt has said so far: store it, and say where it lies.
    TellOutput {
        /// The attempt.
        lease: Lease,
    },
    /// What became of a [`Report::RunRequested`].
    RunAnswer {
        /// The attempt that asked.
        lease: Lease,
        /// The number of its request.
        number: u32,
        /// The run, and how it ended if it has; or why there is none.
        #[cfg_attr(feature = "schema", schemars(extend("maxProperties" = 1)))]
        answer: Result<StartedRun, String>,
    },
    /// The report about this attempt is in the log, or does not matter any more: forget it.
    Acknowledge {
        /// Which report.
        lease: Lease,
        /// What was reported.
        report: ReportKind,
    },
}

/// A fully resolved stage: no expression, and no name left to look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assignment {
    /// The attempt and its fence.
    pub lease: Lease,
    /// The stage.
    pub stage: Stage,
    /// The project, for the stage's environment.
    pub project: String,
    /// The branch, for the stage's environment; empty if there is none.
    pub branch: String,
    /// The commit, for the stage's environment; empty if there is none.
    pub commit: String,
    /// Whose caches the stage makes: what its steps keep on the agent is shared within it.
    #[serde(default)]
    pub scope: CacheScope,
    /// The source tree in the depot.
    pub source: Option<Digest>,
    /// Lets the agent read what this attempt needs and store what it makes, and nothing else.
    pub depot_token: String,
    /// More facts of the trigger for the environment, by the name of their variable: `OTTO_TAG`, `OTTO_EVENT`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// The run's variables that the stage may use; its steps find them as `VAR_<NAME>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// The artifacts that the stages before it have archived, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, StoredTree>,
    /// How many more there are: an attempt can be given only so many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub artifacts_left_out: u32,
    /// What is put into the work directory before the first step, by the cache's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, CacheRestore>,
    /// The archives of the step libraries that its steps are taken from, by the library's name; the standard library has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub libraries: BTreeMap<String, Digest>,
    /// Configuration of the steps, by symbol; no value of it is left to look up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, BTreeMap<String, Value>>,
    /// Addresses at which the webhooks wait that this stage's steps may hand out: those of its exit, and of the stages right after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<Callback>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A run that a step asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartedRun {
    /// The run.
    pub run: RunId,
    /// How it ended; `None` while it goes on.
    pub outcome: Option<RunOutcome>,
}

impl Assignment {
    /// A stage that is given nothing but its steps.
    pub fn new(lease: Lease, stage: Stage, project: String) -> Self {
        Self {
            lease,
            stage,
            project,
            branch: String::new(),
            commit: String::new(),
            scope: CacheScope::default(),
            source: None,
            depot_token: String::new(),
            facts: BTreeMap::new(),
            variables: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            artifacts_left_out: 0,
            caches: BTreeMap::new(),
            libraries: BTreeMap::new(),
            configuration: BTreeMap::new(),
            callbacks: Vec::new(),
        }
    }
}

/// A cache that is there before a stage begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CacheRestore {
    /// What it has.
    pub tree: StoredTree,
    /// Whether the stage fails if it cannot be restored: it was made by this run. A hint from an earlier run may be missing.
    pub required: bool,
}

/// Where a webhook is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Callback {
    /// What is waited for, for people.
    pub description: String,
    /// The address to POST to, once. Whoever knows it may call.
    pub url: String,
}

/// Which of its reports an agent means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// [`Report::Declined`].
    Declined,
    /// [`Report::Started`].
    Started,
    /// [`Report::Finished`].
    Finished,
    /// [`Report::Lost`].
    Lost,
    /// [`Report::LogStored`].
    LogStored,
    /// [`Report::RunRequested`].
    RunRequested,
}

/// What an agent says of an attempt; sent again every [`RESEND_MS`] until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentReport {
    /// The attempt and its fence.
    pub lease: Lease,
    /// What happened.
    pub report: Report,
}

/// What happened to an attempt on its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Report {
    /// The agent does not take the award up: the slot is gone, or the offer's time is over. Nothing was started.
    Declined {
        /// Why.
        reason: String,
    },
    /// The first step is about to start.
    Started {
        /// By the agent's clock.
        at: Timestamp,
    },
    /// The attempt has ended, and every process of it.
    Finished {
        /// How.
        outcome: StageOutcome,
        /// Why, where it is not a success.
        reason: Option<String>,
        /// When the first step started; `None` if none did.
        started_at: Option<Timestamp>,
        /// When the last process ended.
        finished_at: Timestamp,
        /// What it leaves to others.
        #[serde(default, skip_serializing_if = "Outputs::is_empty")]
        outputs: Outputs,
    },
    /// The agent was restarted while the attempt ran; what was left of it has been ended.
    Lost {
        /// How that was noticed.
        reason: String,
    },
    /// The whole output lies in the depot.
    LogStored {
        /// Where.
        log: StoredLog,
    },
    /// A step asks for a run of another pipeline, or how that run is. Answered by [`AgentCommand::RunAnswer`]; the same number is the same run.
    RunRequested {
        /// Counts the requests of the attempt, from 1.
        number: u32,
        /// What is asked for.
        request: RunRequest,
    },
}

impl Report {
    /// Which report this is, for its acknowledgement.
    pub fn kind(&self) -> ReportKind {
        match self {
            Self::Declined { .. } => ReportKind::Declined,
            Self::Started { .. } => ReportKind::Started,
            Self::Finished { .. } => ReportKind::Finished,
            Self::Lost { .. } => ReportKind::Lost,
            Self::LogStored { .. } => ReportKind::LogStored,
            Self::RunRequested { .. } => ReportKind::RunRequested,
        }
    }
}
