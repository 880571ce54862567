//! What the machine offers on which a plan is explained, and which stages could not run on it. It was tried by others: nothing is done here.

use std::collections::BTreeMap;

use model::{
    StageId,
    plan::{Plan, Stage, Value},
};
use serde::Serialize;

use super::text::{Ink, Paper, counted, joined, printable, size, value};

/// Columns of the labels.
const LABEL_WIDTH: usize = 13;

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// What an agent on it would say of itself.
    pub offers: BTreeMap<String, Value>,
    /// The stages that could not run on it.
    pub lacks: BTreeMap<StageId, Lack>,
}

/// Why a stage could not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// What it demands that is not there.
    pub why: String,
    /// What to do about it.
    pub mend: String,
}

/// The same for programs.
#[derive(Debug, Serialize)]
pub(super) struct Told<'a> {
    offers: &'a BTreeMap<String, Value>,
    /// By the stage's path.
    lacks: BTreeMap<&'a str, &'a Lack>,
}

impl Here {
    pub(super) fn told<'a>(&'a self, plan: &'a Plan) -> Told<'a> {
        let lacks = plan.stages.iter().filter_map(|stage| Some((stage.path.as_str(), self.lacks.get(&stage.id)?)));
        Told { offers: &self.offers, lacks: lacks.collect() }
    }
}

/// Writes what the machine offers, and each stage that could not run on it.
pub(super) fn write(paper: &mut Paper, plan: &Plan, here: Option<&Here>) {
    let Some(here) = here else { return };
    paper.section("On this machine");
    paper.labelled(1, ("it offers", LABEL_WIDTH), &[joined(here.offers.iter().map(|(fact, known)| offer(fact, known)))], None);
    let lacking: Vec<&Stage> = plan.stages.iter().filter(|stage| here.lacks.contains_key(&stage.id)).collect();
    if lacking.is_empty() {
        return paper.labelled(1, ("can run", LABEL_WIDTH), &["every stage".to_owned()], None);
    }
    paper.labelled(1, ("cannot run", LABEL_WIDTH), &[counted(lacking.len(), "stage")], Some(Ink::Removed));
    for stage in lacking {
        let Lack { why, mend } = &here.lacks[&stage.id];
        let name = paper.ink(Ink::Name, &printable(&stage.path));
        paper.line(2, &format!("{name}  {}", printable(why)));
        let mend = paper.ink(Ink::Quiet, &printable(mend));
        paper.line(3, &mend);
    }
}

fn offer(fact: &str, known: &Value) -> String {
    match known {
        Value::Boolean(true) => printable(fact),
        Value::Integer(bytes) if fact == "memory" => format!("{fact} {}", size(*bytes)),
        Value::Boolean(false)
        | Value::Integer(_)
        | Value::Text(_)
        | Value::Decimal { .. }
        | Value::Variable { .. }
        | Value::Call { .. }
        | Value::Steps { .. }
        | Value::List(_) => format!("{} {}", printable(fact), value(known)),
    }
}
