//! The end: how much it is, what was not said of every stage, what else decides the plan, and its digest.

use model::plan::{ATTEMPTS_DEFAULT, Newer, Plan, StageKind, Step, TIMEOUT_DEFAULT_MS, Value};

use super::{
    Explained,
    facts::named,
    text::{Ink, Paper, counted, duration, joined, printable},
    waits,
};

/// Characters of a digest of something that is only named.
const DIGEST_CHARACTERS: usize = 19;
/// Columns of the labels.
const LABEL_WIDTH: usize = 13;

pub(super) fn write(paper: &mut Paper, explained: &Explained<'_>) {
    let plan = explained.document.plan();
    paper.section("In short");
    paper.line(1, &numbers(plan));
    if plan.stages.iter().any(|stage| stage.kind == StageKind::Work) {
        let defaults = format!(
            "unless said otherwise: any agent, at most {}, safe, up to {} starts if its agent is lost",
            duration(TIMEOUT_DEFAULT_MS),
            ATTEMPTS_DEFAULT
        );
        let defaults = paper.ink(Ink::Quiet, &defaults);
        paper.line(1, &defaults);
    }
    let mut told = |label: &str, lines: &[String]| paper.labelled(1, (label, LABEL_WIDTH), lines, None);
    told("configuration", &configuration(plan));
    told("newer run", &plan.newer.into_iter().map(newer).collect::<Vec<_>>());
    let libraries = plan.libraries.iter().map(|(name, digest)| format!("{} {}", printable(name), short(&digest.to_string())));
    told("libraries", &plan_line(libraries.collect()));
    let files = explained.notes.iter().flat_map(|notes| &notes.files);
    told("files read", &plan_line(files.map(|(path, digest)| format!("{} {}", printable(path), short(&digest.to_string()))).collect()));
    told("plan", &[explained.document.digest().to_string()]);
}

/// One line of everything, or none.
fn plan_line(parts: Vec<String>) -> Vec<String> {
    if parts.is_empty() { Vec::new() } else { vec![joined(parts.into_iter())] }
}

fn numbers(plan: &Plan) -> String {
    let mut parts = vec![counted(plan.stages.len(), "stage"), counted(plan.stages.iter().map(|stage| steps(&stage.steps)).sum(), "step")];
    let skipped = plan.stages.iter().filter(|stage| stage.skipped.is_some()).count();
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    let waits = waits::count(plan);
    if waits > 0 {
        parts.push(format!("{waits} waiting for someone or something"));
    }
    parts.join(", ")
}

/// Steps with those in their blocks.
fn steps(steps: &[Step]) -> usize {
    let mut count = 0;
    let mut open: Vec<&Step> = steps.iter().collect();
    while let Some(step) = open.pop() {
        count += 1;
        for value in step.parameters.values() {
            if let Value::Steps { steps } = value {
                open.extend(steps);
            }
        }
    }
    count
}

/// The configuration of the steps, a line for each value.
pub(super) fn configuration(plan: &Plan) -> Vec<String> {
    let of_step = |(symbol, values): (&String, _)| {
        let values: &std::collections::BTreeMap<String, Value> = values;
        values.iter().flat_map(|(name, known)| named(&format!("{}.{} =", printable(symbol), printable(name)), known)).collect::<Vec<_>>()
    };
    plan.configuration.iter().flat_map(of_step).collect()
}

/// What a newer run does.
pub(super) fn newer(newer: Newer) -> String {
    match newer {
        Newer::Cancel => "of the same branch or pull request cancels this one, but no `once` stage that has started".to_owned(),
        Newer::Wait => "of the same branch or pull request waits for this one's end".to_owned(),
    }
}

/// The beginning of a digest.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARACTERS).collect()
}
