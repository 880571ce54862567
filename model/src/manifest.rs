//! Step manifests: what a step library says of the steps it has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, plan::Value};

/// The steps that a pipeline may use, and the digest of what defines them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLibrary {
    /// The name by which `use` brings it in.
    pub name: String,
    /// SHA-256 of the library's manifests.
    pub digest: Digest,
    /// Its steps, by symbol.
    pub steps: Vec<StepManifest>,
}

/// One step of a library: the contents of its `manifest.yml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepManifest {
    /// The name by which a pipeline calls it.
    pub symbol: String,
    /// What it does, in a sentence or two.
    pub description: String,
    /// Its parameters, in the order in which positional arguments fill them.
    #[serde(default)]
    pub parameters: Vec<ParameterManifest>,
    /// What `configure { symbol { … } }` may set, by key.
    #[serde(default)]
    pub configuration: BTreeMap<String, ConfigurationManifest>,
    /// Which of its parameters name a credential.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// Whether a folder of its own is kept for it between calls.
    #[serde(default)]
    pub cache: bool,
    /// Files of the library besides the entrypoint, as paths from its folder.
    #[serde(default)]
    pub includes: Vec<String>,
    /// The program; steps of the standard library have none, the agent knows them.
    #[serde(default)]
    pub entrypoint: Option<Entrypoint>,
}

/// The program of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entrypoint {
    /// Its path from the library's folder.
    pub path: String,
    /// Whether there is one for each architecture: `path-x86_64-linux` and so on.
    #[serde(default)]
    pub multiarch: bool,
}

/// One key of a step's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationManifest {
    /// Whether a pipeline that uses the step must set it.
    #[serde(default)]
    pub required: bool,
    /// Its value where nothing is set.
    #[serde(default)]
    pub default: Option<Value>,
    /// What it is, in a sentence.
    #[serde(default)]
    pub description: String,
}

/// One parameter of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterManifest {
    /// The keyword.
    pub name: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// Whether a call without it is an error.
    #[serde(default)]
    pub required: bool,
    /// Its value where none is given.
    #[serde(default)]
    pub default: Option<Value>,
    /// What it is, in a sentence.
    #[serde(default)]
    pub description: String,
    /// What it names, if it names something that other stages can use.
    #[serde(default)]
    pub names: Option<Named>,
}

/// What a parameter's value can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// An artifact that the step makes.
    ArtifactMade,
    /// An artifact that the step uses.
    ArtifactUsed,
    /// A captured variable whose life the step ends.
    VariableDropped,
}

/// The type of a step's parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// A text.
    String,
    /// A text that is run as code: text from outside is refused here.
    Code,
    /// `true` or `false`.
    Boolean,
    /// A number; a duration is its milliseconds, a size its bytes.
    Number,
    /// A list of texts, numbers or booleans.
    List,
    /// A block of steps.
    Block,
}
