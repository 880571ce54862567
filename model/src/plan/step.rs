//! One call of one step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Value;

/// One call of one step, with every argument resolved to its keyword.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The step's symbol.
    pub symbol: String,
    /// The library that has it, a key of [`Plan::libraries`](super::Plan::libraries).
    pub library: String,
    /// Its arguments, by keyword.
    pub parameters: BTreeMap<String, Value>,
    /// How long it may run, in milliseconds; without it, as long as its stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How often it is tried at most, from 2; without it, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The variable that captures its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The credentials that it gets, keys of [`Plan::credentials`](super::Plan::credentials), in the order of its parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
}

impl Step {
    /// A call with these arguments and nothing else.
    pub fn new(library: &str, symbol: &str, parameters: BTreeMap<String, Value>) -> Self {
        Self {
            symbol: symbol.to_owned(),
            library: library.to_owned(),
            parameters,
            timeout_ms: None,
            attempts: None,
            into: None,
            credentials: Vec::new(),
        }
    }

    /// These steps and all that stand in their arguments, at any depth, in no order.
    pub fn with_nested<'a>(steps: impl IntoIterator<Item = &'a Self>) -> impl Iterator<Item = &'a Self> {
        let mut open: Vec<&Self> = steps.into_iter().collect();
        std::iter::from_fn(move || {
            let step = open.pop()?;
            let mut values: Vec<&Value> = step.parameters.values().collect();
            while let Some(value) = values.pop() {
                match value {
                    Value::Steps { steps } => open.extend(steps),
                    Value::List(items) => values.extend(items),
                    Value::Boolean(_)
                    | Value::Integer(_)
                    | Value::Text(_)
                    | Value::Decimal { .. }
                    | Value::Variable { .. }
                    | Value::Call { .. } => {}
                }
            }
            Some(step)
        })
    }
}
