//! Pictures of the plan's graph: Graphviz's dot, and SVG.

use graph::Graph;
use model::{
    StageId,
    plan::{NeedReason, Plan},
};

use super::paths;

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
