//! Pictures of the plan's graph: Graphviz's dot, and SVG.

use std::collections::{BTreeMap, BTreeSet};

use graph::{Graph, Line, Look, Mark, Shape};
use model::{
    StageId,
    plan::{Deployment, NeedReason, Plan, Stage, StageKind, Wait},
};

use super::{
    Here, Lack,
    facts::skip,
    text::{condition, printable, wait},
    tree::DEPTH_MAX,
};

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

/// The graph of the plan in Graphviz's language; `here` marks what could not run on this machine.
pub fn dot(plan: &Plan, here: Option<&Here>) -> String {
    let looks = looks(plan, here);
    graph_of(plan).dot(|id| looks.get(id).cloned().unwrap_or_default(), line)
}

/// The graph of the plan as an SVG document: groups as boxes, what is waited for as pills, what is skipped or undone in dashes; `here`
/// marks what could not run on this machine.
pub fn svg(plan: &Plan, here: Option<&Here>) -> String {
    let looks = looks(plan, here);
    graph_of(plan).svg(|id| looks.get(id).cloned().unwrap_or_default(), line)
}

/// The order of the source is not drawn where another way implies it; a rollback hangs on what it undoes.
fn line(reason: &String) -> Line {
    Line { implied: *reason == self::reason(&NeedReason::Order), dashed: *reason == self::reason(&NeedReason::Rollback) }
}

fn looks<'a>(plan: &'a Plan, here: Option<&Here>) -> BTreeMap<&'a StageId, Look> {
    let paths: BTreeSet<&str> = plan.stages.iter().map(|stage| stage.path.as_str()).collect();
    plan.stages.iter().map(|stage| (&stage.id, look(stage, &paths, here.and_then(|here| here.lacks.get(&stage.id))))).collect()
}

fn look(stage: &Stage, paths: &BTreeSet<&str>, lack: Option<&Lack>) -> Look {
    let mut groups: Vec<String> = stage.path.splitn(DEPTH_MAX, '/').map(printable).collect();
    let label = groups.pop().unwrap_or_default();
    if stage.path.rsplit_once('/').is_some_and(|(outer, _)| paths.contains(outer)) {
        // What is written in a stage stands beside it, not in a box of its own.
        groups.pop();
    }
    let mut notes = notes(stage);
    notes.extend(lack.map(|_| "not on this machine".to_owned()));
    let (shape, own) = match (&stage.kind, &stage.deployment) {
        (StageKind::Wait(wait), _) => (Shape::Wait, Some(mark(wait))),
        (StageKind::Rollback, _) => (Shape::Undo, Some(Mark::Back)),
        (StageKind::Work, Some(_)) => (Shape::Delivery, None),
        (StageKind::Work, None) => (Shape::Work, None),
    };
    let gates: Vec<Mark> = stage.enter.iter().chain(&stage.exit).map(mark).collect();
    let gate = gates.iter().copied().find(|mark| *mark == Mark::Person).or(gates.first().copied());
    let mut title = vec![printable(&stage.path)];
    if let StageKind::Wait(waited) = &stage.kind {
        title.push(format!("waits until {}", wait(waited)));
    }
    title.extend(stage.skipped.iter().map(|skipped| format!("skipped, {}", skip(skipped))));
    title.extend(stage.conditions.iter().map(|one| format!("if {}", condition(one))));
    title.extend(stage.enter.iter().map(|waited| format!("enter: waits until {}", wait(waited))));
    title.extend(stage.exit.iter().map(|waited| format!("exit: waits until {}", wait(waited))));
    title.extend(stage.deployment.iter().map(|to| format!("delivers to {}{}", printable(&to.environment), protected(to))));
    title.extend(stage.fanouts.iter().map(|block| format!("its failure cancels the others of {}", printable(block))));
    title.extend(lack.map(|lack| format!("cannot run on this machine: {}; {}", printable(&lack.why), printable(&lack.mend))));
    let title = title.join("\n");
    Look { label, note: notes.join(" · "), title, groups, shape, mark: own.or(gate), faded: stage.skipped.is_some() }
}

fn notes(stage: &Stage) -> Vec<String> {
    let mut notes = Vec::new();
    if stage.skipped.is_some() {
        notes.push("skipped".to_owned());
    }
    notes.extend(stage.deployment.iter().map(|to| format!("→ {}{}", printable(&to.environment), protected(to))));
    if !stage.conditions.is_empty() {
        notes.push("if …".to_owned());
    }
    if !stage.fanouts.is_empty() {
        notes.push("fanout".to_owned());
    }
    if stage.allow_failure {
        notes.push("may fail".to_owned());
    }
    notes
}

fn protected(to: &Deployment) -> &'static str {
    if to.protected { ", protected" } else { "" }
}

fn mark(wait: &Wait) -> Mark {
    match wait {
        Wait::Confirm { .. } | Wait::Prompt { .. } | Wait::Pause => Mark::Person,
        Wait::Webhook { .. } | Wait::Poll { .. } | Wait::Time { .. } => Mark::Hourglass,
    }
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
