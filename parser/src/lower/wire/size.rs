//! How many bytes a stage will take in the plan, before the plan is made.

use model::plan::{Step, Value};

use crate::limits::json_bytes;

/// Bytes of a step in the plan besides its parameters, rounded up.
const STEP_BYTES: usize = 64;

/// Bytes of steps in the plan, rounded up.
pub(super) fn of_steps(steps: &[Step]) -> usize {
    steps.iter().map(|step| STEP_BYTES + of_parameters(step)).sum()
}

fn of_parameters(step: &Step) -> usize {
    step.parameters.iter().map(|(name, value)| json_bytes(name) + of_value(value)).sum()
}

fn of_value(value: &Value) -> usize {
    match value {
        Value::Boolean(_) | Value::Integer(_) => 20,
        Value::Text(text) => json_bytes(text),
        Value::Decimal { decimal } => json_bytes(decimal) + "{decimal:}".len() + 2,
        Value::Variable { variable } => json_bytes(variable) + "{variable:}".len() + 2,
        Value::Call { arguments, .. } => 64 + arguments.iter().map(of_value).sum::<usize>(),
        Value::Steps { steps } => 64 + of_steps(steps),
        Value::List(values) => 2 + values.iter().map(of_value).sum::<usize>(),
    }
}
