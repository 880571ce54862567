//! Step manifests: what a step library says of the steps it has.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

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
    /// What a number of it measures: then a whole number without a unit is refused.
    #[serde(default)]
    pub unit: Option<Unit>,
}

/// What a number measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time, in milliseconds: `10s`.
    Time,
    /// Bytes: `50M`.
    Size,
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

impl ParameterKind {
    /// What a value is instead, if it is not of this type. What is known in the run only is a text.
    pub fn mismatch(self, value: &Value) -> Option<&'static str> {
        let fits = match self {
            Self::String | Self::Code => matches!(value, Value::Text(_) | Value::Variable { .. } | Value::Call { .. }),
            Self::Boolean => matches!(value, Value::Boolean(_)),
            Self::Number => matches!(value, Value::Integer(_) | Value::Decimal { .. }),
            Self::List => {
                let Value::List(values) = value else { return Some(kind_of_value(value)) };
                let is_flat = values.iter().all(|value| !matches!(value, Value::List(_) | Value::Steps { .. }));
                return (!is_flat).then_some("a list with a list in it");
            }
            Self::Block => matches!(value, Value::Steps { .. }),
        };
        (!fits).then(|| kind_of_value(value))
    }
}

fn kind_of_value(value: &Value) -> &'static str {
    match value {
        Value::Boolean(_) => "`true` or `false`",
        Value::Integer(_) | Value::Decimal { .. } => "a number",
        Value::Text(_) => "a text",
        Value::Variable { .. } | Value::Call { .. } => "a text that is known in the run only",
        Value::Steps { .. } => "a block of steps",
        Value::List(_) => "a list",
    }
}

/// Integers that every reader of JSON reads exactly (RFC 8785, section 3.2.2.3).
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Whether a default is what a pipeline could write there as a literal.
fn is_plain(default: &Value) -> bool {
    match default {
        Value::Boolean(_) => true,
        Value::Integer(number) => number.unsigned_abs() <= INTEGER_MAX,
        Value::Text(text) => !text.contains('\0'),
        Value::Decimal { decimal } => {
            let digits = decimal.strip_prefix('-').unwrap_or(decimal);
            let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.split_once('.').is_some_and(|(whole, fraction)| is_digits(whole) && is_digits(fraction))
        }
        Value::List(items) => items.iter().all(|item| !matches!(item, Value::List(_)) && is_plain(item)),
        Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } => false,
    }
}

/// Something in a manifest that reads well and means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    /// The name at fault, as it stands in the manifest.
    pub name: String,
    /// What is wrong, in one sentence.
    pub message: Cow<'static, str>,
}

/// Whether a step, a parameter or a key of a configuration can have this name: the names of the language, without dots.
pub fn is_name(name: &str) -> bool {
    let mut characters = name.chars().peekable();
    let begins = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let mut sound = begins;
    while let Some(character) = characters.next() {
        let after_minus =
            character != '-' || characters.peek().is_some_and(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '-'));
        sound &= after_minus && (character.is_ascii_alphanumeric() || matches!(character, '_' | '-'));
    }
    sound
}

impl StepManifest {
    /// Everything in it that means nothing, in the order in which it stands there.
    pub fn problems(&self) -> Vec<ManifestProblem> {
        let mut problems = Vec::new();
        let mut problem = |name: &str, message: Cow<'static, str>| problems.push(ManifestProblem { name: name.to_owned(), message });
        if !is_name(&self.symbol) || self.symbol == "when" {
            problem(&self.symbol, "the symbol cannot be the name of a step".into());
        }
        let mut names = BTreeSet::new();
        for parameter in &self.parameters {
            let name = &parameter.name;
            if !is_name(name) {
                problem(name, "this cannot be the name of a parameter".into());
            }
            if !names.insert(name) {
                problem(name, "two parameters have this name".into());
            }
            match &parameter.default {
                Some(_) if parameter.required => problem(name, "a required parameter has no default".into()),
                // It could name a variable of the run or call steps, past all that is checked of what a pipeline writes.
                Some(default) if !is_plain(default) => problem(name, "the default is no text, number, boolean or list of them".into()),
                Some(_) if self.credentials.contains(name) => problem(name, "a parameter that names a credential has no default".into()),
                Some(default) => {
                    if let Some(what) = parameter.kind.mismatch(default) {
                        problem(name, format!("the default is not of the parameter's type: it is {what}").into());
                    }
                }
                None => {}
            }
            if parameter.unit.is_some() && parameter.kind != ParameterKind::Number {
                problem(name, "only a number has a unit".into());
            }
        }
        for name in &self.credentials {
            match self.parameters.iter().find(|parameter| parameter.name == *name) {
                None => problem(name, "`credentials` names a parameter that there is not".into()),
                Some(parameter) if parameter.kind != ParameterKind::String => {
                    problem(name, "a parameter that names a credential is of the type `string`".into());
                }
                Some(_) => {}
            }
        }
        for (name, key) in &self.configuration {
            if !is_name(name) {
                problem(name, "this cannot be the name of a key".into());
            }
            if key.required && key.default.is_some() {
                problem(name, "a required key has no default".into());
            }
            if key.default.as_ref().is_some_and(|default| !is_plain(default)) {
                problem(name, "the default is no text, number, boolean or list of them".into());
            }
        }
        let entrypoint = self.entrypoint.iter().map(|entrypoint| &entrypoint.path);
        for path in entrypoint.chain(&self.includes) {
            if path.is_empty() || path.starts_with('/') || path.contains('\\') || path.split('/').any(|part| part == "..") {
                problem(path, "this is no path inside the library's folder".into());
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, kind: ParameterKind) -> ParameterManifest {
        ParameterManifest {
            name: name.to_owned(),
            kind,
            required: false,
            default: None,
            description: String::new(),
            names: None,
            unit: None,
        }
    }

    fn manifest() -> StepManifest {
        StepManifest {
            symbol: "deploy".to_owned(),
            description: "Deploys.".to_owned(),
            parameters: vec![parameter("target", ParameterKind::String), parameter("count", ParameterKind::Number)],
            configuration: BTreeMap::new(),
            credentials: vec!["target".to_owned()],
            cache: false,
            includes: vec!["lib".to_owned()],
            entrypoint: Some(Entrypoint { path: "bin/deploy".to_owned(), multiarch: false }),
        }
    }

    #[test]
    fn a_sound_manifest_has_no_problem() {
        assert_eq!(manifest().problems(), []);
    }

    #[test]
    fn every_problem_is_told_with_its_name() {
        let mut wrong = manifest();
        wrong.symbol = "when".to_owned();
        wrong.parameters.push(parameter("target", ParameterKind::Code));
        wrong.parameters.push(ParameterManifest {
            required: true,
            default: Some(Value::Integer(1)),
            ..parameter("a", ParameterKind::Number)
        });
        wrong.parameters.push(ParameterManifest { default: Some(Value::Integer(1)), ..parameter("b", ParameterKind::String) });
        wrong.parameters.push(ParameterManifest { unit: Some(Unit::Time), ..parameter("c", ParameterKind::String) });
        wrong.credentials = vec!["count".to_owned(), "nothing".to_owned()];
        wrong.includes = vec!["../secrets".to_owned()];
        let names: Vec<String> = wrong.problems().into_iter().map(|problem| problem.name).collect();
        assert_eq!(names, ["when", "target", "a", "b", "c", "count", "nothing", "../secrets"]);
    }

    #[test]
    fn a_default_is_a_literal() {
        let variable = || Value::Variable { variable: "x".to_owned() };
        for (kind, default) in [
            (ParameterKind::Code, variable()),
            (ParameterKind::String, Value::Call { function: crate::plan::Function::Concat, arguments: vec![variable()] }),
            (ParameterKind::Block, Value::Steps { steps: Vec::new() }),
            (ParameterKind::List, Value::List(vec![variable()])),
            (ParameterKind::Number, Value::Integer(1 << 53)),
            (ParameterKind::Number, Value::Decimal { decimal: "1;rm".to_owned() }),
            (ParameterKind::String, Value::from("a\0")),
        ] {
            let mut wrong = manifest();
            wrong.parameters.push(ParameterManifest { default: Some(default.clone()), ..parameter("a", kind) });
            assert_eq!(wrong.problems().len(), 1, "{default:?}");
        }
        let mut wrong = manifest();
        wrong.parameters[0].default = Some(Value::from("deploy-key"));
        assert_eq!(wrong.problems()[0].name, "target");
    }

    #[test]
    fn a_name_ends_with_no_minus() {
        for (name, expected) in
            [("a", true), ("a-b", true), ("_x1", true), ("a-", false), ("-a", false), ("1a", false), ("", false), ("a.b", false)]
        {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }

    #[test]
    fn values_fit_their_types_or_say_what_they_are() {
        let variable = || Value::Variable { variable: "x".to_owned() };
        for (kind, value, expected) in [
            (ParameterKind::String, Value::from("a"), None),
            (ParameterKind::String, variable(), None),
            (ParameterKind::Boolean, variable(), Some("a text that is known in the run only")),
            (ParameterKind::Number, Value::Decimal { decimal: "3.10".to_owned() }, None),
            (ParameterKind::List, Value::List(vec![variable(), Value::Integer(1)]), None),
            (ParameterKind::List, Value::List(vec![Value::List(Vec::new())]), Some("a list with a list in it")),
            (ParameterKind::List, Value::from("a"), Some("a text")),
            (ParameterKind::Block, Value::List(Vec::new()), Some("a list")),
        ] {
            assert_eq!(kind.mismatch(&value), expected, "{kind:?} {value:?}");
        }
    }
}
