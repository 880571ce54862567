//! What travels over the HTTP API: requests, views, and the table of errors. The orchestrator serves these types; the command line and
//! the dashboard read them.
//!
//! A view is made for readers and may lose what they need not know; an event ([`EventView`]) is the log's own, unchanged. Where a thing
//! has a state, the state is one tagged enum that carries its data, so that no reader has to guess which fields belong together.
//!
//! **Invariant:** no HTTP server and no client in here, and no state of the orchestrator: only what both ends must agree on.

mod agent;
mod auction;
mod audit;
mod bytes;
mod event;
mod log;
mod output;
mod plan;
mod problem;
mod project;
mod run;
pub mod schema;
mod source;
mod stage;
mod token;
mod wait;
mod whole;

pub use agent::{AgentList, AgentStageView, AgentTrustView, AgentView, EnrolmentView, Presence};
pub use auction::{AuctionList, AuctionView, StageWhy, WhyView};
pub use audit::{ActionView, AuditList, AuditView, CancelReasonView};
pub use bytes::Base64;
pub use event::{EndView, EventView, RunEventView, SSE_END, SSE_EVENT, SSE_HERE};
pub use log::{ChunkView, GapReason, GapView, OUTPUT_LINES_HEADER, OUTPUT_OFFSET_HEADER, SSE_CHUNK, SSE_GAP};
pub use output::{ArtifactList, ArtifactView, OutputsView, TestFailureView, TestsView, TreeView};
pub use plan::{PlanCreate, PlanDetail, PullRequestView};
pub use problem::{Code, Problem};
pub use project::{
    DeliveryView, EnvironmentDetail, EnvironmentList, EnvironmentRule, EnvironmentView, LockView, ProjectList, ProjectView, ProtectionView,
    RefsView, SourceView,
};
pub use run::{
    Health, PIPELINE_PATH_DEFAULT, PROJECT_DEFAULT, PlanView, ProjectRunCreate, RUN_TIMEOUT_MS_MAX, RerunCreate, RerunStages,
    RevisionCreate, RunCreate, RunCreated, RunDetail, RunList, RunStatus, RunView, StatusName,
};
pub use source::{SOURCE_BYTES_MAX, SourceCreated};
pub use stage::{
    AttemptStatus, AttemptView, DeclineView, LockHolderView, OfferView, OutputView, ReservationView, RetryReasonView, SegmentView,
    SkipView, StageRef, StageStatus, StageView,
};
pub use token::TokenView;
pub use wait::{AnswerCreate, AnswerGiven, AnswerView, OpenWaitView, QuestionView, WaitList, WaitName, WaitView};
