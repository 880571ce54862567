//! What a stage may say besides its steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Step, Value};
use crate::StageId;

/// When a stage is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often it is started at most, from 1.
    pub attempts: u32,
    /// Between the end of an attempt and the next one's start, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backoff_ms: u64,
    /// What it is started again after.
    pub on: Vec<RetryReason>,
}

/// What a stage is started again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RetryReason {
    /// A step failed, or the time was over.
    Failed,
    /// Its agent was lost.
    Lost,
}

/// The image that a stage's steps run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The image's reference, as `docker pull` takes it.
    pub image: Value,
}

/// A container that runs beside a stage's steps: ready before the first, ended with the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The host by which the steps reach it.
    pub name: String,
    /// The image's reference.
    pub image: Value,
    /// Its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Value>,
    /// The TCP port that it listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The command in it that ends with 0 once it is ready; without one, an open port is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// What a stage keeps for later stages of this run, and as a hint for later runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CacheDefinition {
    /// Files and directories, from the work directory.
    pub paths: Vec<Value>,
    /// What must be the same for a later run to take it; without one, the newest is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
}

/// A cache that another stage of this run makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CacheUse {
    /// Its name.
    pub cache: String,
    /// The stage that defines it.
    pub from: StageId,
}

/// Where a stage delivers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The environment's name.
    pub environment: String,
    /// Whether the file asks for protection; the project's configuration on the server may ask for more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// The environment's settings, which the steps find as variables; the stage's own `env` goes before them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
}

/// Where the value of a credential lies, and where it may go. Never the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The secret's path in Vault.
    pub vault: String,
    /// Its field.
    pub key: String,
    /// The hosts that it may be sent to; empty if the file does not narrow them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Whether the value is put into a file that the steps can read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expose: bool,
}

/// Steps on an outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// Run after success, and if the result is unstable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<Step>,
    /// Run after failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failure: Vec<Step>,
    /// Always run at the end, also after an abort and when time was over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complete: Vec<Step>,
}

impl Notify {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.success.is_empty() && self.failure.is_empty() && self.complete.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
