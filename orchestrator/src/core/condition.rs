//! Conditions as people read them: why a stage is skipped.

use std::collections::{BTreeMap, BTreeSet};

use model::plan::{Condition, Function, Value};

use super::resolve::holds;

/// The first condition that does not hold, as a pipeline has it, and what makes it false.
pub(super) fn fails(conditions: &[Condition], variables: &BTreeMap<String, String>) -> Option<(String, String)> {
    let condition = conditions.iter().find(|condition| !holds(condition, variables))?;
    let mut named = BTreeSet::new();
    variables_of(condition, &mut named);
    let facts = named.into_iter().map(|name| match variables.get(name) {
        Some(value) => format!("vars.{name} is {}", quoted(value)),
        None => format!("vars.{name} is not set"),
    });
    let facts: Vec<String> = facts.collect();
    let because = if facts.is_empty() { "it never holds".to_owned() } else { facts.join(", ") };
    Some((spelled(condition), because))
}

/// A condition as a pipeline has it.
fn spelled(condition: &Condition) -> String {
    match condition {
        Condition::Is(one) => value(one),
        Condition::Equal(left, right) => format!("{} == {}", value(left), value(right)),
        Condition::In(one, values) => format!("{} in {}", value(one), list(values)),
        Condition::Matches(one, pattern) => format!("{} matches {}", value(one), quoted(pattern)),
        Condition::Not(inner) => match &**inner {
            Condition::Equal(left, right) => format!("{} != {}", value(left), value(right)),
            Condition::Is(_) | Condition::Not(_) => format!("!{}", spelled(inner)),
            Condition::In(..) | Condition::Matches(..) | Condition::All(_) | Condition::Any(_) => format!("!({})", spelled(inner)),
        },
        Condition::All(parts) => together(parts, " && "),
        Condition::Any(parts) => together(parts, " || "),
    }
}

fn together(parts: &[Condition], operator: &str) -> String {
    let part = |part: &Condition| match part {
        Condition::All(_) | Condition::Any(_) => format!("({})", spelled(part)),
        Condition::Is(_) | Condition::Equal(..) | Condition::In(..) | Condition::Matches(..) | Condition::Not(_) => spelled(part),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(operator)
}

fn value(shown: &Value) -> String {
    match shown {
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => quoted(text),
        Value::Decimal { decimal } => decimal.clone(),
        Value::Variable { variable } => format!("vars.{variable}"),
        Value::Call { function, arguments } => {
            let name = match function {
                Function::Concat => "concat",
                Function::Format => "format",
                Function::Join => "join",
            };
            format!("{name}({})", arguments.iter().map(value).collect::<Vec<_>>().join(", "))
        }
        Value::Steps { steps } => steps.iter().map(|step| step.symbol.as_str()).collect::<Vec<_>>().join(" "),
        Value::List(values) => list(values),
    }
}

fn list(values: &[Value]) -> String {
    format!("[{}]", values.iter().map(value).collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn variables_of<'a>(condition: &'a Condition, named: &mut BTreeSet<&'a str>) {
    match condition {
        Condition::Is(value) | Condition::Matches(value, _) => named_in(value, named),
        Condition::Equal(left, right) => [left, right].into_iter().for_each(|value| named_in(value, named)),
        Condition::In(value, values) => std::iter::once(value).chain(values).for_each(|value| named_in(value, named)),
        Condition::Not(inner) => variables_of(inner, named),
        Condition::All(parts) | Condition::Any(parts) => parts.iter().for_each(|part| variables_of(part, named)),
    }
}

fn named_in<'a>(value: &'a Value, named: &mut BTreeSet<&'a str>) {
    match value {
        Value::Variable { variable } => {
            named.insert(variable);
        }
        Value::Call { arguments: values, .. } | Value::List(values) => values.iter().for_each(|value| named_in(value, named)),
        Value::Boolean(_) | Value::Integer(_) | Value::Text(_) | Value::Decimal { .. } | Value::Steps { .. } => {}
    }
}
