//! What waits for whom: people, outside systems, time; and where an approval may be asked for.

use model::plan::{Plan, Stage, StageKind};

use super::text::{Ink, Paper, printable, wait};

/// Writes a line for each thing that is waited for. A skipped stage waits for nothing.
pub(super) fn write(paper: &mut Paper, plan: &Plan) {
    let rows: Vec<(String, String)> = plan.stages.iter().filter(|stage| stage.skipped.is_none()).flat_map(of_stage).collect();
    if rows.is_empty() {
        return;
    }
    paper.section("What waits for whom");
    paper.rows(&rows, Some(Ink::Wait));
}

fn of_stage(stage: &Stage) -> Vec<(String, String)> {
    let path = printable(&stage.path);
    let mut rows = Vec::new();
    if let StageKind::Wait(what) = &stage.kind {
        rows.push((path.clone(), wait(what)));
    }
    rows.extend(stage.enter.iter().map(|what| (path.clone(), format!("before it gets an agent: {}", wait(what)))));
    rows.extend(stage.exit.iter().map(|what| (path.clone(), format!("after its agent is released: {}", wait(what)))));
    if let Some(deployment) = stage.deployment.as_ref().filter(|deployment| deployment.protected) {
        let name = printable(&deployment.environment);
        rows.push((path, format!("an approval of this delivery: {name} is protected")));
    }
    rows
}

/// How many stages wait for something.
pub(super) fn count(plan: &Plan) -> usize {
    plan.stages.iter().filter(|stage| stage.skipped.is_none() && !of_stage(stage).is_empty()).count()
}
