//! The parser as its callers see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod any_input;
mod attack;
mod conformance;
mod corpus;
mod explain;
mod fixture;
mod format;
mod limits;
mod page;
mod plans;
mod robust;
mod settings;
mod steps;
mod structure;
mod values;

use std::collections::BTreeMap;

use model::{context::TriggerContext, diagnostic::Diagnostic, plan::PlanDocument, planning::LOCK_FILE};
use parser::{PlanInput, Planning};

/// The plan of a source, with the standard library.
fn planning(source: &[u8]) -> Planning {
    planning_of("Ottofile", source)
}

fn planning_of(path: &str, source: &[u8]) -> Planning {
    let input = PlanInput {
        path,
        source,
        context: &TriggerContext::default(),
        files: &BTreeMap::from([(LOCK_FILE.to_owned(), None)]),
        listing: None,
        changed: None,
        libraries: &[stdlib::library()],
    };
    parser::plan(&input)
}

fn planned(source: &str) -> PlanDocument {
    match planning(source.as_bytes()) {
        Planning::Plan { document, .. } => document,
        Planning::Refused(diagnostics) => panic!("{source}\n{diagnostics:#?}"),
        Planning::Needs(files) => panic!("needs {files:?}"),
    }
}

fn refused(source: &[u8]) -> Vec<Diagnostic> {
    match planning(source) {
        Planning::Refused(diagnostics) => diagnostics,
        Planning::Plan { .. } | Planning::Needs(_) => panic!("not refused: {}", String::from_utf8_lossy(source)),
    }
}

fn codes(diagnostics: &[Diagnostic]) -> Vec<&str> {
    diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}
