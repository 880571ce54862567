//! Who did what.

use model::{ProjectName, RunId, Timestamp, context::EventKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AnswerView, schema};

/// What people and programs did to the runs of the token's projects, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// Each deed.
    pub entries: Vec<AuditView>,
    /// Ask again with this as `cursor` for older ones; `null` if these were the last.
    #[schema(value_type = Option<schema::Cursor>)]
    pub cursor: Option<String>,
}

/// Something that somebody did to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// When.
    #[schema(value_type = schema::Timestamp)]
    pub at: Timestamp,
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Its project.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// Who: the name of a token, or of a person at a forge; `null` where that is not known.
    pub actor: Option<String>,
    /// What.
    pub action: ActionView,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ActionView {
    /// Made the run start.
    Started {
        /// How.
        #[schema(value_type = schema::TriggerKind)]
        event: EventKind,
        /// The run that it runs again, if it does.
        #[schema(value_type = Option<schema::RunId>)]
        rerun_of: Option<RunId>,
    },
    /// Asked for its end.
    Cancelled {
        /// Why.
        reason: CancelReasonView,
        /// Whether at once.
        force: bool,
    },
    /// Answered what a stage waited for.
    Answered {
        /// The stage's path.
        stage: String,
        /// What.
        answer: AnswerView,
    },
}

/// Why the end of a run was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CancelReasonView {
    /// Somebody wanted it.
    Person,
    /// A newer run takes its place.
    Newer {
        /// That run.
        #[schema(value_type = schema::RunId)]
        run: RunId,
    },
    /// The run's own time was over.
    TimedOut,
}
