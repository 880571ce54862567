//! Between orchestrator and agent: assignments and cancels to the agent's inbox, reports and lease renewals back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AgentName, AttemptId, Digest, StageOutcome, Timestamp,
    event::run::StoredLog,
    plan::{Stage, Value},
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
pub struct Lease {
    /// The attempt.
    pub attempt: AttemptId,
    /// The award's sequence.
    pub fence: u64,
}

/// What an agent says of itself, when it starts and then every [`RENEW_MS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent.
    pub agent: AgentName,
    /// Stages that it runs at once.
    pub slots: u32,
    /// How many of them are free.
    pub slots_free: u32,
    /// What it is and has: `arch`, `os`, `cores`, …
    pub facts: BTreeMap<String, Value>,
    /// The leases that it holds: it renews them by saying so.
    pub leases: Vec<Lease>,
}

/// What arrives in an agent's inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AgentCommand {
    /// Run this.
    Assign(Box<Assignment>),
    /// End this; a report is expected all the same. Also told to an agent that acts under a superseded fence.
    Cancel {
        /// What to end.
        lease: Lease,
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
    /// The source tree in the depot.
    pub source: Option<Digest>,
    /// Lets the agent read the source and store this attempt's output, and nothing else.
    pub depot_token: String,
}

/// Which of its reports an agent means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
}

/// What an agent says of an attempt; sent again every [`RESEND_MS`] until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// The attempt and its fence.
    pub lease: Lease,
    /// What happened.
    pub report: Report,
}

/// What happened to an attempt on its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        }
    }
}
