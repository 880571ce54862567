//! The words of the language, by the place where they stand. All are contextual: elsewhere they are names like others.

use crate::suggest::did_you_mean;

/// What may stand at the top level.
const TOP_LEVEL: [&str; 9] = ["use", "configure", "parameters", "triggers", "environments", "credentials", "pipeline", "blueprint", "vars"];

/// What is part of the language in a pipeline or a stage, but not of this version.
pub(super) const BODY_TO_COME: [&str; 14] = [
    "confirm",
    "each",
    "fanout",
    "from",
    "needs",
    "newer",
    "notify",
    "order",
    "pause",
    "prompt",
    "rollback",
    "wait",
    "parameters",
    "triggers",
];

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pipeline,
    Stage,
    /// In `stages { }`.
    Stages,
    Parallel,
}

impl Place {
    /// What may stand here.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Pipeline => &["steps", "stage", "stages", "parallel", "env", "timeout", "effect", "retry", "runtime", "checkout"],
            Self::Stage => &[
                "name",
                "steps",
                "stage",
                "stages",
                "parallel",
                "env",
                "timeout",
                "effect",
                "retry",
                "runtime",
                "checkout",
                "environment",
                "credentials",
                "lock",
                "allow_failure",
                "services",
                "cache",
                "gates",
                "when",
            ],
            Self::Stages => &["steps", "stage", "stages", "parallel"],
            Self::Parallel => &["stage", "stages"],
        }
    }

    /// The place in a message.
    pub(super) fn within(self) -> &'static str {
        match self {
            Self::Pipeline => "in `pipeline`",
            Self::Stage => "in a stage",
            Self::Stages => "in `stages`",
            Self::Parallel => "in `parallel`",
        }
    }
}

/// What else could be meant at the top level.
pub(super) fn top_level_help(name: &str) -> String {
    did_you_mean(name, TOP_LEVEL)
}
