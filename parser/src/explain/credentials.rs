//! Which credentials go to which steps: the reference, never a value.

use std::collections::BTreeMap;

use model::plan::{Credential, Plan, Stage, Step, Value};

use super::text::{Ink, Paper, joined, printable};

/// Writes each credential with where it lies, and below it the steps that get it.
pub(super) fn write(paper: &mut Paper, plan: &Plan) {
    let taken = taken(plan);
    if taken.is_empty() && plan.credentials.is_empty() {
        return;
    }
    paper.section("Which credentials go to which steps");
    let mut names: Vec<&str> = plan.credentials.keys().map(String::as_str).chain(taken.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let place = plan.credentials.get(name).map_or_else(|| "not declared in the plan".to_owned(), place);
        let shown = paper.ink(Ink::Secret, &printable(name));
        paper.line(1, &format!("{shown}  {place}"));
        for line in taken.get(name).into_iter().flatten() {
            paper.line(2, line);
        }
        if !taken.contains_key(name) {
            let nobody = paper.ink(Ink::Quiet, "no step gets it");
            paper.line(2, &nobody);
        }
    }
}

/// Where a credential lies, and where it may go.
pub(super) fn place(credential: &Credential) -> String {
    let Credential { vault, key, hosts, expose } = credential;
    let hosts = if hosts.is_empty() { String::new() } else { format!(", only to {}", joined(hosts.iter().map(|host| printable(host)))) };
    let expose = if *expose { ", exposed in a file" } else { "" };
    format!("vault {}#{}{hosts}{expose}", printable(vault), printable(key))
}

/// For each credential the steps that get it, as lines.
fn taken(plan: &Plan) -> BTreeMap<&str, Vec<String>> {
    let mut taken: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for stage in &plan.stages {
        let skipped = if stage.skipped.is_some() { " (skipped)" } else { "" };
        let path = printable(&stage.path);
        let mut got: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (block, steps) in blocks(stage) {
            gather(&mut got, steps, block);
        }
        for name in &stage.credentials {
            let exposed = plan.credentials.get(name).is_some_and(|credential| credential.expose);
            let told = match (exposed, got.remove(name.as_str())) {
                (true, None) => "all its steps, from a file".to_owned(),
                (true, Some(steps)) => format!("{}; and all its steps, from a file", steps.join(", ")),
                (false, Some(steps)) => steps.join(", "),
                (false, None) => "lists it, but no step of it gets it".to_owned(),
            };
            taken.entry(name).or_default().push(format!("{path}: {told}{skipped}"));
        }
        for (name, steps) in got {
            taken.entry(name).or_default().push(format!("{path}: {}{skipped}", steps.join(", ")));
        }
    }
    let mut got = BTreeMap::new();
    let notify = &plan.notify;
    for (block, steps) in [("on success, ", &notify.success), ("on failure, ", &notify.failure), ("at the end, ", &notify.complete)] {
        gather(&mut got, steps, block);
    }
    for (name, steps) in got {
        taken.entry(name).or_default().push(format!("the whole: {}", steps.join(", ")));
    }
    taken
}

fn blocks(stage: &Stage) -> [(&'static str, &[Step]); 4] {
    let notify = &stage.notify;
    [("", &stage.steps), ("on success, ", &notify.success), ("on failure, ", &notify.failure), ("at the end, ", &notify.complete)]
}

/// Steps in blocks of steps are counted by the one that has them: `step 2 (dir), in it git`.
fn gather<'a>(got: &mut BTreeMap<&'a str, Vec<String>>, steps: &'a [Step], block: &str) {
    for (place, step) in steps.iter().enumerate() {
        let whence = format!("{block}step {} ({})", place + 1, printable(&step.symbol));
        let mut open = vec![(step, true)];
        while let Some((inner, outermost)) = open.pop() {
            for name in &inner.credentials {
                let how = if outermost { whence.clone() } else { format!("{whence}, in it {}", printable(&inner.symbol)) };
                got.entry(name).or_default().push(how);
            }
            for known in inner.parameters.values().rev() {
                if let Value::Steps { steps } = known {
                    open.extend(steps.iter().rev().map(|step| (step, false)));
                }
            }
        }
    }
}
