//! What does not happen, and because of which condition: skipped while planning, decided in the run, left out of the plan.

use model::{
    plan::{Condition, Plan},
    planning::PlanNotes,
};

use super::{
    facts::skip,
    text::{Ink, Paper, condition, printable, side_by_side},
};

/// Writes what is skipped, what may be, and what is not in the plan at all.
pub(super) fn write(paper: &mut Paper, plan: &Plan, notes: Option<&PlanNotes>) {
    let mut rows = Vec::new();
    for stage in &plan.stages {
        let path = printable(&stage.path);
        if let Some(why) = &stage.skipped {
            rows.push((path, skip(why)));
        } else if !stage.conditions.is_empty() {
            rows.push((path, format!("decided in the run: if {} it runs, else it is skipped", all(&stage.conditions))));
        }
    }
    for left in notes.map_or(&[][..], |notes| &notes.left_out) {
        rows.push((printable(&left.path), format!("not in the plan, because {} is false", printable(&left.condition))));
    }
    if rows.is_empty() {
        return;
    }
    paper.section("What is skipped");
    let together =
        |rows: &[(String, String)]| (side_by_side(&rows.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>()), rows[0].1.clone());
    let rows: Vec<(String, String)> = rows.chunk_by(|(_, why), (_, other)| why == other).map(together).collect();
    paper.rows(&rows, Some(Ink::Skip));
}

/// All must hold.
fn all(conditions: &[Condition]) -> String {
    match conditions {
        [one] => condition(one),
        _ => condition(&Condition::All(conditions.to_vec())),
    }
}
