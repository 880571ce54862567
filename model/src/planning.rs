//! Question and answer of the parser: `plan(source, context, files) -> Plan | Diagnostics | Needs(files)`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Digest, StageId,
    context::{EventKind, TriggerContext},
    diagnostic::Diagnostic,
    plan::Value,
};

/// Text that travels in a message while it is small, and as a digest of the depot's bytes when it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// The lock file, from the repository's root: the digests of everything that `use` and `from` bring in.
pub const LOCK_FILE: &str = "otto.lock";

/// How the name of a step library ends that is a folder in one file.
pub const ARCHIVE_ENDING: &str = ".tar.gz";

/// Below an archive, this path stands for no file of it, but for the archive itself: its digest, as text.
pub const ARCHIVE_DIGEST: &str = ".sha256";

/// Whether the parser means the manifest of the library at this address, and no path.
pub fn is_address(name: &str) -> bool {
    name.contains("://")
}

/// The archive and the path in it, of a path through an archive.
pub fn through_archive(path: &str) -> Option<(&str, &str)> {
    let (folder, _) = path.match_indices('/').find(|(at, _)| path.get(..*at).is_some_and(|before| before.ends_with(ARCHIVE_ENDING)))?;
    Some((path.get(..folder)?, path.get(folder + 1..)?))
}

/// The files of a commit: each path from the repository's root, with git's object id of its contents. Only `exists`, `files` and `changed`
/// read it.
pub type Listing = BTreeMap<String, String>;

/// Asks the parser role for a plan. A file that is not UTF-8 travels by digest only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlanRequest {
    /// The pipeline file's path, from the repository's root.
    pub path: String,
    /// The pipeline file.
    pub source: Text,
    /// The trigger's facts.
    pub context: TriggerContext,
    /// Files that the parser asked for, by path from the repository's root; `None` for one that the commit does not have.
    pub files: BTreeMap<String, Option<Text>>,
    /// The JSON of the commit's [`Listing`] in the depot; without one, the commit has no files.
    #[serde(default)]
    pub listing: Option<Digest>,
    /// The JSON of the list of changed paths in the depot; without one, it is not known what changed, and every `changed(…)` is true.
    #[serde(default)]
    pub changed: Option<Digest>,
}

/// What the parser role answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PlanReply {
    /// A plan: its canonical JSON, by value or in the depot.
    Planned {
        /// SHA-256 of the plan's bytes.
        digest: Digest,
        /// The bytes.
        plan: Text,
        /// What may not be meant as it is written.
        #[serde(default)]
        warnings: Vec<Diagnostic>,
        /// Why the trigger starts no run of this pipeline; `None` if it does.
        #[serde(default)]
        not_triggered: Option<String>,
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

/// Asks the parser role what starts runs of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TriggersRequest {
    /// The pipeline file's path, from the repository's root.
    pub path: String,
    /// The pipeline file.
    pub source: Text,
}

/// What the parser role answers to [`TriggersRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TriggersReply {
    /// The file says this; whether it has a plan is another question.
    Read {
        /// The lines of its `triggers`, or what holds without them.
        rules: Vec<TriggerRule>,
    },
    /// The file is refused.
    Refused {
        /// What is wrong with its syntax or its `triggers`, the first of the file first.
        diagnostics: Vec<Diagnostic>,
    },
    /// The parser could not do its work; the same request may succeed later.
    Unavailable {
        /// Why.
        message: String,
    },
}

/// What people want to know of a plan, and what has no part in its meaning: two plans with the same digest can have different notes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanNotes {
    /// What starts a run.
    pub triggers: Vec<TriggerRule>,
    /// Why the trigger of the context starts no run; `None` if it does.
    pub not_triggered: Option<String>,
    /// The pipeline's parameters, by name.
    pub parameters: BTreeMap<String, ParameterNote>,
    /// Combinations of `each` that a condition leaves out of the plan.
    pub left_out: Vec<LeftOut>,
    /// Files that were read while planning, with the SHA-256 of each.
    pub files: BTreeMap<String, Digest>,
    /// Where each stage is written.
    pub places: BTreeMap<StageId, Place>,
}

/// One line of `triggers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TriggerRule {
    /// The event.
    pub event: EventKind,
    /// Patterns of which the branch (of a pull request: the target) must match one; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// Patterns of which the tag must match one; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Patterns of which a changed path must match one; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The times of a cron line (crontab(5)), in UTC; empty for other events.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cron: String,
}

/// A parameter of the pipeline, and its value in this plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterNote {
    /// What it is for; may be empty.
    pub description: String,
    /// Its type: `string`, `boolean`, `number`, `choice` or `list`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its value: the one that was given, or its default.
    pub value: Value,
    /// Whether the value was given.
    pub given: bool,
    /// What can be chosen; empty if it is no choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A combination of `each` that is not in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The path that the stage would have.
    pub path: String,
    /// The condition that is false, in the canonical spelling.
    pub condition: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file, from the repository's root.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_an_archive_has_two_parts() {
        assert_eq!(through_archive("common/slack.tar.gz/manifest.yml"), Some(("common/slack.tar.gz", "manifest.yml")));
        assert_eq!(through_archive("common/slack.tar.gz/lib/x"), Some(("common/slack.tar.gz", "lib/x")));
        assert_eq!((through_archive("common/slack/manifest.yml"), through_archive("x.tar.gz")), (None, None));
    }
}
