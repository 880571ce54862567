//! `.otto` files: from text to the plan, or to diagnostics.
//!
//! ```text
//! text ─ scan ─ grammar (pest) ─ syntax tree ─ lower/declare ─ what the file declares ─ lower/wire ─ plan
//! ```
//!
//! Each pass only ever sees what the one before let pass. `GRAMMAR.md` beside this crate is the language as it is read here.
//!
//! **Invariant:** pure: no IO, no clock, no randomness, no user code. The same input gives the same plan, byte for byte. No input makes it
//! panic, recurse deeper than its limits, or take more than linear time.

pub mod diagnostic;
pub mod explain;
pub mod limits;
pub mod render;
pub mod syntax;

mod grammar;
mod literal;
mod lower;
mod scan;
mod suggest;

use std::collections::BTreeMap;

use model::{
    context::TriggerContext,
    diagnostic::{Diagnostic, Span},
    manifest::StepLibrary,
    plan::PlanDocument,
};

pub use diagnostic::Code;
pub use explain::{explain, graph_of};
pub use render::render;

use crate::{
    diagnostic::{Finding, Findings, Lines},
    limits::SOURCE_BYTES_MAX,
};

/// All that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The file's path from the repository's root. It stands in diagnostics, never in the plan.
    pub path: &'a str,
    /// The file's bytes.
    pub source: &'a [u8],
    /// The trigger's facts.
    pub context: &'a TriggerContext,
    /// Files that an earlier answer asked for, by path from the repository's root.
    pub files: &'a BTreeMap<String, Vec<u8>>,
    /// The step libraries that may be used. `stdlib` is in scope without being named.
    pub libraries: &'a [StepLibrary],
}

/// What comes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planning {
    /// A plan.
    Plan {
        /// The plan, its bytes and its digest.
        document: PlanDocument,
        /// What may not be meant as it is written.
        warnings: Vec<Diagnostic>,
    },
    /// The file is refused: every independent error and every warning, the first of the file first.
    Refused(Vec<Diagnostic>),
    /// Ask again with these files, too: paths from the repository's root.
    Needs(Vec<String>),
}

/// Makes the plan of a pipeline file.
pub fn plan(input: &PlanInput<'_>) -> Planning {
    let mut findings = Findings::default();
    let lines = Lines::of(input.source.get(..SOURCE_BYTES_MAX).unwrap_or(input.source));
    let plan = document(input, &lines, &mut findings);
    let refused = findings.has_errors();
    let diagnostics = findings.finish(input.path, &lines);
    match plan {
        Some(document) if !refused => Planning::Plan { document, warnings: diagnostics },
        _ => Planning::Refused(diagnostics),
    }
}

/// The plan; `None` only where `findings` say why.
fn document(input: &PlanInput<'_>, lines: &Lines<'_>, findings: &mut Findings) -> Option<PlanDocument> {
    let source = text_of(input.source, findings)?;
    let braces = scan::scan(source, lines, findings)?;
    let tree = grammar::parse(source, &braces, findings)?;
    lower::lower(&tree, source, lines, input.libraries, findings)
}

/// Says that a file is over [`limits::SOURCE_BYTES_MAX`], where its bytes are too many even to be handed in.
pub fn too_large(path: &str, bytes: u64) -> Diagnostic {
    let mut findings = Findings::default();
    findings.add(size_finding(bytes));
    findings.finish(path, &Lines::of(b"")).remove(0)
}

fn size_finding(bytes: u64) -> Finding {
    let message = format!("the file has {bytes} bytes, over the limit of {SOURCE_BYTES_MAX}");
    Finding::new(Code::SourceTooLarge, Span::default(), message)
}

fn text_of<'a>(source: &'a [u8], findings: &mut Findings) -> Option<&'a str> {
    if source.len() > SOURCE_BYTES_MAX {
        findings.add(size_finding(source.len() as u64));
        return None;
    }
    match std::str::from_utf8(source) {
        Ok(text) => Some(text),
        Err(error) => {
            let start = error.valid_up_to();
            let message =
                format!("the file is not UTF-8: byte {start} (from 0) is {:#04x}", source.get(start).copied().unwrap_or_default());
            findings.add(Finding::new(Code::NotUtf8, Span { start, end: start + 1 }, message).help("save the file as UTF-8"));
            None
        }
    }
}
