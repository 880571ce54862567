//! One step as lines: its arguments by keyword, blocks of steps below it.

use model::plan::{Step, Value};

use super::text::{counted, duration, joined, printable, push, value};

/// The library that needs no name.
const STANDARD_LIBRARY: &str = "stdlib";

/// The step with everything in it; the first line begins with its name.
pub(super) fn lines(step: &Step) -> Vec<String> {
    let (below, beside): (Vec<_>, Vec<_>) = step.parameters.iter().partition(|(_, value)| is_long(value));
    let mut first = printable(&step.symbol);
    if !beside.is_empty() {
        first.push(' ');
        first.push_str(&joined(beside.iter().map(|(name, known)| format!("{}: {}", printable(name), value(known)))));
    }
    let notes = notes(step);
    if !notes.is_empty() {
        push(&mut first, format_args!(" ({})", notes.join("; ")));
    }
    if let ([(name, long)], true) = (below.as_slice(), notes.is_empty()) {
        push(&mut first, format_args!("{} {}:", if beside.is_empty() { "" } else { "," }, printable(name)));
        return std::iter::once(first).chain(long_lines(long)).collect();
    }
    let mut lines = vec![first];
    for (name, long) in below {
        lines.push(format!("  {}:", printable(name)));
        lines.extend(long_lines(long).into_iter().map(|line| format!("  {line}")));
    }
    lines
}

/// The lines of a long text, each behind a bar.
pub(super) fn block(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| format!("  | {}", printable(line)))
}

fn is_long(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.contains('\n'),
        Value::Steps { .. } => true,
        Value::Boolean(_) | Value::Integer(_) | Value::Decimal { .. } | Value::Variable { .. } | Value::Call { .. } | Value::List(_) => {
            false
        }
    }
}

fn long_lines(long: &Value) -> Vec<String> {
    match long {
        Value::Steps { steps } => steps.iter().flat_map(lines).map(|line| format!("  {line}")).collect(),
        Value::Text(text) => block(text).collect(),
        Value::Boolean(_) | Value::Integer(_) | Value::Decimal { .. } | Value::Variable { .. } | Value::Call { .. } | Value::List(_) => {
            vec![format!("  {}", value(long))]
        }
    }
}

fn notes(step: &Step) -> Vec<String> {
    // Every field is named, so that a new one cannot be forgotten.
    let Step { symbol: _, library, parameters: _, timeout_ms, attempts, into, credentials } = step;
    let mut notes = Vec::new();
    if library != STANDARD_LIBRARY {
        notes.push(format!("of {}", printable(library)));
    }
    if let Some(timeout_ms) = timeout_ms {
        notes.push(format!("at most {}", duration(*timeout_ms)));
    }
    if let Some(attempts) = attempts {
        notes.push(format!("tried up to {}", counted(*attempts as usize, "time")));
    }
    if let Some(into) = into {
        notes.push(format!("its output into vars.{}", printable(into)));
    }
    if !credentials.is_empty() {
        notes.push(format!("gets {}", joined(credentials.iter().map(|name| printable(name)))));
    }
    notes
}
