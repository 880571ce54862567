//! How parameters and steps are told to people.

use model::manifest::{ParameterKind, ParameterManifest, StepManifest};

pub(super) fn kind_of(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::String => "a text",
        ParameterKind::Code => "a script",
        ParameterKind::Boolean => "`true` or `false`",
        ParameterKind::Number => "a number",
        ParameterKind::List => "a list",
        ParameterKind::Block => "a block of steps",
    }
}

/// A parameter as its manifest describes it.
pub(super) fn described(parameter: &ParameterManifest) -> String {
    let described = format!("`{}` ({}): {}", parameter.name, kind_of(parameter.kind), parameter.description);
    described.trim_end_matches([':', ' ']).to_owned()
}

/// How a step is called, and what it does.
pub(super) fn usage(manifest: &StepManifest) -> String {
    let parameter = |parameter: &ParameterManifest| format!("{}: …{}", parameter.name, if parameter.required { "" } else { " (optional)" });
    let parameters = manifest.parameters.iter().map(parameter).collect::<Vec<_>>().join(", ");
    let usage = format!("`{}`\n{}", format!("{} {parameters}", manifest.symbol).trim_end(), manifest.description);
    usage.trim_end().to_owned()
}
