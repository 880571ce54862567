//! Values and conditions as a plan has them, and the pages of their errors.

use std::path::Path;

use model::plan::{Function, Plan, Value};
use parser::Planning;

use crate::{codes, fixture::Fixture};

fn planning(source: &str) -> Planning {
    Fixture::of(source.as_bytes(), Path::new("none")).plan("Ottofile", source.as_bytes())
}

fn plan(source: &str) -> Plan {
    match planning(source) {
        Planning::Plan { document, .. } => document.plan().clone(),
        Planning::Refused(diagnostics) => panic!("{source}\n{diagnostics:#?}"),
        Planning::Needs(needs) => panic!("{needs:?}"),
    }
}

fn refused(source: &str) -> Vec<String> {
    match planning(source) {
        Planning::Refused(diagnostics) => codes(&diagnostics).into_iter().map(str::to_owned).collect(),
        Planning::Plan { .. } | Planning::Needs(_) => panic!("not refused: {source}"),
    }
}

/// The value of `X` in the environment of the last stage.
fn value(header: &str, written: &str) -> Value {
    let source =
        format!("{header}\npipeline {{ stage 'Ask' {{ steps {{ sh script: 'x', into: 'x' }} }} stage 'a' {{ env {{ X = {written} }} }} }}");
    plan(&source).stages.last().unwrap().environment["X"].clone()
}

/// Whether a stage with this condition runs.
fn holds(header: &str, condition: &str) -> bool {
    let source = format!("{header}\npipeline {{ stage 'a' {{ when {{ {condition} }} }} }}");
    plan(&source).stages[0].skipped.is_none()
}

#[test]
fn a_file_digest_is_of_paths_and_object_ids() {
    let header = "// listing: b@2 a@1 c/d@3 e@4\n";
    let digest = |text: &str| Value::Text(model::Digest::of(text.as_bytes()).hex());
    assert_eq!(value(header, "files('b', 'a')"), digest("a\n1\nb\n2\n"));
    assert_eq!(value(header, "files('a', 'b', '*')"), digest("a\n1\nb\n2\ne\n4\n"));
    assert_eq!(value(header, "files('c')"), digest("c/d\n3\n"));
    assert_eq!(value(header, "files('c/')"), value(header, "files('./c/**')"));
}

#[test]
fn what_is_known_in_the_run_stays_a_call_of_texts() {
    let variable = || Value::Variable { variable: "x".to_owned() };
    let call = |function, arguments| Value::Call { function, arguments };
    assert_eq!(value("", "vars.x"), variable());
    assert_eq!(value("", "concat('a', 3, vars.x)"), call(Function::Concat, vec!["a".into(), "3".into(), variable()]));
    let inner = call(Function::Format, vec!["{}".into(), variable()]);
    assert_eq!(value("", "concat('a', format('{}', vars.x))"), call(Function::Concat, vec!["a".into(), inner]));
    let list = Value::List(vec![variable(), "true".into()]);
    assert_eq!(value("", "join([vars.x, true], '-')"), call(Function::Join, vec![list, "-".into()]));
    assert_eq!(value("", "concat('a', concat('b', 'c'))"), "abc".into());
}

#[test]
fn values_are_compared_as_they_are_written() {
    let header = "// context: event=push branch=3 param.n=3 param.d=3.10 param.flag=true\n\
                  parameters { n { type = number } d { type = number } flag { type = boolean } t { default = 'true' } }";
    for (condition, expected) in [
        ("branch == 3", true),
        ("params.n == '3'", true),
        ("params.n == 03", true),
        ("params.d == 3.10", true),
        ("params.d == 3.1", false),
        ("params.d == '3.10'", true),
        ("params.flag == 'true'", true),
        ("params.flag == true", true),
        ("params.flag == params.t", true),
        ("params.n in ['1', 3]", true),
        ("params.n != 3", false),
        ("branch matches '[0-9]'", true),
        ("'3' == branch", true),
        ("'Main' == 'main'", false),
    ] {
        assert_eq!(holds(header, condition), expected, "{condition}");
    }
}

#[test]
fn and_binds_more_tightly_than_or() {
    for (condition, expected) in [
        ("true || false && false", true),
        ("(true || false) && false", false),
        ("!false && !(true && false)", true),
        ("!!true", true),
        ("false || false", false),
    ] {
        assert_eq!(holds("", condition), expected, "{condition}");
    }
}

#[test]
fn what_is_needed_is_asked_for_and_nothing_else() {
    let source = "pipeline { stage 'a' { when { branch == 'x' } } }";
    let input = parser::PlanInput {
        path: "Ottofile",
        source: source.as_bytes(),
        context: &model::context::TriggerContext::default(),
        files: &std::collections::BTreeMap::from([("otto.lock".to_owned(), None)]),
        listing: None,
        changed: None,
        libraries: &[stdlib::library()],
    };
    assert!(matches!(parser::plan(&input), Planning::Plan { .. }));
    for (source, listing, changed) in [
        ("pipeline { stage 'a' { when { changed('x') } } }", false, true),
        ("pipeline { stage 'a' { when { exists('x') } } }", true, false),
        ("pipeline { env { A = files('x') } stage 'a' { } }", true, false),
        ("triggers { manual push { paths = ['x'] } } pipeline { }", false, false),
    ] {
        match parser::plan(&parser::PlanInput { source: source.as_bytes(), ..input }) {
            Planning::Needs(needs) => assert_eq!((needs.listing, needs.changed), (listing, changed), "{source}"),
            Planning::Plan { .. } => assert!(!listing && !changed, "{source}"),
            Planning::Refused(diagnostics) => panic!("{source}\n{diagnostics:#?}"),
        }
    }
}

#[test]
fn there_are_at_most_a_thousand_patterns_for_paths() {
    let conditions = |count: usize| (0..count).map(|place| format!("stage 's{place}' {{ when {{ changed('p{place}/**') }} }}\n"));
    let source = |count| format!("pipeline {{ {} }}", conditions(count).collect::<String>());
    let stages = parser::limits::PATH_PATTERNS_MAX;
    assert_eq!(plan(&source(stages)).stages.len(), stages);
    assert_eq!(refused(&source(stages + 7)), ["E0621"]);
}

#[test]
fn a_condition_deep_in_parentheses_is_decided() {
    let nested = format!("{}true{}", "!(".repeat(50), ")".repeat(50));
    assert!(holds("", &nested));
}

#[test]
fn the_pages_of_the_errors_of_values_have_examples_that_are_what_they_say() {
    let pages = [
        "E0220", "E0221", "E0222", "E0223", "E0230", "E0231", "E0420", "E0421", "E0422", "E0423", "E0424", "E0425", "E0426", "E0427",
        "E0428", "E0720", "E0801",
    ];
    for code in pages {
        let page = std::fs::read_to_string(format!("{}/../docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for block in page.split("```").skip(1).step_by(2) {
            match block.split_once('\n').unwrap() {
                ("refused", source) => assert_eq!(refused(source), [code], "{source}"),
                ("otto", source) => drop(plan(source)),
                (kind, source) => panic!("{kind}: {source}"),
            }
        }
    }
}
