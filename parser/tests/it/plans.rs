//! What a file means: edges, inheritance, digests.

use std::collections::BTreeMap;

use model::{
    StageId,
    context::{EventKind, TriggerContext},
    plan::{Effect, PlanDocument, RetryReason, Value},
    planning::LOCK_FILE,
};
use parser::{PlanInput, Planning};

use crate::{planned, planning, planning_of};

/// For each stage the paths that it waits for.
fn needs(document: &PlanDocument) -> Vec<(String, Vec<String>)> {
    let plan = document.plan();
    let path = |id: &StageId| plan.stage(id).unwrap().path.clone();
    plan.stages.iter().map(|stage| (stage.path.clone(), stage.needs.iter().map(|need| path(&need.stage)).collect())).collect()
}

fn check_needs(source: &str, expected: &[(&str, &[&str])]) {
    let expected: Vec<(String, Vec<String>)> =
        expected.iter().map(|(path, needs)| ((*path).to_owned(), needs.iter().map(|need| (*need).to_owned()).collect())).collect();
    assert_eq!(needs(&planned(source)), expected, "{source}");
}

#[test]
fn each_element_waits_for_all_ends_of_the_one_before() {
    check_needs(
        "pipeline { stage 'a' { } parallel { stage 'b' { } stage 'c' { stage 'd' { } stage 'e' { } } } stage 'f' { } stage 'g' { } }",
        &[("a", &[]), ("b", &["a"]), ("c/d", &["a"]), ("c/e", &["c/d"]), ("f", &["b", "c/e"]), ("g", &["f"])],
    );
    check_needs(
        "pipeline { parallel { stage 'a' { } stage 'b' { } } parallel { } parallel { stage 'c' { } stage 'd' { } } }",
        &[("a", &[]), ("b", &[]), ("c", &["a", "b"]), ("d", &["a", "b"])],
    );
    check_needs(
        "pipeline { stage 'g' { stages { parallel { stage 'a' { } stage 'b' { } } stage 'c' { } } } steps { echo 'x' } }",
        &[("g/a", &[]), ("g/b", &[]), ("g/c", &["g/a", "g/b"]), ("steps", &["g/c"])],
    );
}

#[test]
fn a_stage_is_known_by_its_path() {
    let document = planned("pipeline { stage 'g' { stage 'a' { } } }");
    assert_eq!(document.plan().stages[0].id, StageId::of("g/a"));
}

#[test]
fn a_plan_that_is_made_can_be_read() {
    let document = planned("pipeline { parallel { stage 'a' { steps { sh 'x', 'y' } } stage 'b' { } } stage 'c' { env { A = 1 } } }");
    assert_eq!(PlanDocument::read(document.bytes()).unwrap(), document);
}

#[test]
fn settings_have_defaults_and_are_inherited() {
    let document = planned("pipeline { stage 'a' { } stage 'b' { effect = once stage 'c' { timeout 1m } stage 'd' { effect = safe } } }");
    let facts: Vec<_> =
        document.plan().stages.iter().map(|stage| (stage.timeout_ms, stage.effect, stage.retries(RetryReason::Lost))).collect();
    assert_eq!(facts, [(3_600_000, Effect::Safe, 2), (60_000, Effect::Once, 0), (3_600_000, Effect::Safe, 2)]);
}

#[test]
fn only_libraries_whose_steps_are_called_stand_in_the_plan() {
    assert!(planned("use stdlib pipeline { stage 'a' { } }").plan().libraries.is_empty());
    let library = stdlib::library();
    let expected = BTreeMap::from([(library.name, library.digest)]);
    assert_eq!(planned("pipeline { steps { echo 'a' } }").plan().libraries, expected);
}

#[test]
fn every_spelling_of_a_call_is_the_same_plan() {
    let digest = |call: &str| planned(&format!("pipeline {{ steps {{ {call} }} }}")).digest();
    let expected = digest("sh script: 'a', label: 'b'");
    for call in [
        "sh 'a', 'b'",
        "sh 'a' 'b'",
        "sh('a', 'b')",
        "sh(label: 'b' script: 'a')",
        "sh'a'\"b\"",
        "sh \"\"\"a\"\"\", 'b'",
        "sh\n(\n'a',\n'b',\n)",
    ] {
        assert_eq!(digest(call), expected, "{call}");
    }
}

#[test]
fn every_spelling_of_a_stage_is_the_same_plan() {
    let digest = |stage: &str| planned(&format!("pipeline {{ {stage} }}")).digest();
    let expected = digest("stage 'a' { timeout = 5m steps { sh 'x' } }");
    for stage in [
        "stage{name='a'timeout=5m steps{sh'x'}}",
        "stage('a') { steps [ sh 'x' ] timeout 300s }",
        "stages { stage { steps { sh('x') } timeout = 0.5m timeout_ = 1 } }",
        "stage { name \"a\" timeout\n=\n5m steps\n{ sh 'x' }\n}",
    ] {
        if stage.contains("timeout_") {
            assert!(matches!(planning(format!("pipeline {{ {stage} }}").as_bytes()), Planning::Refused(_)));
        } else {
            assert_eq!(digest(stage), expected, "{stage}");
        }
    }
}

#[test]
fn line_ends_byte_order_mark_path_and_comments_do_not_change_the_plan() {
    let source = "pipeline {\n  steps { sh 'a\nb' sh \"c\nd\" sh \"\"\"\n  e\n  f\n  \"\"\" }\n}\n";
    let expected = planned(source);
    assert_eq!(planned(&source.replace('\n', "\r\n")), expected);
    assert_eq!(planned(&format!("\u{feff}{source}")), expected);
    assert_eq!(planned(&format!("// x\n{source}/* y */")), expected);
    let Planning::Plan { document, .. } = planning_of("/somewhere/else/x.otto", source.as_bytes()) else { panic!("refused") };
    assert_eq!(document, expected);
    let texts: Vec<&Value> = expected.plan().stages[0].steps.iter().map(|step| &step.parameters["script"]).collect();
    assert_eq!(texts, [&Value::Text("a\nb".to_owned()), &Value::Text("c\nd".to_owned()), &Value::Text("e\nf".to_owned())]);
}

#[test]
fn a_context_that_nothing_asks_for_does_not_change_the_plan() {
    let source = b"pipeline { steps { echo 'a' } }";
    let context = TriggerContext { event: EventKind::Push, branch: "main".to_owned(), ..TriggerContext::default() };
    let input = PlanInput {
        path: "Ottofile",
        source,
        context: &context,
        files: &BTreeMap::from([(LOCK_FILE.to_owned(), None)]),
        listing: None,
        changed: None,
        libraries: &[stdlib::library()],
    };
    assert_eq!(parser::plan(&input), planning(source));
}

#[test]
fn the_graph_of_a_plan_can_be_drawn() {
    let document = planned("pipeline { stage 'a \"1\"' { } parallel { stage 'b' { } stage 'c' { } } }");
    let graph = parser::graph_of(document.plan());
    assert_eq!(graph.order().unwrap().len(), 3);
    assert_eq!(graph.transitive_dependents(&StageId::of("a \"1\"")).len(), 2);
    let dot = parser::explain::dot(document.plan(), None);
    assert!(dot.contains("label=\"a \\\"1\\\"\"") && dot.contains("n0 -> n2 [tooltip=\"written before it\"]"), "{dot}");
    assert!(parser::explain::svg(document.plan(), None).contains(">a &quot;1&quot;</text>"));
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_the_byte() {
    let diagnostics = crate::refused(b"pipeline { stage '\xff' { } }");
    assert_eq!(crate::codes(&diagnostics), ["E0101"]);
    assert_eq!((diagnostics[0].span.start, diagnostics[0].line, diagnostics[0].column), (18, 1, 19));
    assert!(diagnostics[0].message.contains("byte 18"), "{}", diagnostics[0].message);
    assert!(parser::render(&diagnostics[0], b"pipeline { stage '\xff' { } }", false).contains("Ottofile:1:19"));
}
