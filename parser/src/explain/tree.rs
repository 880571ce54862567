//! The tree: groups, in them stages, in them what each does.

use std::collections::BTreeMap;

use model::plan::{Plan, Stage, StageKind};

use super::{
    facts::{Detail, Fact, LABEL_WIDTH, Paths, facts, notified},
    text::{Ink, Paper, printable},
};

/// Parts of a path that are groups of their own. Groups are nested no deeper than the language allows, but a name may have a `/` in it.
pub(super) const DEPTH_MAX: usize = 65;

/// A group, a stage, or both: a stage with a rollback in it.
#[derive(Default)]
struct Node<'a> {
    name: &'a str,
    stage: Option<&'a Stage>,
    children: Vec<usize>,
}

/// Writes the stages, each group with all that is in it, in the order of the plan.
pub(super) fn write(paper: &mut Paper, plan: &Plan, paths: &Paths<'_>) {
    if !plan.stages.is_empty() {
        paper.section("What happens");
    }
    let common = common(plan, paths);
    if !common.is_empty() {
        let name = paper.ink(Ink::Name, "every stage");
        paper.line(0, &name);
        write_facts(paper, 1, &common, &[]);
    }
    let nodes = nodes(plan);
    // The nodes that are still to be written, the next one last; without recursion, since a path may be deep.
    let mut open: Vec<(usize, usize)> = nodes[0].children.iter().rev().map(|child| (*child, 0)).collect();
    while let Some((node, depth)) = open.pop() {
        let Node { name, stage, children } = &nodes[node];
        if let Some(stage) = stage {
            write_name(paper, depth, name, stage);
            write_facts(paper, depth + 1, &facts(stage, paths, Detail::Short), if is_work(stage) { &common } else { &[] });
            if stage.steps.is_empty() && stage.kind == StageKind::Work {
                paper.labelled(depth + 1, ("steps", LABEL_WIDTH), &["none".to_owned()], Some(Ink::Quiet));
            }
        } else {
            let group = paper.ink(Ink::Name, &format!("{}/", printable(name)));
            paper.line(depth, &group);
        }
        open.extend(children.iter().rev().map(|child| (*child, depth + 1)));
    }
    for (label, lines) in notified(&plan.notify) {
        if !lines.is_empty() {
            let name = paper.ink(Ink::Name, &format!("{label} of the whole"));
            paper.line(0, &name);
            paper.labelled(1, ("steps", LABEL_WIDTH), &lines, None);
        }
    }
}

fn nodes(plan: &Plan) -> Vec<Node<'_>> {
    let mut nodes = vec![Node::default()];
    let mut index: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for stage in &plan.stages {
        let mut node = 0;
        for name in stage.path.splitn(DEPTH_MAX, '/') {
            node = *index.entry((node, name)).or_insert_with(|| {
                let child = nodes.len();
                nodes[node].children.push(child);
                nodes.push(Node { name, ..Node::default() });
                child
            });
        }
        nodes[node].stage = Some(stage);
    }
    nodes
}

/// The settings that all stages with an agent have in common; none if there is but one. The facts of a stage are made anew where they are
/// written: to keep those of thousands of stages takes longer, as all of the memory is touched once.
fn common(plan: &Plan, paths: &Paths<'_>) -> Vec<Fact> {
    let mut stages = plan.stages.iter().filter(|stage| is_work(stage)).map(|stage| facts(stage, paths, Detail::Short));
    let (Some(first), Some(second)) = (stages.next(), stages.next()) else { return Vec::new() };
    let mut common: Vec<Fact> = first.iter().filter(|fact| fact.is_setting() && second.contains(fact)).cloned().collect();
    for facts in stages {
        if common.is_empty() {
            break;
        }
        common.retain(|fact| facts.contains(fact));
    }
    common
}

fn is_work(stage: &Stage) -> bool {
    !matches!(stage.kind, StageKind::Wait(_))
}

fn write_name(paper: &mut Paper, depth: usize, name: &str, stage: &Stage) {
    let mark = match (&stage.skipped, &stage.kind) {
        (Some(_), _) => paper.ink(Ink::Skip, "  (skipped)"),
        (None, StageKind::Rollback) => paper.ink(Ink::Skip, "  (rollback)"),
        (None, StageKind::Work | StageKind::Wait(_)) => String::new(),
    };
    let name = paper.ink(Ink::Name, &printable(name));
    paper.line(depth, &format!("{name}{mark}"));
}

/// Writes the facts that were not told of all stages.
fn write_facts(paper: &mut Paper, depth: usize, facts: &[Fact], common: &[Fact]) {
    for fact in facts.iter().filter(|fact| !common.contains(fact)) {
        paper.labelled(depth, (fact.label, LABEL_WIDTH), &fact.lines, fact.ink());
    }
}
