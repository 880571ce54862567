//! Conditions that are decided in the run, because a variable stands in them.

use serde::{Deserialize, Serialize};

use super::Value;

/// A condition over variables; everything that was known while planning has been put in and decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The value is `true`, or the text `true`.
    Is(Value),
    /// Both are the same; a text and a number are compared as the text of both.
    Equal(Value, Value),
    /// The value is one of these.
    In(Value, Vec<Value>),
    /// The text matches the glob pattern.
    Matches(Value, String),
    /// It does not hold.
    Not(Box<Condition>),
    /// All hold.
    All(Vec<Condition>),
    /// At least one holds.
    Any(Vec<Condition>),
}
