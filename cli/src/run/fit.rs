//! Whether the stages of a plan can run on this machine: found out before anything starts, and only as far as they ask for something.

use std::{collections::BTreeSet, fmt::Write as _};

use agent::{
    Isolation,
    container::{Runtime, probe},
};
use anyhow::bail;
use model::{
    StageId,
    capability::Facts,
    plan::{NeedReason, Plan, Stage, StageKind},
};

use crate::machine::{Machine, container_options};

/// Stages whose lack is told: who has mended the first ones hears of the others.
const REFUSED_MAX: usize = 20;

/// What stages find here.
pub(super) struct Fit {
    /// What runs their containers; `None` if they need none.
    pub(super) runtime: Option<Runtime>,
    /// What this machine is and has, as far as they ask for it.
    pub(super) facts: Facts,
}

/// What these stages find here. An error says which of them cannot run, why, and what to do.
pub(super) async fn of(stages: &[&Stage], isolation: Isolation) -> anyhow::Result<Fit> {
    let demands: Vec<_> = stages.iter().map(|stage| stage.demands()).filter(|demands| !demands.is_empty()).collect();
    if demands.is_empty() {
        return Ok(Fit { runtime: None, facts: agent::machine_facts() });
    }
    let machine = Machine::look(&demands, isolation).await?;
    let lacks: Vec<_> = stages.iter().filter_map(|stage| Some((stage, machine.lacks(stage)?))).collect();
    if lacks.is_empty() {
        return Ok(Fit { facts: machine.facts, runtime: machine.containers.and_then(Result::ok) });
    }
    let mut said = String::new();
    for (stage, lack) in lacks.iter().take(REFUSED_MAX) {
        writeln!(said, "the stage `{}` cannot run on this machine: {}\n  {}", stage.path, lack.why, lack.mend)?;
    }
    if lacks.len() > REFUSED_MAX {
        writeln!(said, "and {} more stages", lacks.len() - REFUSED_MAX)?;
    }
    bail!("{}", said.trim_end())
}

/// What any stage would find here; for a run whose stages are not known yet.
pub(super) async fn of_machine() -> Fit {
    let options = container_options();
    let (runtime, tools) = tokio::join!(probe(&options), agent::find_tools(agent::ALL_TOOLS));
    let facts = agent::machine_facts().into_iter().chain(agent::tool_facts(&tools)).collect();
    Fit { runtime: runtime.ok(), facts }
}

/// The stages that may run: those that are not skipped in the plan, of one that is wanted alone what it needs, and what undoes that.
pub(super) fn chosen<'a>(plan: &'a Plan, only: Option<&StageId>) -> Vec<&'a Stage> {
    let wanted = only.map(|only| with_needs(plan, only));
    let is_wanted = |stage: &Stage| {
        let Some(wanted) = &wanted else { return true };
        let undone = || stage.needs.iter().filter(|need| need.reason == NeedReason::Rollback).all(|need| wanted.contains(&need.stage));
        wanted.contains(&stage.id) || (stage.kind == StageKind::Rollback && undone())
    };
    plan.stages.iter().filter(|stage| stage.skipped.is_none() && is_wanted(stage)).collect()
}

fn with_needs<'a>(plan: &'a Plan, only: &'a StageId) -> BTreeSet<&'a StageId> {
    let mut wanted = BTreeSet::from([only]);
    // A plan has each stage after those that it needs.
    for stage in plan.stages.iter().rev() {
        if wanted.contains(&stage.id) {
            wanted.extend(stage.needs.iter().map(|need| &need.stage));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use model::plan::{Need, Skip};

    use super::*;

    fn stage(path: &str, needs: &[&str]) -> Stage {
        let need = |path: &&str| Need { stage: StageId::of(path), reason: NeedReason::Order };
        Stage { needs: needs.iter().map(need).collect(), ..Stage::new(path) }
    }

    #[test]
    fn one_stage_takes_what_it_needs_and_what_undoes_that() {
        let skip = Skip { condition: "tag".to_owned(), because: "there is no tag".to_owned() };
        let undo = |path: &str, of: &str| Stage {
            needs: vec![Need { stage: StageId::of(of), reason: NeedReason::Rollback }],
            kind: StageKind::Rollback,
            ..Stage::new(path)
        };
        let plan = Plan::new(vec![
            stage("A", &[]),
            Stage { skipped: Some(skip), ..stage("B", &["A"]) },
            stage("C", &["A"]),
            stage("D", &["C"]),
            stage("E", &["A"]),
            undo("C/undo", "C"),
            undo("E/undo", "E"),
        ]);
        let paths = |only: Option<&str>| {
            let only = only.map(StageId::of);
            chosen(&plan, only.as_ref()).into_iter().map(|stage| stage.path.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(None), "A C D E C/undo E/undo");
        assert_eq!(paths(Some("D")), "A C D C/undo");
        assert_eq!(paths(Some("A")), "A");
    }
}
