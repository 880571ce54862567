//! Any input: never a panic, always the same answer, diagnostics that can be shown.

use std::{fs, path::Path};

use proptest::prelude::*;

use crate::any_input::check;

const TOKENS: &[&str] = &[
    "fanout",
    "from",
    "confirm",
    "prompt",
    "wait",
    "pause",
    "rollback",
    "notify",
    "success",
    "failure",
    "complete",
    "gates",
    "enter",
    "exit",
    "input",
    "webhook",
    "poll",
    "time",
    "runtime",
    "docker",
    "computer",
    "label",
    "services",
    "cache",
    "environment",
    "environments",
    "credentials",
    "vault('a#b')",
    "parameters",
    "default",
    "options",
    "type",
    "choice",
    "triggers",
    "push",
    "tag",
    "cron",
    "manual",
    "needs",
    "order",
    "auto",
    "newer",
    "lock",
    "retry",
    "allow_failure",
    "checkout",
    "blueprint",
    "plan",
    "vars",
    "configure",
    "step",
    "dir",
    "archive",
    "unarchive",
    "drop",
    "into",
    "'main'",
    "branch",
    "event",
    "changed('docs/**')",
    "exists('x')",
    "files('Cargo.lock')",
    "json('m.json')",
    "it.a",
    "vars.a",
    "concat('a', it)",
    "join(['a'], ',')",
    "'./a'",
    "'a.json'",
    "key",
    "paths",
    "description",
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
                "gates { enter {",
                "each('a', 'b') {",
                "fanout {",
                "cache {",
                "runtime {",
                "rollback {",
                "x = {",
                "dir 'd' [",
                "parameters {",
                "triggers {",
            ][..],
        );
        (head, prop::collection::vec(inner, 0..5)).prop_map(|(head, inner)| {
            let closes = |open: char| match open {
                '{' => Some('}'),
                '[' => Some(']'),
                '(' => (!head.contains(')')).then_some(')'),
                _ => None,
            };
            let close: String = head.chars().rev().filter_map(closes).collect();
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
    fn any_damage_to_a_sound_file(
        file in prop::sample::select(corpus()),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20, replacement()), 1..4),
    ) {
        let mut bytes = file;
        for (place, length, with) in cuts {
            let place = place.index(bytes.len() + 1);
            let end = (place + length).min(bytes.len());
            bytes.splice(place..end, with.into_bytes());
        }
        check(&bytes);
    }

    #[test]
    fn any_two_halves(left in prop::sample::select(corpus()), right in prop::sample::select(corpus()), at in any::<(prop::sample::Index, prop::sample::Index)>()) {
        let mut bytes = left;
        bytes.truncate(at.0.index(bytes.len() + 1));
        bytes.extend_from_slice(right.get(at.1.index(right.len() + 1)..).unwrap());
        check(&bytes);
    }
}

/// What a piece of a file is replaced by.
fn replacement() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), prop::sample::select(TOKENS).prop_map(str::to_owned), "\\PC{0,5}"]
}

/// The sources of the corpus.
fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data");
    let mut sources = Vec::new();
    for folder in ["ok", "err", "syntax"] {
        let mut paths: Vec<_> = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "otto"));
        paths.sort();
        sources.extend(paths.into_iter().map(|path| fs::read(path).unwrap()));
    }
    sources
}

#[test]
fn the_corpus_itself() {
    for source in corpus() {
        check(&source);
    }
}
