//! The longest way through the graph: what decides how long the whole takes.

use std::collections::{BTreeMap, HashMap};

use model::{
    StageId,
    plan::{Plan, Stage, StageKind},
};

use super::text::{Paper, counted, duration, printable};

/// Stages of the way that are named: as many of its beginning as of its end.
const NAMES_MAX: usize = 24;

/// Writes the longest way: by past durations where there are any, else by the number of stages.
pub(super) fn write(paper: &mut Paper, plan: &Plan, durations: Option<&BTreeMap<String, u64>>) {
    let durations = durations.filter(|durations| plan.stages.iter().any(|stage| counts(stage) && durations.contains_key(&stage.path)));
    let weight = |stage: &Stage| match durations {
        _ if !counts(stage) => 0,
        Some(durations) => durations.get(&stage.path).copied().unwrap_or(0),
        None => 1,
    };
    let (way, sum) = longest(plan, weight);
    if way.len() < 2 && durations.is_none() {
        return;
    }
    paper.section("The longest way");
    let name = |stage: &&Stage| {
        let took = durations.and_then(|durations| durations.get(&stage.path)).map(|ms| format!(" ({})", duration(*ms)));
        format!("{}{}", printable(&stage.path), took.unwrap_or_default())
    };
    paper.line(1, &shortened(&way.iter().map(name).collect::<Vec<_>>()));
    let all = plan.stages.iter().filter(|stage| counts(stage)).count();
    let Some(durations) = durations else {
        return paper.line(1, &format!("{} of {all}, one after the other; there are no past durations", counted(way.len(), "stage")));
    };
    let unknown = plan.stages.iter().filter(|stage| counts(stage) && !durations.contains_key(&stage.path)).count();
    let unknown = if unknown == 0 { String::new() } else { format!(", and {} without a past duration", counted(unknown, "stage")) };
    paper.line(1, &format!("{} by past durations{unknown}", duration(sum)));
}

/// Whether a stage takes time if all goes well.
fn counts(stage: &Stage) -> bool {
    stage.skipped.is_none() && stage.kind != StageKind::Rollback
}

/// The stages of the heaviest way that count, and its weight. A plan has each stage after those that it needs.
fn longest(plan: &Plan, weight: impl Fn(&Stage) -> u64) -> (Vec<&Stage>, u64) {
    let mut index: HashMap<&StageId, usize> = HashMap::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(plan.stages.len());
    let mut sums: Vec<u64> = Vec::with_capacity(plan.stages.len());
    for (place, stage) in plan.stages.iter().enumerate() {
        let firsts = stage.needs.iter().filter_map(|need| index.get(&need.stage).copied());
        // Of ways with the same weight, the one whose last stage stands first in the plan.
        let heaviest = firsts.max_by(|left, right| sums[*left].cmp(&sums[*right]).then(right.cmp(left)));
        sums.push(heaviest.map_or(0, |first| sums[first]).saturating_add(weight(stage)));
        before.push(heaviest);
        index.insert(&stage.id, place);
    }
    let counted = |place: &usize| counts(&plan.stages[*place]);
    let last = (0..plan.stages.len()).filter(counted).max_by(|left, right| sums[*left].cmp(&sums[*right]).then(right.cmp(left)));
    let mut way: Vec<&Stage> =
        std::iter::successors(last, |place| before[*place]).filter(counted).map(|place| &plan.stages[place]).collect();
    way.reverse();
    (way, last.map_or(0, |place| sums[place]))
}

fn shortened(names: &[String]) -> String {
    const ARROW: &str = " → ";
    if names.len() <= NAMES_MAX {
        return names.join(ARROW);
    }
    let (first, last) = (&names[..NAMES_MAX / 2], &names[names.len() - NAMES_MAX / 2..]);
    format!("{}{ARROW}… {} more …{ARROW}{}", first.join(ARROW), names.len() - NAMES_MAX, last.join(ARROW))
}
