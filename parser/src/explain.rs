//! The plan for people: everything that will happen, stage by stage, and pictures of the graph.

use std::{collections::BTreeMap, fmt::Write as _};

use graph::Graph;
use model::{
    StageId,
    plan::{Effect, Function, NeedReason, Plan, PlanDocument, RetryReason, Stage, Step, Value},
};

use crate::diagnostic::is_hidden;

/// Stages that one "after" line names; the picture of the graph has them all.
const NEEDS_MAX: usize = 8;

/// The plan as text that ends with a line break: a tree in the order of the plan, then a summary with the digest.
pub fn explain(plan: &Plan) -> String {
    let paths = paths(plan);
    let mut text = Text { lines: String::new() };
    let mut groups: Vec<&str> = Vec::new();
    for stage in &plan.stages {
        let mut segments: Vec<&str> = stage.path.split('/').collect();
        let name = segments.pop().unwrap_or_default();
        let shared = groups.iter().zip(&segments).take_while(|(left, right)| left == right).count();
        for (depth, group) in segments.iter().enumerate().skip(shared) {
            text.line(depth, &format!("{}/", printable(group)));
        }
        groups = segments;
        text.stage(groups.len(), name, stage, &paths);
    }
    let steps: usize = plan.stages.iter().map(|stage| stage.steps.len()).sum();
    let digest = PlanDocument::new(plan.clone()).digest();
    text.line(0, &format!("{}, {}, plan {digest}", counted(plan.stages.len(), "stage"), counted(steps, "step")));
    text.lines
}

/// The plan's stages and what each waits for, with the reason in words.
pub fn graph_of(plan: &Plan) -> Graph<StageId, String> {
    let mut graph = Graph::new();
    for stage in &plan.stages {
        graph.add_node(stage.id.clone());
    }
    for stage in &plan.stages {
        for need in &stage.needs {
            graph.add_edge(&need.stage, &stage.id, reason(&need.reason)).expect("a plan names no stage that it does not have");
        }
    }
    graph
}

/// The graph of the plan in Graphviz's language.
pub fn dot(plan: &Plan) -> String {
    let paths = paths(plan);
    graph_of(plan).dot(|id| paths.get(id).copied().unwrap_or_default().to_owned())
}

/// The graph of the plan as an SVG document.
pub fn svg(plan: &Plan) -> String {
    let paths = paths(plan);
    graph_of(plan).svg(|id| paths.get(id).copied().unwrap_or_default().to_owned())
}

fn paths(plan: &Plan) -> BTreeMap<&StageId, &str> {
    plan.stages.iter().map(|stage| (&stage.id, stage.path.as_str())).collect()
}

fn reason(reason: &NeedReason) -> String {
    match reason {
        NeedReason::Order => "written before it".to_owned(),
        NeedReason::Needs => "named by its `needs`".to_owned(),
        NeedReason::Cache(name) => format!("makes the cache `{name}`"),
        NeedReason::Artifact(name) => format!("makes the artifact `{name}`"),
        NeedReason::From(block) => format!("its `{block}` comes from it"),
        NeedReason::Environment(name) => format!("delivers to `{name}` before it"),
        NeedReason::Variable(name) => format!("sets `vars.{name}`"),
        NeedReason::Barrier => "is waited for, or waits".to_owned(),
        NeedReason::Rollback => "is what it undoes".to_owned(),
    }
}

struct Text {
    lines: String,
}

impl Text {
    fn line(&mut self, depth: usize, line: &str) {
        writeln!(self.lines, "{:indent$}{line}", "", indent = depth * 2).expect("writing to a string cannot fail");
    }

    fn fact(&mut self, depth: usize, what: &str, fact: &str) {
        self.line(depth + 1, &format!("{what:<8}{fact}"));
    }

    fn stage(&mut self, depth: usize, name: &str, stage: &Stage, paths: &BTreeMap<&StageId, &str>) {
        self.line(depth, &printable(name));
        self.fact(depth, "after", &after(stage, paths));
        let on = stage.requires.iter().map(|(fact, value)| format!("{fact} = {}", shown(value))).collect::<Vec<_>>().join(", ");
        self.fact(depth, "on", if on.is_empty() { "any agent" } else { &on });
        for (name, value) in &stage.environment {
            self.texts(depth, "env", &format!("{name} ="), &shown(value));
        }
        for step in &stage.steps {
            self.step(depth, step);
        }
        if stage.steps.is_empty() {
            self.fact(depth, "steps", "none");
        }
        self.fact(depth, "timeout", &duration(stage.timeout_ms));
        let effect = match (stage.effect, stage.retries(RetryReason::Lost)) {
            (Effect::Once, _) => "once: never started a second time without a person".to_owned(),
            (Effect::Safe, 0) => "safe, but not started again if its agent is lost".to_owned(),
            (Effect::Safe, retries) => format!("safe: started again if its agent is lost, up to {}", counted(retries as usize, "time")),
        };
        self.fact(depth, "effect", &effect);
    }

    fn step(&mut self, depth: usize, step: &Step) {
        if step.parameters.is_empty() {
            self.fact(depth, "step", &step.symbol);
        }
        for (place, (name, value)) in step.parameters.iter().enumerate() {
            // Further parameters stand below the first, without the step's name.
            let (what, called) = if place == 0 { ("step", format!("{} {name}:", step.symbol)) } else { ("", format!("  {name}:")) };
            match value {
                Value::Text(text) => self.texts(depth, what, &called, text),
                Value::Boolean(_)
                | Value::Integer(_)
                | Value::Decimal { .. }
                | Value::Variable { .. }
                | Value::Call { .. }
                | Value::Steps { .. }
                | Value::List(_) => {
                    self.fact(depth, what, &format!("{called} {}", shown(value)));
                }
            }
        }
    }

    /// A text of one line stands beside its name, a longer one below it.
    fn texts(&mut self, depth: usize, what: &str, name: &str, text: &str) {
        if !text.contains('\n') {
            return self.fact(depth, what, &format!("{name} {}", shown(&Value::Text(text.to_owned()))));
        }
        self.fact(depth, what, name);
        for line in text.lines() {
            self.fact(depth, "", format!("  | {}", printable(line)).trim_end());
        }
    }
}

fn after(stage: &Stage, paths: &BTreeMap<&StageId, &str>) -> String {
    if stage.needs.is_empty() {
        return "nothing: it starts at once".to_owned();
    }
    let mut by_reason: BTreeMap<&NeedReason, Vec<String>> = BTreeMap::new();
    for need in &stage.needs {
        let path = paths.get(&need.stage).map_or_else(|| need.stage.to_string(), |path| printable(path));
        by_reason.entry(&need.reason).or_default().push(path);
    }
    let told = |(why, mut names): (&NeedReason, Vec<String>)| {
        let more = names.len().saturating_sub(NEEDS_MAX);
        names.truncate(NEEDS_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{more} ({})", names.join(", "), reason(why))
    };
    by_reason.into_iter().map(told).collect::<Vec<_>>().join("; ")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", printable(&text.replace('\'', "''"))),
        Value::Decimal { decimal } => decimal.clone(),
        Value::Variable { variable } => format!("vars.{variable}"),
        Value::Call { function, arguments } => {
            let name = match function {
                Function::Concat => "concat",
                Function::Format => "format",
                Function::Join => "join",
            };
            format!("{name}({})", arguments.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Steps { steps } => format!("[{}]", steps.iter().map(|step| step.symbol.as_str()).collect::<Vec<_>>().join(" ")),
        Value::List(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}

/// What is shown must be what will run: what [`is_hidden`] is written as an escape.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push('\t'),
            hidden if is_hidden(hidden) => shown.extend(hidden.escape_unicode()),
            plain => shown.push(plain),
        }
    }
    shown
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// As people write it: `1h 30m`.
fn duration(ms: u64) -> String {
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= length {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        for (ms, expected) in [(3_600_000, "1h"), (5_400_000, "1h 30m"), (90_001, "1m 30s 1ms"), (0, "0s"), (172_800_000, "2d")] {
            assert_eq!(duration(ms), expected);
        }
    }

    #[test]
    fn nothing_in_a_plan_steers_the_terminal_or_hides() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
    }
}
