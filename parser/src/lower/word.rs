//! The words of the language, by the place where they stand. All are contextual: elsewhere they are names like others.

use crate::suggest::did_you_mean;

/// What may stand at the top level.
pub(super) const TOP_LEVEL: [&str; 9] =
    ["use", "configure", "parameters", "triggers", "environments", "credentials", "pipeline", "blueprint", "vars"];

/// What makes stages, and what they stand in: inside `pipeline`, a group, `stages`, `plan` and `each`.
const VERBS: [&str; 12] =
    ["steps", "stage", "stages", "parallel", "fanout", "each", "from", "confirm", "prompt", "wait", "pause", "rollback"];

/// Settings that a whole pipeline can have: the defaults of its stages.
const PIPELINE_SETTINGS: [&str; 6] = ["runtime", "env", "timeout", "retry", "effect", "checkout"];

/// What a pipeline says of itself.
const PIPELINE_OWN: [&str; 3] = ["notify", "newer", "order"];

/// Settings of a stage, and of a group as the defaults of what is in it.
const STAGE_SETTINGS: [&str; 17] = [
    "name",
    "needs",
    "runtime",
    "env",
    "timeout",
    "retry",
    "effect",
    "checkout",
    "environment",
    "credentials",
    "lock",
    "allow_failure",
    "services",
    "cache",
    "gates",
    "when",
    "notify",
];

/// Every word of a block of stages, and of the top level.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let tables: [&[&str]; 5] = [&TOP_LEVEL, &VERBS, &PIPELINE_SETTINGS, &PIPELINE_OWN, &STAGE_SETTINGS];
    tables.into_iter().flatten().copied()
}

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Pipeline,
    Stage,
    /// In `stages { }`, or the `plan` of a blueprint.
    Stages,
    Parallel,
    Fanout,
    Each,
    Rollback,
}

impl Place {
    /// What may stand here.
    pub(super) fn words(self) -> impl Iterator<Item = &'static str> + Clone {
        let (verbs, settings): (&[&str], &[&str]) = match self {
            Self::Pipeline => (&VERBS, &PIPELINE_SETTINGS),
            Self::Stage => (&VERBS, &STAGE_SETTINGS),
            Self::Stages => (&VERBS, &[]),
            Self::Parallel | Self::Fanout => (&["stage", "stages", "each", "from"], &[]),
            Self::Each => (&VERBS, &["when", "gates"]),
            Self::Rollback => (&["steps"], &STAGE_SETTINGS),
        };
        let own: &[&str] = if self == Self::Pipeline { &PIPELINE_OWN } else { &[] };
        verbs.iter().chain(settings).chain(own).copied()
    }

    /// The place in a message.
    pub(super) fn within(self) -> &'static str {
        match self {
            Self::Pipeline => "in `pipeline`",
            Self::Stage => "in a stage",
            Self::Stages => "among stages",
            Self::Parallel => "in `parallel`",
            Self::Fanout => "in `fanout`",
            Self::Each => "in `each`",
            Self::Rollback => "in `rollback`",
        }
    }
}

/// What else could be meant at the top level.
pub(super) fn top_level_help(name: &str) -> String {
    if name == "step" {
        return "steps made of steps stand in a file of their own, which `use` brings in: `use './steps'`".to_owned();
    }
    did_you_mean(name, TOP_LEVEL)
}

/// How to write what other languages of pipelines have under this name.
pub(super) fn foreign_help(name: &str) -> Option<&'static str> {
    Some(match name {
        "agent" | "runs_on" | "runs-on" | "image" | "container" | "docker" | "node" => {
            "write `runtime { docker { image = '…' } }` or `runtime { arch = 'amd64' }`"
        }
        "post" | "always" => "write `notify { success { … } failure { … } complete { … } }`",
        "options" => "write the settings themselves: `timeout = 1h`, `retry { attempts = 3 }`",
        "matrix" | "for" | "foreach" | "strategy" => "write `each(os: ['linux', 'mac']) { stage … }`",
        "if" | "only" | "unless" => "write `gates { enter { branch == 'main' } }`",
        "input" | "approval" => "write `confirm 'Ship it?'`, or `gates { enter { input 'Ship it?' } }` in a stage",
        "job" | "task" => "write `stage 'Build' { … }`",
        "jobs" => "stages stand in `pipeline` itself: `stage 'Build' { … }`",
        "script" | "run" => "write `steps { sh '…' }`",
        "artifacts" => "write the step `archive 'dist/'`, and `unarchive 'dist/'` where it is used",
        "depends_on" | "dependsOn" => "write `needs = ['Build']`",
        "secrets" => "write `credentials = ['deploy-key']`; credentials are declared at the top level of the file",
        "variables" => "write `env { NAME = 'value' }`",
        _ => return None,
    })
}
