//! Any input: never a panic, always the same answer, diagnostics that can be shown.

use std::collections::BTreeSet;

use parser::{
    Planning,
    explain::{Explained, explain},
    render,
};
use proptest::prelude::*;

use crate::planning;

/// What must hold for every input.
fn check(source: &[u8]) {
    let first = planning(source);
    assert_eq!(planning(source), first);
    let diagnostics = match first {
        Planning::Plan { document, warnings, .. } => {
            assert!(explain(&Explained::new("Ottofile", &document)).contains(&document.digest().to_string()));
            let paths: BTreeSet<&str> = document.plan().stages.iter().map(|stage| stage.path.as_str()).collect();
            assert_eq!(paths.len(), document.plan().stages.len());
            assert_eq!(model::plan::PlanDocument::read(document.bytes()).unwrap(), document);
            warnings
        }
        Planning::Refused(diagnostics) => {
            assert!(!diagnostics.is_empty());
            diagnostics
        }
        Planning::Needs(files) => panic!("asks for {files:?}"),
    };
    for diagnostic in diagnostics {
        let shown = render(&diagnostic, source, false);
        assert!(shown.contains(&diagnostic.code), "{shown}");
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.span.start <= diagnostic.span.end);
        // With other bytes than those it is of, it shows something else, and that is all.
        render(&diagnostic, b"x\n\xc3\xa4", true);
    }
}

const TOKENS: &[&str] = &[
    "pipeline",
    "stage",
    "stages",
    "steps",
    "parallel",
    "env",
    "timeout",
    "effect",
    "name",
    "use",
    "stdlib",
    "sh",
    "echo",
    "when",
    "each",
    "it",
    "in",
    "matches",
    "type",
    "true",
    "safe",
    "once",
    "format",
    "params.x",
    "script",
    "label",
    "message",
    "{",
    "}",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "=",
    "==",
    "!=",
    "!",
    "&&",
    "||",
    "->",
    ":",
    ",",
    "'a'",
    "'b'",
    "\"c\"",
    "\"\"\"\n d\n\"\"\"",
    "''",
    "1",
    "1.5",
    "10m",
    "1G",
    "3x",
    "// c\n",
    "/* d */",
    "\n",
    "\r\n",
    " ",
    "ä",
    "\u{feff}",
    "\"\\q\"",
    "'",
    "\"",
];

/// A tree of blocks that are closed, so that more than the scanner sees it.
fn block() -> impl Strategy<Value = String> {
    let leaf = prop::collection::vec(prop::sample::select(TOKENS), 0..6)
        .prop_map(|tokens| tokens.into_iter().filter(|token| !"{}[]()'\"".contains(token)).collect::<Vec<_>>().join(" "));
    leaf.prop_recursive(5, 64, 5, |inner| {
        let head = prop::sample::select(
            &[
                "stage 'a' {",
                "stage {",
                "steps {",
                "steps [",
                "parallel {",
                "pipeline {",
                "stages {",
                "env {",
                "sh [",
                "echo(",
                "x = [",
                "when {",
            ][..],
        );
        (head, prop::collection::vec(inner, 0..5)).prop_map(|(head, inner)| {
            let close = match head.chars().last() {
                Some('{') => "}",
                Some('[') => "]",
                _ => ")",
            };
            format!("{head} {} {close}", inner.join(" "))
        })
    })
}

proptest! {
    #[test]
    fn any_bytes(source in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&source);
    }

    #[test]
    fn any_text(source in "\\PC{0,200}") {
        check(source.as_bytes());
    }

    #[test]
    fn any_tokens(tokens in prop::collection::vec(prop::sample::select(TOKENS), 0..60)) {
        check(tokens.join(" ").as_bytes());
        check(tokens.concat().as_bytes());
    }

    #[test]
    fn any_blocks(blocks in prop::collection::vec(block(), 1..4)) {
        check(format!("pipeline {{ {} }}", blocks.join("\n")).as_bytes());
        check(blocks.join("\n").as_bytes());
    }

    #[test]
    fn any_damage_to_a_sound_file(place in 0usize..400, length in 0usize..20, with in "\\PC{0,5}") {
        let source = include_str!("../../test_data/ok/in_order_and_parallel.otto");
        let mut bytes = source.as_bytes().to_vec();
        let place = place.min(bytes.len());
        let end = (place + length).min(bytes.len());
        bytes.splice(place..end, with.into_bytes());
        check(&bytes);
    }
}
