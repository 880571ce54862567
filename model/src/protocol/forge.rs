//! What the orchestrator asks of the forge: a run of a project's own code, as its source has it now.
//!
//! ```text
//! orchestrator ── ProjectRunRequest ──▶ forge ── looks where the branch is ── source ─▶ depot ── trigger ─▶ bus
//!              ◀── ProjectRunReply ───┘
//! ```
//!
//! Who asks says which branch or tag, and never which commit: what is run is in the project's repository, so the run is as trusted as a push of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ProjectName, RunId, TriggerId};

/// Asks for a run of a project's own code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProjectRunRequest {
    /// That of the trigger: the same request again is the same run.
    pub id: TriggerId,
    /// The project.
    pub project: ProjectName,
    /// Of which commit.
    pub revision: Revision,
    /// Values of the pipeline's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// How long the whole run may take, in milliseconds; without it, as long as its stages and gates may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Who asks, by the name of their token.
    pub actor: String,
}

/// What a project's source is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Revision {
    /// The default branch: where the repository's `HEAD` leads.
    DefaultBranch,
    /// A branch.
    Branch {
        /// Its name, without `refs/heads/`.
        name: String,
    },
    /// A tag.
    Tag {
        /// Its name, without `refs/tags/`.
        name: String,
    },
}

/// What becomes of a [`ProjectRunRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ProjectRunReply {
    /// Its trigger is stored.
    Accepted {
        /// The run.
        run: RunId,
    },
    /// There is nothing to run: asking again ends the same, until somebody changes something.
    Refused {
        /// Why, for people.
        message: String,
    },
    /// Not now.
    Unavailable {
        /// Why, for people.
        message: String,
    },
}
