//! The graph as text: for each stage what must end well before it starts, and why.

use std::collections::BTreeSet;

use model::plan::{NeedReason, Plan, Stage, StageKind};

use super::{
    facts::{Paths, edges},
    text::{Ink, Paper, printable, side_by_side},
};

/// Stages after a rollback that are named.
const NAMES_MAX: usize = 3;

/// Writes a line for each stage, or for several that stand side by side and wait for the same.
pub(super) fn write(paper: &mut Paper, plan: &Plan, paths: &Paths<'_>) {
    if plan.stages.is_empty() {
        return;
    }
    paper.section("In which order");
    // Where the stages of a row end in the plan.
    let mut end = 0;
    let alike = |first: &Stage, second: &Stage| first.needs == second.needs && is_rollback(first) == is_rollback(second);
    let mut row = |stages: &[Stage]| {
        let needs = edges(&stages[0].needs, paths);
        let waits = if stages[0].needs.is_empty() { needs } else { format!("← {needs}") };
        end += stages.len();
        (
            side_by_side(&stages.iter().map(|stage| printable(&stage.path)).collect::<Vec<_>>()),
            if is_rollback(&stages[0]) { format!("{waits}, {}", triggers(&plan.stages[end..])) } else { waits },
        )
    };
    let rows: Vec<(String, String)> = plan.stages.chunk_by(alike).map(&mut row).collect();
    paper.rows(&rows, None);
    if let Some(legend) = legend(plan) {
        let legend = paper.ink(Ink::Quiet, &legend);
        paper.line(1, &legend);
    }
}

/// When a rollback runs, given the stages after it.
fn triggers(after: &[Stage]) -> String {
    let mut may_fail = after.iter().filter(|stage| stage.skipped.is_none() && !is_rollback(stage));
    let first: Vec<String> = may_fail.by_ref().take(NAMES_MAX).map(|stage| printable(&stage.path)).collect();
    match (first.as_slice(), may_fail.next()) {
        ([], _) => "never: no stage that may fail stands after it".to_owned(),
        ([one], _) => format!("if {one} fails"),
        (names, None) => format!("if one of {} fails", names.join(", ")),
        (names, Some(_)) => format!("if one of {} … fails", names.join(", ")),
    }
}

fn is_rollback(stage: &Stage) -> bool {
    stage.kind == StageKind::Rollback
}

/// What the words in brackets mean, for those that are there; nothing if only the written order decides.
fn legend(plan: &Plan) -> Option<String> {
    let words: BTreeSet<(usize, &str)> = plan.stages.iter().flat_map(|stage| &stage.needs).map(|need| word(&need.reason)).collect();
    let only_order = words.iter().all(|(place, _)| *place == 0);
    let told = words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join("; ");
    (!only_order).then(|| format!("[{told}]"))
}

fn word(reason: &NeedReason) -> (usize, &'static str) {
    match reason {
        NeedReason::Order => (0, "order: written before it"),
        NeedReason::Needs => (1, "needs: named by it"),
        NeedReason::Cache(_) => (2, "cache: makes what it uses"),
        NeedReason::Artifact(_) => (3, "artifact: archives what it uses"),
        NeedReason::From(_) => (4, "from it: has the block that it copies"),
        NeedReason::Environment(_) => (5, "environment: delivers there before it"),
        NeedReason::Variable(_) => (6, "vars: finds out what it uses"),
        NeedReason::Barrier => (7, "wait: waits for someone, or it does"),
        NeedReason::Rollback => (8, "undoes it: has what it undoes"),
    }
}
