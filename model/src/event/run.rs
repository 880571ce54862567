//! The events of a run, and the record in which one append stores them.
//!
//! ```text
//! RunAccepted ─▶ StageReady ─▶ StageAwarded ─▶ StageStarted ─▶ StageFinished ─▶ … ─▶ RunFinished
//!                    ▲              │ StageDeclined │ StageLost
//!                    └──────────────┴───────────────┘                  StageLogStored may come later than RunFinished
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    AgentName, AuctionId, Digest, RunOutcome, StageId, StageOutcome, Timestamp, diagnostic::Diagnostic, protocol::auction::RankedOffer,
    trigger::Trigger,
};

/// The version of the record's form that is written; all up to it are read.
pub const RECORD_SCHEMA: u32 = 1;

/// One message of a run's log: the events that one decision made, stored together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_SCHEMA`] of the writer.
    pub schema: u32,
    /// SHA-256 of the bytes of the record before; `None` for the run's first.
    pub previous: Option<Digest>,
    /// Who decided: the orchestrator's name.
    pub actor: String,
    /// When it was decided.
    pub at: Timestamp,
    /// At least one.
    pub events: Vec<RunEvent>,
}

/// What happened to a run.
#[expect(clippy::large_enum_variant, reason = "the large one stands once in a run")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunEvent {
    /// A trigger was taken up; always the first event.
    RunAccepted {
        /// The trigger.
        trigger: Trigger,
        /// What the parser made of its pipeline.
        planned: Planned,
    },
    /// Everything that the stage needs has succeeded.
    StageReady {
        /// The stage.
        stage: StageId,
        /// The attempt that is now to be placed, from 1.
        attempt: u32,
    },
    /// The attempt was given to an agent. The sequence of the record that holds this event is the attempt's fence.
    StageAwarded {
        /// The stage.
        stage: StageId,
        /// The attempt.
        attempt: u32,
        /// Who won.
        agent: AgentName,
        /// The auction that was won.
        auction: AuctionId,
        /// All offers, the best first.
        offers: Vec<RankedOffer>,
    },
    /// The agent turned the award down, or did not take it up in time; nothing was started.
    StageDeclined {
        /// The stage.
        stage: StageId,
        /// The attempt.
        attempt: u32,
        /// Who declined.
        agent: AgentName,
        /// Why.
        reason: String,
    },
    /// The agent has begun.
    StageStarted {
        /// The stage.
        stage: StageId,
        /// The attempt.
        attempt: u32,
        /// By the agent's clock.
        at: Timestamp,
    },
    /// The attempt has a result. It is the only one that the attempt will ever have.
    StageFinished {
        /// The stage.
        stage: StageId,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        outcome: StageOutcome,
        /// Why, where it is not a success.
        reason: Option<String>,
        /// When it began, by the agent's clock; `None` if it never did.
        started_at: Option<Timestamp>,
        /// When it ended, by the agent's clock.
        finished_at: Timestamp,
    },
    /// The agent is gone: its lease lapsed, or it came back without the attempt.
    StageLost {
        /// The stage.
        stage: StageId,
        /// The attempt.
        attempt: u32,
        /// How it was noticed.
        reason: String,
    },
    /// The stage will not run.
    StageSkipped {
        /// The stage.
        stage: StageId,
        /// Why.
        reason: SkipReason,
    },
    /// The whole output of an attempt lies in the depot.
    StageLogStored {
        /// The stage.
        stage: StageId,
        /// The attempt.
        attempt: u32,
        /// What is stored.
        log: StoredLog,
    },
    /// Somebody asked for the end of the run.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// Nothing will run any more.
    RunFinished {
        /// The worst of its stages' outcomes.
        outcome: RunOutcome,
    },
}

/// What the parser made of a trigger's pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Planned {
    /// The plan lies in the depot.
    Plan {
        /// SHA-256 of its bytes.
        digest: Digest,
    },
    /// There is none.
    Refused {
        /// Why.
        diagnostics: Vec<Diagnostic>,
    },
    /// The pipeline's `triggers` do not name what happened: nothing is to be done.
    NotTriggered {
        /// Which facts do not fit.
        reason: String,
    },
}

/// Why a stage does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SkipReason {
    /// A stage that it needs did not succeed.
    NeedFailed {
        /// That stage.
        stage: StageId,
    },
    /// The run was cancelled before it started.
    Cancelled,
}

/// Where an attempt's output lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLog {
    /// The output's bytes as they came.
    pub bytes: Digest,
    /// How many.
    pub length: u64,
    /// The index: [`crate::protocol::log::LogMark`]s, one JSON object a line.
    pub index: Digest,
}

impl RunEvent {
    /// The event's kind as it stands in the log, for views and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunAccepted { .. } => "run_accepted",
            Self::StageReady { .. } => "stage_ready",
            Self::StageAwarded { .. } => "stage_awarded",
            Self::StageDeclined { .. } => "stage_declined",
            Self::StageStarted { .. } => "stage_started",
            Self::StageFinished { .. } => "stage_finished",
            Self::StageLost { .. } => "stage_lost",
            Self::StageSkipped { .. } => "stage_skipped",
            Self::StageLogStored { .. } => "stage_log_stored",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::RunFinished { .. } => "run_finished",
        }
    }
}
