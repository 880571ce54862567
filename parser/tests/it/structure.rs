//! How stages stand to each other: edges with their reasons, what is expanded, and its limits.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use model::{
    StageId,
    context::TriggerContext,
    diagnostic::Diagnostic,
    plan::{NeedReason, PlanDocument, StageKind, Wait},
    planning::{LOCK_FILE, PlanNotes},
};
use parser::{PlanInput, Planning, limits};

use crate::{codes, planned, refused};

/// Many times what a debug build needs; quadratic time needs far more.
const SOON: Duration = Duration::from_secs(20);

/// For each stage, in the order of the plan, what it waits for and why.
fn edges(document: &PlanDocument) -> Vec<String> {
    let plan = document.plan();
    let path = |id: &StageId| plan.stage(id).unwrap().path.clone();
    let why = |reason: &NeedReason| match reason {
        NeedReason::Order => "order".to_owned(),
        NeedReason::Needs => "needs".to_owned(),
        NeedReason::Cache(name) => format!("cache {name}"),
        NeedReason::Artifact(name) => format!("artifact {name}"),
        NeedReason::From(block) => format!("from {block}"),
        NeedReason::Environment(name) => format!("environment {name}"),
        NeedReason::Variable(name) => format!("variable {name}"),
        NeedReason::Barrier => "barrier".to_owned(),
        NeedReason::Rollback => "rollback".to_owned(),
    };
    let line = |stage: &model::plan::Stage| {
        let needs: Vec<String> = stage.needs.iter().map(|need| format!("{} ({})", path(&need.stage), why(&need.reason))).collect();
        if needs.is_empty() { stage.path.clone() } else { format!("{} <- {}", stage.path, needs.join(", ")) }
    };
    plan.stages.iter().map(line).collect()
}

#[track_caller]
fn check_edges(source: &str, expected: &[&str]) {
    assert_eq!(edges(&planned(source)), expected, "{source}");
}

/// The planning of a source with these files, in as many rounds as are needed.
fn planning_with(source: &str, files: &[(&str, &str)]) -> Planning {
    let mut files: BTreeMap<String, Option<Vec<u8>>> =
        files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec()))).collect();
    files.insert(LOCK_FILE.to_owned(), None);
    let input = PlanInput {
        path: "Ottofile",
        source: source.as_bytes(),
        context: &TriggerContext::default(),
        files: &files,
        listing: None,
        changed: None,
        libraries: &[stdlib::library()],
    };
    parser::plan(&input)
}

fn notes(source: &str) -> PlanNotes {
    match planning_with(source, &[]) {
        Planning::Plan { notes, .. } => *notes,
        other @ (Planning::Refused(_) | Planning::Needs(_)) => panic!("{other:?}"),
    }
}

fn refused_with(source: &str, files: &[(&str, &str)]) -> Vec<Diagnostic> {
    match planning_with(source, files) {
        Planning::Refused(diagnostics) => diagnostics,
        Planning::Plan { document, .. } => panic!("{:?}", document.plan()),
        Planning::Needs(needs) => panic!("{needs:?}"),
    }
}

#[test]
fn without_an_order_a_stage_waits_for_what_it_uses() {
    check_edges(
        "environments { preprod { } }
        pipeline {
          order = auto
          stage 'Use' { cache { use gems } steps { unarchive 'app' } }
          stage 'Make' { cache { gems = ['vendor/'] } steps { archive 'app', ['out/'] } }
          stage 'Image' { runtime { docker { image = 'ruby' } } }
          stage 'Same' { runtime { from 'Image' } }
          stage 'First' { environment -> preprod }
          stage 'Second' { environment -> preprod }
          stage 'Tell' { steps { sh 'date', into: 'now' } }
          stage 'Hear' { env { NOW = vars.now } }
        }",
        &[
            "Make",
            "Use <- Make (cache gems), Make (artifact app)",
            "Image",
            "Same <- Image (from runtime)",
            "First",
            "Second <- First (environment preprod)",
            "Tell",
            "Hear <- Tell (variable now)",
        ],
    );
}

#[test]
fn what_is_made_in_the_same_branch_is_meant() {
    check_edges(
        "pipeline { order = auto each('a', 'b') {
            stage 'Make' { cache { gems = ['vendor/'] } }
            stage 'Use' { cache { use gems } }
        } }",
        &["Make (a)", "Use (a) <- Make (a) (cache gems)", "Make (b)", "Use (b) <- Make (b) (cache gems)"],
    );
}

#[test]
fn gates_of_a_group_are_stages_at_its_beginning_and_its_end() {
    let document = planned(
        "pipeline {
          stage 'Before' { }
          stage 'Group' {
            gates { enter { branch == '' input 'Go?' input 'Really?' } exit { webhook { description = 'x' } } }
            stage 'a' { } stage 'b' { gates { enter { input 'b?' } } }
          }
          stage 'After' { }
        }",
    );
    assert_eq!(
        edges(&document),
        [
            "Before",
            "Group/enter <- Before (order)",
            "Group/enter-2 <- Before (order)",
            "Group/a <- Group/enter (order), Group/enter-2 (order)",
            "Group/b <- Group/a (order)",
            "Group/exit <- Group/b (order)",
            "After <- Group/exit (order)",
        ]
    );
    let stages = &document.plan().stages;
    assert!(matches!(&stages[1].kind, StageKind::Wait(Wait::Confirm { .. })) && stages[3].enter.is_empty() && stages[4].enter.len() == 1);
}

#[test]
fn a_skipped_group_skips_its_waits_too() {
    let document =
        planned("pipeline { stage 'G' { when { branch == 'main' } confirm 'x' stage 'a' { } rollback { steps { echo 'x' } } } }");
    assert_eq!(document.plan().stages.len(), 3);
    assert!(document.plan().stages.iter().all(|stage| stage.skipped.is_some()));
}

#[test]
fn a_wait_keeps_its_place_among_what_stands_around_it_only() {
    check_edges(
        "pipeline { order = auto stage 'a' { } stage 'G' { stage 'b' { } pause stage 'c' { } } stage 'd' { } }",
        &["a", "G/b", "G/pause <- G/b (barrier)", "G/c <- G/pause (barrier)", "d"],
    );
}

#[test]
fn nothing_waits_for_a_rollback() {
    check_edges(
        "environments { e { } } pipeline { order = auto
          stage 'a' { environment -> e steps { echo 'x' } rollback { steps { echo 'y' } } }
          stage 'b' { environment -> e }
        }",
        &["a", "a/rollback <- a (rollback)", "b <- a (environment e)"],
    );
    let source = "pipeline { stage 'a' { rollback { steps { echo 'x' } } } stage 'b' { needs = ['a/rollback'] } }";
    assert_eq!(codes(&refused(source.as_bytes())), ["E0311"]);
}

#[test]
fn names_mean_what_is_nearest() {
    check_edges(
        "pipeline { order = auto
          stage 'Build' { }
          stage 'G' { stage 'Build' { } stage 'Test' { needs = ['Build'] } stage 'Last' { needs = ['G/Build', 'Test'] } }
          stage 'Out' { needs = ['Build', 'Test', 'G'] }
        }",
        &[
            "Build",
            "G/Build",
            "G/Test <- G/Build (needs)",
            "G/Last <- G/Build (needs), G/Test (needs)",
            "Out <- Build (needs), G/Build (needs), G/Test (needs), G/Last (needs)",
        ],
    );
}

#[test]
fn a_combination_that_is_left_out_is_noted() {
    let notes = notes(
        "pipeline { stage 'G' { each('a', 'b') { when { it != 'a' } stage 'x' { } } each(1, 2) { stage 'y' { when { it == 1 } } } } }",
    );
    let left_out: Vec<(&str, &str)> = notes.left_out.iter().map(|out| (out.path.as_str(), out.condition.as_str())).collect();
    assert_eq!(left_out, [("G/each (a)", "it != 'a'"), ("G/y (2)", "it == 1")]);
}

#[test]
fn a_place_is_known_for_every_stage() {
    let notes = notes("pipeline {\n  stage 'a' { }\n  confirm 'x'\n}");
    let lines: Vec<usize> = ["a", "confirm"].iter().map(|path| notes.places[&StageId::of(path)].line).collect();
    assert_eq!(lines, [2, 3]);
}

#[test]
fn every_spelling_of_each_from_and_waits_is_the_same_plan() {
    let digest = |inside: &str| match planning_with(
        &format!("pipeline {{ {inside} }}"),
        &[("b/gem.blueprint", "blueprint { parameters { v { default = '1' } } plan { stage 'x' { steps { echo params.v } } } }")],
    ) {
        Planning::Plan { document, .. } => document.digest(),
        other @ (Planning::Refused(_) | Planning::Needs(_)) => panic!("{inside}: {other:?}"),
    };
    for same in [
        &["from 'b/gem'", "from './b/gem'", "from 'b/gem.blueprint'", "from blueprint: 'b/gem', v: '1'", "from('b/gem', v: '1')"][..],
        &["each('a', 'b') { stage 'x' { } }", "each(['a', 'b']) { stages { stage('x') { } } }", "each 'a', 'b' { stage { name 'x' } }"],
        &["confirm 'x' { timeout = 1d }", "confirm('x') { timeout 24h }"],
        &["prompt msg: 'x', into: 'y'", "prompt 'x', 'y'", "prompt { into = 'y' message = 'x' }"],
        &["stage 'x' { needs = [] }", "stage 'x' { }", "stages { stage 'x' { } }"],
    ] {
        for spelling in same {
            assert_eq!(digest(spelling), digest(same[0]), "{spelling}");
        }
    }
}

#[test]
fn a_blueprint_by_itself_takes_no_code_from_outside() {
    let source = |default: &str| format!("blueprint {{ parameters {{ s {{ default = {default} }} }} plan {{ steps {{ sh params.s }} }} }}");
    assert_eq!(planned(&source("'make'")).plan().stages.len(), 1);
    assert_eq!(codes(&refused(source("branch").as_bytes())), ["E0801"]);
}

#[test]
fn a_product_is_refused_before_it_is_expanded() {
    let list = |count: usize| (0..count).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let source = |one: usize, other: usize| format!("pipeline {{ each(a: [{}], b: [{}]) {{ stage 'x' {{ }} }} }}", list(one), list(other));
    assert_eq!(planned(&source(16, 16)).plan().stages.len(), limits::EACH_BRANCHES_MAX);
    for (one, other) in [(1, 257), (16, 17), (1_000, 1_000)] {
        let diagnostics = refused(source(one, other).as_bytes());
        assert_eq!(codes(&diagnostics), ["E0606"]);
        assert!(diagnostics[0].message.contains(&(one * other).to_string()) && diagnostics[0].message.contains("256"));
    }
}

#[test]
fn what_expands_to_nothing_many_times_is_bounded() {
    let list = (0..256).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let depth = 20;
    let source = format!("pipeline {{ {} {} }}", format!("each({list}) {{ ").repeat(depth), "}".repeat(depth));
    let begin = Instant::now();
    assert_eq!(codes(&refused(source.as_bytes())), ["E0608"]);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn blueprints_bring_in_blueprints_16_deep() {
    let files = |count: usize| -> Vec<(String, String)> {
        (0..count)
            .map(|at| {
                let inner = if at + 1 < count { format!("from './b{}'", at + 1) } else { "stage 'x' { }".to_owned() };
                (format!("b{at}.blueprint"), format!("blueprint {{ plan {{ {inner} }} }}"))
            })
            .collect()
    };
    let planning = |count: usize| {
        let files = files(count);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        planning_with("pipeline { from 'b0' }", &files)
    };
    assert!(matches!(planning(limits::INCLUDE_DEPTH_MAX), Planning::Plan { .. }));
    let Planning::Refused(diagnostics) = planning(limits::INCLUDE_DEPTH_MAX + 1) else { panic!("not refused") };
    assert_eq!(codes(&diagnostics), ["E0607"]);
    assert!(diagnostics[0].message.contains("16"));
}

#[test]
fn blueprints_that_double_at_each_depth_are_bounded() {
    let files: Vec<(String, String)> = (0..16)
        .map(|at| {
            let inner = format!("stage 'a' {{ from './b{0}' }} stage 'b' {{ from './b{0}' }}", at + 1);
            (format!("b{at}.blueprint"), format!("blueprint {{ plan {{ {} }} }}", if at < 15 { inner } else { String::new() }))
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let begin = Instant::now();
    let _planning = planning_with("pipeline { from 'b0' }", &files);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn waits_rollbacks_and_gates_count_as_stages() {
    for unit in ["pause ", "rollback { steps { echo 'x' } } ", "stage 'x' { rollback { steps { echo 'x' } } } "] {
        let source = format!("pipeline {{ {} }}", unit.repeat(limits::STAGES_MAX + 1));
        assert!(codes(&refused(source.as_bytes())).contains(&"E0601"), "{unit}");
    }
}

#[test]
fn many_stages_that_use_much_take_no_quadratic_time() {
    let users = 2_400;
    let stage = |at: usize| {
        format!(
            "stage 'm{at}' {{ cache {{ c{at} = ['a/'] }} }} stage 'u{at}' {{ cache {{ use c{at} }} env {{ X = vars.v }} needs = ['m{at}'] }}\n"
        )
    };
    let stages: String = (0..users).map(stage).collect();
    for order in ["", "order = auto"] {
        let source = format!("pipeline {{ {order} prompt msg: 'x', into: 'v' {stages} }}");
        let begin = Instant::now();
        assert_eq!(planned(&source).plan().stages.len(), 2 * users + 1);
        assert!(begin.elapsed() < SOON, "{order} took {:?}", begin.elapsed());
    }
    let unknown = (0..users).map(|at| format!("stage 'u{at}' {{ needs = ['zz{at}'] }}")).collect::<Vec<_>>().join("\n");
    let begin = Instant::now();
    assert_eq!(refused(format!("pipeline {{ {unknown} }}").as_bytes()).len(), limits::DIAGNOSTICS_MAX + 1);
    assert!(begin.elapsed() < SOON, "unknown names took {:?}", begin.elapsed());
}

#[test]
fn independent_mistakes_of_order_are_told_with_the_others() {
    let source = "pipeline { stage 'a' { timeout = 'x' needs = ['nowhere'] steps { sh 'y', 'a', 'b', 'c' } } stage 'a' { } }";
    assert_eq!(codes(&refused_with(source, &[])), ["E0206", "E0311", "E0404", "E0303"]);
}
