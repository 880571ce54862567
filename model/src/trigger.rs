//! Triggers: stored on the bus before they are answered, each the cause of exactly one run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, ProjectName, RunId, StageId, TriggerId, context::TriggerContext, planning::Text};

/// The accepted cause of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trigger {
    /// Derived from the delivery.
    pub id: TriggerId,
    /// The project that is delivered.
    pub project: ProjectName,
    /// What the pipeline may ask for.
    pub context: TriggerContext,
    /// What was verified of it. A trigger without it is untrusted.
    #[serde(default, skip_serializing_if = "Claims::is_default")]
    pub claims: Claims,
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
    /// Step libraries of the lock file that could not be brought into the depot, by their address, each with the reason. The others lie
    /// there, under the digest that the lock file has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing_libraries: BTreeMap<String, String>,
    /// The run that is run again, with its plan and source; without it, the pipeline is planned anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// How long the whole run may take, in milliseconds; without it, as long as its stages and gates may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The one stage that is wanted, with all that it needs; the others are skipped. Without it, all are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<StageId>,
    /// Whether no stage starts any more once one has failed that may not. What runs already goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_at_failure: bool,
    /// How many runs have asked for one another up to this one: 0 unless a step of another run asked for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
}

/// What was verified of a trigger, or follows from the project's configuration on the server; nothing of it is from the commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Whether the code of the run is its project's.
    pub trust: Trust,
    /// Whether its branch or tag is protected: only people trusted with the project can have put the commit there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// Who caused it, as the forge or the API knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

impl Claims {
    /// Of a run of a person's own files on their own machine.
    pub fn own() -> Self {
        Self { trust: Trust::Trusted, protected: false, actor: None }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the code of a run is its project's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// It is in the project's repository, put there by somebody who may.
    Trusted,
    /// Anybody may have written it: a pull request, source text, a context that was overridden. No secrets, a cache of its own, agents for
    /// untrusted work.
    #[default]
    Untrusted,
}

/// What is run again. What is not, keeps its outcome and its outputs from the earlier run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rerun {
    /// The earlier run. It has ended, and its plan is run, digest for digest.
    pub of: RunId,
    /// Which stages.
    pub stages: RerunStages,
}

/// Which stages of an earlier run start again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RerunStages {
    /// All.
    All,
    /// Those that did not succeed, and what waits for them.
    Failed,
    /// This one, and what waits for it.
    Stage(StageId),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(generation: &u32) -> bool {
    *generation == 0
}

impl Trigger {
    /// The cause of a run that is planned anew, whole, without a source, and that nobody vouches for.
    pub fn new(id: TriggerId, project: ProjectName, pipeline_path: &str, pipeline: Text) -> Self {
        Self {
            id,
            project,
            context: TriggerContext::default(),
            claims: Claims::default(),
            pipeline_path: pipeline_path.to_owned(),
            pipeline,
            source: None,
            listing: None,
            changed: None,
            lock: None,
            missing_libraries: BTreeMap::new(),
            rerun: None,
            timeout_ms: None,
            only: None,
            stop_at_failure: false,
            generation: 0,
        }
    }

    /// The run that this trigger causes.
    pub fn run(&self) -> RunId {
        RunId::of(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_of_the_first_form_still_reads() {
        let json = r#"{"id":"ID","project":"demo","context":{"event":"push","branch":"main","commit":"c0ffee","parameters":{"a":"b"}},"pipeline_path":"Ottofile","pipeline":{"inline":"pipeline {}"},"source":null}"#;
        let json = json.replace("ID", &TriggerId::of("git", "x").to_string());
        let trigger: Trigger = serde_json::from_str(&json).unwrap();
        assert_eq!((trigger.context.branch.as_str(), trigger.listing, trigger.changed, &trigger.lock), ("main", None, None, &None));
        assert_eq!(serde_json::to_string(&trigger).unwrap(), json, "and is written as it was");
    }
}
