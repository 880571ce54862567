//! Values of a plan: what an argument, a setting or a variable of the environment is.

use serde::{Deserialize, Serialize};

use super::Step;

/// A value. Only [`Value::Variable`] and [`Value::Call`] are not known before the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number; durations are in milliseconds, sizes in bytes. At most 2^53 − 1 in size (RFC 8785, section 3.2.2.3).
    Integer(i64),
    /// A text.
    Text(String),
    /// A number with a fraction keeps its digits: `3.10` is not `3.1`.
    Decimal {
        /// The digits as written.
        decimal: String,
    },
    /// Captured by a step or answered by a person in the run, and always a text.
    Variable {
        /// Its name, without `vars.`.
        variable: String,
    },
    /// A function of values of which one at least is known in the run only.
    Call {
        /// Which function.
        function: Function,
        /// What it is given.
        arguments: Vec<Value>,
    },
    /// A block of steps, for a parameter of that type.
    Steps {
        /// Run one after the other.
        steps: Vec<Step>,
    },
    /// Several values.
    List(Vec<Value>),
}

/// A function that the run evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// All texts, one after the other.
    Concat,
    /// The first text, with each `{}` replaced by the next argument.
    Format,
    /// The first argument's items with the second between them.
    Join,
}

impl Value {
    /// Whether nothing of it is left to the run.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Boolean(_) | Self::Integer(_) | Self::Text(_) | Self::Decimal { .. } => true,
            Self::Variable { .. } | Self::Call { .. } => false,
            Self::Steps { steps } => steps.iter().all(|step| step.parameters.values().all(Self::is_known)),
            Self::List(values) => values.iter().all(Self::is_known),
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Boolean(_)
            | Self::Integer(_)
            | Self::Decimal { .. }
            | Self::Variable { .. }
            | Self::Call { .. }
            | Self::Steps { .. }
            | Self::List(_) => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
