//! The plan for people: everything that will happen, stage by stage, and what follows from it; the difference of two plans; pictures.
//!
//! ```text
//! head ─ tree (what each stage does) ─ order (each edge with its reason) ─ waits ─ credentials ─ skipped ─ longest way ─ this machine ─ summary
//! ```
//!
//! What is not there (no wait, no credential) has no section, and what is a default is said once, at the end.
//!
//! **Invariant:** nothing in a plan or its notes can steer the terminal: all of it passes through `text::printable`.

mod credentials;
mod diff;
mod facts;
mod head;
mod here;
mod order;
mod picture;
mod skipped;
mod step;
mod summary;
mod text;
mod tree;
mod waits;
mod way;

use std::collections::BTreeMap;

use model::{
    context::TriggerContext,
    diagnostic::Diagnostic,
    plan::{Plan, PlanDocument, Requirements},
    planning::PlanNotes,
};
use serde::Serialize;

pub use diff::diff;
pub use here::{Here, Lack};
pub use picture::{dot, graph_of, svg};
pub use text::printable;

use facts::Paths;
use text::Paper;

/// What is explained.
#[derive(Debug, Clone, Copy)]
pub struct Explained<'a> {
    /// The file's path, for the first line.
    pub path: &'a str,
    /// The plan with its digest.
    pub document: &'a PlanDocument,
    /// What was found out beside the plan.
    pub notes: Option<&'a PlanNotes>,
    /// The facts that the plan was made for.
    pub context: Option<&'a TriggerContext>,
    /// How long stages took in the past, in milliseconds, by path.
    pub durations: Option<&'a BTreeMap<String, u64>>,
    /// What the machine offers on which it is explained, if that was tried.
    pub here: Option<&'a Here>,
    /// Whether to add ANSI escapes for colours.
    pub colour: bool,
}

impl<'a> Explained<'a> {
    /// A plan and nothing beside it, without colour.
    pub fn new(path: &'a str, document: &'a PlanDocument) -> Self {
        Self { path, document, notes: None, context: None, durations: None, here: None, colour: false }
    }
}

/// The plan as text that ends with a line break.
pub fn explain(explained: &Explained<'_>) -> String {
    let plan = explained.document.plan();
    let paths = paths(plan);
    let mut paper = Paper::new(explained.colour);
    head::write(&mut paper, explained);
    tree::write(&mut paper, plan, &paths);
    order::write(&mut paper, plan, &paths);
    waits::write(&mut paper, plan);
    credentials::write(&mut paper, plan);
    skipped::write(&mut paper, plan, explained.notes);
    way::write(&mut paper, plan, explained.durations);
    here::write(&mut paper, plan, explained.here);
    summary::write(&mut paper, explained);
    paper.into_text()
}

/// One JSON object for programs: `{digest, plan, demands, notes, warnings}`, and `here` where that was tried: `demands` has all that a stage
/// asks of an agent, by its path. The plan is the canonical one; its own bytes, of which the digest is
/// the SHA-256, are [`PlanDocument::bytes`].
pub fn json(explained: &Explained<'_>, warnings: &[Diagnostic]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        digest: String,
        plan: &'a Plan,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        demands: BTreeMap<&'a str, Requirements>,
        notes: Option<&'a PlanNotes>,
        warnings: &'a [Diagnostic],
        #[serde(skip_serializing_if = "Option::is_none")]
        here: Option<here::Told<'a>>,
    }
    let Explained { document, notes, here, .. } = *explained;
    let plan = document.plan();
    let demands = plan.stages.iter().map(|stage| (stage.path.as_str(), stage.demands())).filter(|(_, demands)| !demands.is_empty());
    let (demands, here) = (demands.collect(), here.map(|here| here.told(plan)));
    let json = Document { digest: document.digest().to_string(), plan, demands, notes, warnings, here };
    let mut text = serde_json::to_string_pretty(&json).expect("plans and notes have text keys and nothing that can fail");
    text.push('\n');
    text
}

fn paths(plan: &Plan) -> Paths<'_> {
    plan.stages.iter().map(|stage| (&stage.id, stage.path.as_str())).collect()
}
