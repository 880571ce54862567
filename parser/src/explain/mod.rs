//! The plan for people: everything that will happen, stage by stage, and what follows from it; the difference of two plans; pictures.
//!
//! ```text
//! head ─ tree (what each stage does) ─ order (each edge with its reason) ─ waits ─ credentials ─ skipped ─ longest way ─ summary
//! ```
//!
//! What is not there (no wait, no credential) has no section, and what is a default is said once, at the end.
//!
//! **Invariant:** nothing in a plan or its notes can steer the terminal: all of it passes through `text::printable`.

mod credentials;
mod diff;
mod facts;
mod head;
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
    plan::{Plan, PlanDocument},
    planning::PlanNotes,
};
use serde::Serialize;

pub use diff::diff;
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
    /// Whether to add ANSI escapes for colours.
    pub colour: bool,
}

impl<'a> Explained<'a> {
    /// A plan and nothing beside it, without colour.
    pub fn new(path: &'a str, document: &'a PlanDocument) -> Self {
        Self { path, document, notes: None, context: None, durations: None, colour: false }
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
    summary::write(&mut paper, explained);
    paper.into_text()
}

/// One JSON object for programs: `{digest, plan, notes, warnings}`. The plan is the canonical one; its own bytes, of which the digest is
/// the SHA-256, are [`PlanDocument::bytes`].
pub fn json(explained: &Explained<'_>, warnings: &[Diagnostic]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        digest: String,
        plan: &'a Plan,
        notes: Option<&'a PlanNotes>,
        warnings: &'a [Diagnostic],
    }
    let Explained { document, notes, .. } = *explained;
    let json = Document { digest: document.digest().to_string(), plan: document.plan(), notes, warnings };
    let mut text = serde_json::to_string_pretty(&json).expect("plans and notes have text keys and nothing that can fail");
    text.push('\n');
    text
}

fn paths(plan: &Plan) -> Paths<'_> {
    plan.stages.iter().map(|stage| (&stage.id, stage.path.as_str())).collect()
}
