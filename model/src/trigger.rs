//! Triggers: stored on the bus before they are answered, each the cause of exactly one run.

use serde::{Deserialize, Serialize};

use crate::{Digest, ProjectName, RunId, TriggerId, context::TriggerContext, planning::Text};

/// The accepted cause of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Derived from the delivery.
    pub id: TriggerId,
    /// The project that is delivered.
    pub project: ProjectName,
    /// What the pipeline may ask for.
    pub context: TriggerContext,
    /// The pipeline file's path, from the repository's root.
    pub pipeline_path: String,
    /// The pipeline file.
    pub pipeline: Text,
    /// The source tree, a tar archive in the depot; without one, stages start in an empty folder.
    pub source: Option<Digest>,
    /// The JSON of the commit's [`Listing`](crate::planning::Listing) in the depot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Digest>,
    /// The JSON of the list of paths that changed, in the depot; without one, it is not known what changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Digest>,
    /// The commit's [`LOCK_FILE`](crate::planning::LOCK_FILE), if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Text>,
}

impl Trigger {
    /// The run that this trigger causes.
    pub fn run(&self) -> RunId {
        RunId::of(&self.id)
    }
}
