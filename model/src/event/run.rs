//! The events of a run, and the record in which one append stores them.
//!
//! ```text
//! RunAccepted ─▶ WaitOpened ─▶ LockQueued ─▶ StageReady ─▶ StageAwarded ─▶ StageStarted ─▶ StageFinished ─▶ WaitOpened ─▶ StageEnded ─▶ … ─▶ RunFinished
//!                WaitAnswered  LockAcquired     ▲              │ StageDeclined │ StageLost      │         WaitAnswered
//!                (enter gates)                  └──────────────┴───── StageRetried ─────────────┘        (exit gates)
//! ```
//!
//! `StageLogStored` may come later than `RunFinished`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AgentName, AuctionId, Digest, RunId, RunOutcome, StageId, StageOutcome, Timestamp,
    diagnostic::Diagnostic,
    plan::{RetryReason, Stage},
    protocol::auction::RankedOffer,
    trigger::Trigger,
};

/// The version of the record's form that is written; all up to it are read.
pub const RECORD_SCHEMA: u32 = 2;

/// One message of a run's log: the events that one decision made, stored together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunRecord {
    /// [`RECORD_SCHEMA`] of the writer.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = RECORD_SCHEMA)))]
    pub schema: u32,
    /// SHA-256 of the bytes of the record before; `None` for the run's first.
    pub previous: Option<Digest>,
    /// Who decided: the orchestrator's name.
    pub actor: String,
    /// When it was decided.
    pub at: Timestamp,
    /// At least one.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub events: Vec<RunEvent>,
}

/// What happened to a run.
#[expect(clippy::large_enum_variant, reason = "the large one stands once in a run")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunEvent {
    /// A trigger was taken up; always the first event.
    RunAccepted {
        /// The trigger.
        trigger: Trigger,
        /// What the parser made of its pipeline.
        planned: Planned,
    },
    /// Nothing stands before the attempt any more: what the stage needs has ended well, its gates and its lock let it through, its pause is over.
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
    /// The attempt has a result. It is the only one that the attempt will ever have, and the stage's unless the same record starts it again or
    /// opens its exit gates.
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
        /// What it leaves to others.
        #[serde(default, skip_serializing_if = "Outputs::is_empty")]
        outputs: Outputs,
    },
    /// The attempt did not end well and is to be followed by another one.
    StageRetried {
        /// The stage.
        stage: StageId,
        /// The attempt that follows.
        attempt: u32,
        /// What it follows.
        after: RetryReason,
        /// When it may start.
        due_at: Timestamp,
    },
    /// The stage has come to its end without an agent, or after its agent was released: what it waited for was answered, or refused.
    StageEnded {
        /// The stage.
        stage: StageId,
        /// How it ended.
        outcome: StageOutcome,
        /// Why, where it is not a success.
        reason: Option<String>,
    },
    /// The stage is not run again: it is as it was in an earlier run of the same plan.
    StageReused {
        /// The stage.
        stage: StageId,
        /// The run in which it ran.
        of: RunId,
        /// How it ended there.
        outcome: StageOutcome,
        /// What it left there.
        #[serde(default, skip_serializing_if = "Outputs::is_empty")]
        outputs: Outputs,
    },
    /// Something is waited for from now on, and no agent is held.
    WaitOpened {
        /// The stage.
        stage: StageId,
        /// Which of its waits.
        wait: WaitKey,
        /// What is shown to whoever is waited for, with every variable put in.
        question: Question,
        /// When it is over without an answer; `None` if never.
        due_at: Option<Timestamp>,
    },
    /// What was waited for has happened. A wait has at most one answer. The call of a webhook may come before the wait is open.
    WaitAnswered {
        /// The stage.
        stage: StageId,
        /// Which of its waits.
        wait: WaitKey,
        /// What happened.
        answer: Answer,
        /// Who answered; `None` if nobody in person did.
        by: Option<String>,
    },
    /// The stage waits for its lock.
    LockQueued {
        /// The stage.
        stage: StageId,
        /// The lock.
        lock: String,
    },
    /// The stage has its lock, until it is over.
    LockAcquired {
        /// The stage.
        stage: StageId,
        /// The lock.
        lock: String,
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
    /// The stage alone is to end: another one of its `fanout` failed. That it is aborted for this does not make the run aborted.
    StageCancelRequested {
        /// The stage.
        stage: StageId,
        /// The one that failed.
        failed: StageId,
    },
    /// The run waits for the end of an older one: its pipeline says `newer = wait`.
    RunHeld {
        /// The older run.
        older: RunId,
    },
    /// The older run has ended.
    RunReleased,
    /// Somebody asked for the end of the run, a newer run did, or its time was over. It may be asked for again, if that ends more, or harder.
    CancelRequested {
        /// Who, for people.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "CancelReason::is_person")]
        reason: CancelReason,
        /// Whether running steps are ended at once, without a word to them; stages that cannot be reached count as ended.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Nothing will run any more.
    RunFinished {
        /// The worst of its stages' outcomes.
        outcome: RunOutcome,
    },
}

/// What the parser made of a trigger's pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Planned {
    /// The plan lies in the depot.
    Plan {
        /// SHA-256 of its bytes.
        digest: Digest,
        /// The archives of the step libraries that its steps are taken from, by their name in the plan. They lie in the depot, and nothing else
        /// is run as them; the standard library has none.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        libraries: BTreeMap<String, Digest>,
        /// What may not be meant as it is written: the first of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Diagnostic>,
        /// How many more warnings there are.
        #[serde(default, skip_serializing_if = "is_zero")]
        warnings_left_out: usize,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Planned {
    /// A plan of the standard steps alone, without a warning.
    pub fn plan(digest: Digest) -> Self {
        Self::Plan { digest, libraries: BTreeMap::new(), warnings: Vec::new(), warnings_left_out: 0 }
    }

    /// The archives of the libraries that the stage's steps are taken from, steps in blocks and in its `notify` included.
    pub fn libraries_of(&self, stage: &Stage) -> BTreeMap<String, Digest> {
        let Self::Plan { libraries, .. } = self else { return BTreeMap::new() };
        let used = stage.every_step().into_iter().filter_map(|step| libraries.get_key_value(&step.library));
        used.map(|(name, digest)| (name.clone(), *digest)).collect()
    }
}

/// Why a stage does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SkipReason {
    /// A stage that it needs did not succeed.
    NeedFailed {
        /// That stage.
        stage: StageId,
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
    /// Another stage of its `fanout` failed before it started.
    Fanout {
        /// That stage.
        failed: StageId,
    },
    /// It undoes what did not happen, or what needs no undoing.
    NothingToUndo,
    /// The trigger wants another stage only, and this is not needed for it.
    NotWanted,
    /// Another stage failed, and the trigger wants nothing to start after that.
    Stopped {
        /// That stage.
        failed: StageId,
    },
}

/// Why a run is cancelled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CancelReason {
    /// A person or a program asked for it.
    #[default]
    Person,
    /// A newer run takes its place: its pipeline says `newer = cancel`. Started stages with the effect `once` go on.
    Newer {
        /// That run.
        run: RunId,
    },
    /// The run's own time was over.
    TimedOut,
}

impl CancelReason {
    fn is_person(&self) -> bool {
        *self == Self::Person
    }
}

/// One of the things that a stage waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "gate", content = "number")]
pub enum WaitKey {
    /// The stage is a wait itself.
    Itself,
    /// Of [`Stage::enter`](crate::plan::Stage::enter), the one at this place.
    Enter(u32),
    /// Of [`Stage::exit`](crate::plan::Stage::exit), the one at this place.
    Exit(u32),
}

/// What is shown to whoever is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Question {
    /// Approve this delivery or refuse it.
    Confirm {
        /// What is asked.
        message: String,
        /// Who may answer; empty for all who may approve.
        by: Vec<String>,
        /// What is approved: plan, source tree, trigger context, run and gate.
        delivery: Digest,
    },
    /// Answer with a text.
    Prompt {
        /// What is asked.
        message: String,
        /// The variable that will hold the answer.
        into: String,
        /// The answers to choose from; empty for any text.
        options: Vec<String>,
        /// Who may answer; empty for all who may approve.
        by: Vec<String>,
    },
    /// Call back.
    Webhook {
        /// What is waited for, for people.
        description: String,
        /// SHA-256 of the secret in the address that is to be called.
        secret: Digest,
    },
    /// An address is asked until it answers as expected.
    Poll {
        /// The address.
        url: String,
        /// The expected status code.
        status: u16,
        /// Between two questions, in milliseconds.
        every_ms: u64,
    },
    /// Time passes.
    Time,
    /// A person resumes the run.
    Pause,
}

/// What happened to something that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Answer {
    /// A person approved the delivery.
    Approved {
        /// What was approved: the same digest as was asked for.
        delivery: Digest,
    },
    /// A person refused it.
    Refused {
        /// Why, if the person said so.
        reason: Option<String>,
    },
    /// A person's text.
    Text {
        /// The text.
        text: String,
    },
    /// The outside system called.
    CalledBack,
    /// The address answered as expected.
    Polled,
    /// The time has passed.
    Elapsed,
    /// A person resumed the run.
    Resumed,
    /// Nobody answered in time.
    TimedOut,
}

/// What an attempt leaves to other stages and to people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outputs {
    /// Variables that its steps captured, by name; `None` for one that was dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Option<String>>,
    /// Artifacts that its steps archived, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, StoredTree>,
    /// Caches that it defines, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub caches: BTreeMap<String, StoredTree>,
    /// The test reports that its steps read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestReport>,
    /// When its steps began and ended: of those that have ended, the first [`Outputs::STEPS_MAX`], in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepTime>,
}

/// When a step ran, with all its tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepTime {
    /// Its number, from 0: in the order in which steps are written, those of `notify` last, a step's own before those in it.
    pub step: u32,
    /// When it began, by the agent's clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether it ended its stage, or its tries were used up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl Outputs {
    /// Steps whose times are told: those of nearly every stage, and some kilobytes.
    pub const STEPS_MAX: usize = 64;

    /// Whether it leaves nothing, and tells nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Files and directories in the depot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoredTree {
    /// SHA-256 of the archive.
    pub archive: Digest,
    /// Its bytes.
    pub bytes: u64,
    /// Files, directories and links in it.
    pub entries: u64,
}

/// What test reports say, added up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TestReport {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, or ended in an error.
    pub failed: u64,
    /// Tests that were left out.
    pub skipped: u64,
    /// How long all took, in milliseconds.
    pub duration_ms: u64,
    /// The first [`TestReport::FAILURES_MAX`] of those that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<TestFailure>,
}

impl TestReport {
    /// Failures that are kept of one attempt; all are counted.
    pub const FAILURES_MAX: usize = 100;
}

/// A test that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TestFailure {
    /// Its suite or class.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// What it said; at most [`TestFailure::MESSAGE_BYTES_MAX`].
    pub message: String,
}

impl TestFailure {
    /// Bytes of a message that are kept.
    pub const MESSAGE_BYTES_MAX: usize = 1_000;
}

/// More bytes than any output has. Who says a greater number is not believed, so sums of such numbers are numbers.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 53;

/// Where an attempt's output lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(from = "WrittenLog")]
pub struct StoredLog {
    /// The output's bytes as they came, in parts; empty where nothing was said.
    pub segments: Vec<LogSegment>,
    /// How many bytes all parts have together.
    pub length: u64,
}

/// A part of an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogSegment {
    /// The blob with its bytes.
    pub bytes: Digest,
    /// How many.
    pub length: u64,
    /// Bytes of the attempt's output before it.
    pub offset: u64,
    /// Line feeds of the attempt's output before it.
    pub lines_before: u64,
    /// The blob with its index: [`crate::protocol::log::LogMark`]s, one JSON object a line. Where it is the same blob, the index is what follows
    /// the bytes.
    pub index: Digest,
}

/// [`StoredLog`] as it is written, and as the first form of it was.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum WrittenLog {
    Segments { segments: Vec<LogSegment>, length: u64 },
    Whole { bytes: Digest, length: u64, index: Digest },
}

impl From<WrittenLog> for StoredLog {
    fn from(written: WrittenLog) -> Self {
        match written {
            WrittenLog::Segments { segments, length } => Self { segments, length },
            WrittenLog::Whole { bytes, length, index } => Self::whole(bytes, length, index),
        }
    }
}

impl LogSegment {
    /// Whether its numbers are such as an output can have.
    pub fn is_sound(&self) -> bool {
        self.offset <= OUTPUT_BYTES_MAX && self.length <= OUTPUT_BYTES_MAX && self.lines_before <= self.offset
    }

    /// Whether the index follows the bytes.
    pub fn is_one_blob(&self) -> bool {
        self.bytes == self.index
    }

    /// The byte behind its last.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

impl StoredLog {
    /// Whether its parts are such as an output can have, one after the other.
    pub fn is_sound(&self) -> bool {
        let is_ordered = self.segments.windows(2).all(|two| two[0].end() <= two[1].offset && two[0].lines_before <= two[1].lines_before);
        is_ordered && self.length <= OUTPUT_BYTES_MAX && self.segments.iter().all(LogSegment::is_sound)
    }

    /// An output in one part.
    pub fn whole(bytes: Digest, length: u64, index: Digest) -> Self {
        Self { segments: vec![LogSegment { bytes, length, offset: 0, lines_before: 0, index }], length }
    }
}

impl RunEvent {
    /// The stage that it is about, if it is about one.
    pub fn stage(&self) -> Option<&StageId> {
        match self {
            Self::StageReady { stage, .. }
            | Self::StageAwarded { stage, .. }
            | Self::StageDeclined { stage, .. }
            | Self::StageStarted { stage, .. }
            | Self::StageFinished { stage, .. }
            | Self::StageRetried { stage, .. }
            | Self::StageEnded { stage, .. }
            | Self::StageReused { stage, .. }
            | Self::WaitOpened { stage, .. }
            | Self::WaitAnswered { stage, .. }
            | Self::LockQueued { stage, .. }
            | Self::LockAcquired { stage, .. }
            | Self::StageLost { stage, .. }
            | Self::StageSkipped { stage, .. }
            | Self::StageCancelRequested { stage, .. }
            | Self::StageLogStored { stage, .. } => Some(stage),
            Self::RunAccepted { .. }
            | Self::RunHeld { .. }
            | Self::RunReleased
            | Self::CancelRequested { .. }
            | Self::RunFinished { .. } => None,
        }
    }

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
            Self::StageRetried { .. } => "stage_retried",
            Self::StageEnded { .. } => "stage_ended",
            Self::StageReused { .. } => "stage_reused",
            Self::WaitOpened { .. } => "wait_opened",
            Self::WaitAnswered { .. } => "wait_answered",
            Self::LockQueued { .. } => "lock_queued",
            Self::LockAcquired { .. } => "lock_acquired",
            Self::StageCancelRequested { .. } => "stage_cancel_requested",
            Self::RunHeld { .. } => "run_held",
            Self::RunReleased => "run_released",
            Self::RunFinished { .. } => "run_finished",
        }
    }
}
