//! Stages of a run, their attempts, and the offers that decided where they ran.

use model::{AgentName, AuctionId, Digest, RunId, StageId, StageOutcome, Timestamp, plan::Effect};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{OutputsView, WaitView, schema};

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageView {
    /// The stage.
    #[schema(value_type = schema::StageId)]
    pub id: StageId,
    /// The names from the outermost group to the stage, joined by `/`.
    pub path: String,
    /// What must have succeeded before it starts.
    pub needs: Vec<StageRef>,
    /// Whether it may start a second time.
    #[schema(value_type = schema::Effect)]
    pub effect: Effect,
    /// Where it stands.
    pub status: StageStatus,
    /// Every award it had, in their order.
    pub attempts: Vec<AttemptView>,
    /// What it waits or waited for, of people and of the outside.
    pub waits: Vec<WaitView>,
    /// The lock that it holds or held.
    pub lock: Option<String>,
    /// The earlier run that it is taken from; `null` if it runs in this one.
    #[schema(value_type = Option<schema::RunId>)]
    pub reused_from: Option<RunId>,
    /// Whether the run goes on if it fails.
    pub may_fail: bool,
    /// What it has left to others.
    pub outputs: OutputsView,
}

/// Names a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageRef {
    /// The stage.
    #[schema(value_type = schema::StageId)]
    pub id: StageId,
    /// Its path.
    pub path: String,
}

/// Where a stage stands. The agent of a stage that is awarded, running or ended is that of its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StageStatus {
    /// Something that it needs has not succeeded yet.
    Waiting {
        /// What.
        on: Vec<StageRef>,
    },
    /// For people, the outside, or time: see what of [`StageView::waits`] has no answer. No agent is held.
    Gated {
        /// Since when.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
    },
    /// For its lock.
    Queued {
        /// Which.
        lock: String,
        /// Since when.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
        /// Who holds it; `null` if it is just being handed over.
        holder: Option<LockHolderView>,
        /// How many others wait that came before.
        before: usize,
    },
    /// It is to be started again, in a while.
    Pausing {
        /// The attempt that follows.
        attempt: u32,
        /// What it follows.
        after: RetryReasonView,
        /// When it may start.
        #[schema(value_type = schema::Timestamp)]
        due_at: Timestamp,
    },
    /// Its steps have ended, its agent was released, and it waits for its exit gates.
    Exiting {
        /// How its steps ended: the stage, too, if its gates let it.
        #[schema(value_type = schema::StageOutcome)]
        outcome: StageOutcome,
        /// Since when.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
    },
    /// It could start, and no agent has it.
    Ready {
        /// The attempt that is to be placed, from 1.
        attempt: u32,
        /// Since when.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
        /// Agents that were given this attempt and turned it down.
        declined: Vec<DeclineView>,
        /// Why the last auction found nobody: what each agent that answered lacks, nothing where none answered. `null` if no auction was
        /// in vain.
        unplaced: Option<Vec<DeclineView>>,
    },
    /// An agent has it and has not begun.
    Awarded {
        /// Who.
        #[schema(value_type = schema::AgentName)]
        agent: AgentName,
        /// Since when.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
    },
    /// An agent runs it.
    Running {
        /// Who.
        #[schema(value_type = schema::AgentName)]
        agent: AgentName,
        /// Since when, by the agent's clock.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
    },
    /// It has its result.
    Ended {
        /// Which.
        #[schema(value_type = schema::StageOutcome)]
        outcome: StageOutcome,
        /// Why, where it is no success.
        reason: Option<String>,
        /// When its first step began, by the agent's clock; `null` if none did.
        #[schema(value_type = Option<schema::Timestamp>)]
        started_at: Option<Timestamp>,
        /// When it ended: by the agent's clock where it had one.
        #[schema(value_type = schema::Timestamp)]
        at: Timestamp,
    },
    /// Its agent is gone, and it is not started again.
    Lost {
        /// How that was noticed.
        reason: String,
    },
    /// It did not run and will not.
    Skipped {
        /// Why.
        reason: SkipView,
    },
}

/// Why a stage does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SkipView {
    /// A stage that it needs did not succeed.
    NeedFailed {
        /// Which.
        stage: StageRef,
    },
    /// The run was cancelled before it started.
    Cancelled,
    /// A condition does not hold.
    Condition {
        /// The condition, as the pipeline has it.
        condition: String,
        /// What makes it false.
        because: String,
    },
    /// Another stage of its `fanout` failed.
    Fanout {
        /// Which.
        failed: StageRef,
    },
    /// It undoes what did not happen, or what needs no undoing.
    NothingToUndo,
    /// Another stage only was wanted.
    NotWanted,
    /// Another stage failed, and nothing was to start after that.
    Stopped {
        /// Which.
        failed: StageRef,
    },
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockHolderView {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// The stage.
    pub stage: StageRef,
}

/// What an attempt is followed by another one after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryReasonView {
    /// A step failed, or the time was over.
    Failed,
    /// Its agent was lost.
    Lost,
}

/// An agent that did not take a stage, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeclineView {
    /// The agent.
    #[schema(value_type = schema::AgentName)]
    pub agent: AgentName,
    /// Why.
    pub reason: String,
}

/// One award of a stage, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// Which try, from 1; after an award that was declined, the next has the same number.
    pub attempt: u32,
    /// The award's sequence in the log.
    pub fence: u64,
    /// Who won.
    #[schema(value_type = schema::AgentName)]
    pub agent: AgentName,
    /// The auction.
    #[schema(value_type = schema::AuctionId)]
    pub auction: AuctionId,
    /// All offers, the best first: why here.
    pub offers: Vec<OfferView>,
    /// When it was awarded.
    #[schema(value_type = schema::Timestamp)]
    pub awarded_at: Timestamp,
    /// What came of it.
    pub status: AttemptStatus,
    /// Its whole output, once it is stored.
    pub output: Option<OutputView>,
}

/// What came of an award.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AttemptStatus {
    /// The agent has not begun.
    Awarded,
    /// The agent runs it.
    Running {
        /// Since when, by the agent's clock.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
    },
    /// The agent did not take it up; nothing was started.
    Declined {
        /// Why.
        reason: String,
    },
    /// It has its result.
    Finished {
        /// Which.
        #[schema(value_type = schema::StageOutcome)]
        outcome: StageOutcome,
        /// Why, where it is no success.
        reason: Option<String>,
        /// When its first step began, by the agent's clock; `null` if none did.
        #[schema(value_type = Option<schema::Timestamp>)]
        started_at: Option<Timestamp>,
        /// When it ended, by the agent's clock.
        #[schema(value_type = schema::Timestamp)]
        at: Timestamp,
    },
    /// The agent is gone.
    Lost {
        /// How that was noticed.
        reason: String,
    },
}

/// An offer of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferView {
    /// Who made it.
    #[schema(value_type = schema::AgentName)]
    pub agent: AgentName,
    /// The price of a second of the agent, in millionths of the installation's currency unit.
    pub price_micros_per_s: u64,
    /// How long until the first step would start, in milliseconds.
    pub start_ms: u64,
    /// What is kept for the winner.
    pub reservation: ReservationView,
}

/// What an offer keeps free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReservationView {
    /// A free slot.
    Slot,
    /// The slot of the stage before, from its end.
    Handover,
    /// Nothing: a quote.
    Quote,
}

/// Where an attempt's output lies in the depot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputView {
    /// How many bytes it has.
    pub length: u64,
    /// Its parts, in their order; without any, nothing was said.
    pub segments: Vec<SegmentView>,
}

/// A part of an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentView {
    /// The blob that begins with its bytes as they came.
    #[schema(value_type = schema::Digest)]
    pub bytes: Digest,
    /// How many.
    pub length: u64,
    /// Bytes of the output before it.
    pub offset: u64,
    /// Line feeds of the output before it.
    pub lines_before: u64,
}
