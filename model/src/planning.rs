//! Question and answer of the parser: `plan(source, context, files) -> Plan | Diagnostics | Needs(files)`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, context::TriggerContext, diagnostic::Diagnostic};

/// Text that travels in a message while it is small, and as a digest of the depot's bytes when it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// The text itself, at most [`INLINE_BYTES_MAX`].
    Inline(String),
    /// Where it lies in the depot.
    Depot(Digest),
}

/// The most bytes that travel in a message instead of in the depot. JSON makes at most six bytes of one, and with other
/// fields that must stay below the bus's 1 MiB a message.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Rounds of [`PlanReply::Needs`] before a plan is given up: one more than the include depth of the language.
pub const PLAN_ROUNDS_MAX: usize = 17;

/// Asks the parser role for a plan. A file that is not UTF-8 travels by digest only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The pipeline file's path, from the repository's root.
    pub path: String,
    /// The pipeline file.
    pub source: Text,
    /// The trigger's facts.
    pub context: TriggerContext,
    /// Files that the parser asked for, by path from the repository's root.
    pub files: BTreeMap<String, Text>,
}

/// What the parser role answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PlanReply {
    /// A plan: its canonical JSON, by value or in the depot.
    Planned {
        /// SHA-256 of the plan's bytes.
        digest: Digest,
        /// The bytes.
        plan: Text,
    },
    /// The file is refused.
    Refused {
        /// Every independent error, the first of the file first.
        diagnostics: Vec<Diagnostic>,
    },
    /// Ask again with these files, too.
    Needs {
        /// Their paths, from the repository's root.
        files: Vec<String>,
    },
    /// The parser could not do its work; the same request may succeed later.
    Unavailable {
        /// Why.
        message: String,
    },
}
