//! What holds of every input, whatever its bytes. The property tests and the fuzz target (`fuzz/`) both look at it.

use std::{collections::BTreeMap, sync::LazyLock};

use model::{
    context::{EventKind, TriggerContext},
    manifest::StepLibrary,
    planning::{Listing, PLAN_ROUNDS_MAX},
};
use parser::{
    Changed, Needs, PlanInput, Planning,
    explain::{Explained, explain},
    render,
};

static LIBRARIES: LazyLock<[StepLibrary; 1]> = LazyLock::new(|| [stdlib::library()]);

/// Panics unless all of it holds of these bytes.
pub(crate) fn check(source: &[u8]) {
    let planning = answered(source);
    assert_eq!(answered(source), planning, "the same input gives the same answer");
    let diagnostics = match &planning {
        Planning::Plan { document, notes, warnings } => {
            let again = model::plan::PlanDocument::read(document.bytes()).expect("what is written can be read");
            assert_eq!(&again, document);
            let explained = Explained { notes: Some(notes), ..Explained::new("Ottofile", document) };
            let text = explain(&explained);
            assert!(text.contains(&document.digest().to_string()), "{text}");
            warnings
        }
        Planning::Refused(diagnostics) => {
            assert!(!diagnostics.is_empty(), "a refusal says why");
            diagnostics
        }
        Planning::Needs(needs) => panic!("still asks after {PLAN_ROUNDS_MAX} rounds: {needs:?}"),
    };
    for diagnostic in diagnostics {
        let shown = render(diagnostic, source, false);
        assert!(shown.contains(&diagnostic.code), "{shown}");
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.span.start <= diagnostic.span.end, "{diagnostic:?}");
        // With other bytes than those it is of, it shows something else, and that is all.
        render(diagnostic, b"x\n\xc3\xa4", true);
    }
    if let Ok(text) = str::from_utf8(source) {
        check_format(text, &planning);
    }
}

/// Formatting gives what is formatted already, and the same plan.
fn check_format(source: &str, planned: &Planning) {
    let Ok(formatted) = parser::format(source) else {
        assert!(!matches!(planned, Planning::Plan { .. }), "what has a plan can be formatted");
        return;
    };
    assert_eq!(parser::format(&formatted).as_ref(), Ok(&formatted), "formatted twice");
    if let Planning::Plan { document, .. } = planned {
        let Planning::Plan { document: after, .. } = answered(formatted.as_bytes()) else {
            panic!("there was a plan before it was formatted:\n{formatted}");
        };
        assert_eq!(after.digest(), document.digest(), "formatting changed what it means:\n{formatted}");
    }
}

/// The planning of a source with all that it asks for: the source itself stands in every file of the language, so that files name each
/// other in circles.
fn answered(source: &[u8]) -> Planning {
    let context = TriggerContext { event: EventKind::Push, branch: "main".to_owned(), ..TriggerContext::default() };
    let listing: Listing = ["Cargo.lock", "docs/a.md", "m.json"].map(|path| (path.to_owned(), "0".repeat(40))).into();
    let changed = Changed::Paths(vec!["docs/a.md".to_owned()]);
    let mut files = BTreeMap::new();
    let mut needed = Needs::default();
    let mut planning = Planning::Needs(Needs::default());
    for _ in 0..PLAN_ROUNDS_MAX {
        let input = PlanInput {
            path: "Ottofile",
            source,
            context: &context,
            files: &files,
            listing: needed.listing.then_some(&listing),
            changed: needed.changed.then_some(&changed),
            libraries: &*LIBRARIES,
        };
        planning = parser::plan(&input);
        let Planning::Needs(more) = &planning else { return planning };
        for path in &more.files {
            files.insert(path.clone(), file(path, source));
        }
        needed.listing |= more.listing;
        needed.changed |= more.changed;
    }
    planning
}

/// The file at a path, by its ending.
fn file(path: &str, source: &[u8]) -> Option<Vec<u8>> {
    match path.rsplit_once('.')?.1 {
        "otto" | "blueprint" => Some(source.to_vec()),
        "json" => Some(b"[\"a\", 2, true]".to_vec()),
        "yml" if path.contains('a') => Some(b"symbol: own\nparameters:\n  - name: script\n    type: code\n    required: true\n".to_vec()),
        _ => None,
    }
}
