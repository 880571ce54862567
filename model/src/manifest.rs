//! Step manifests: what a step library says of the steps it has.

use serde::{Deserialize, Serialize};

use crate::Digest;

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

/// One step of a library.
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
    /// What it is, in a sentence.
    #[serde(default)]
    pub description: String,
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
    /// A number.
    Number,
    /// A list.
    List,
}
