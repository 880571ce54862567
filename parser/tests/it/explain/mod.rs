//! What people read of a plan.

mod pictures;
mod plans;

use std::collections::BTreeMap;

use insta::assert_snapshot;
use model::{
    Digest, StageId,
    context::{EventKind, PullRequest, TriggerContext},
    plan::{Container, Effect, Plan, PlanDocument, Skip, Stage, Value},
    planning::{LeftOut, ParameterNote, PlanNotes, TriggerRule},
};
use parser::{
    Planning,
    explain::{Explained, Here, Lack, diff, explain, json},
    render,
};

use crate::fixture::Fixture;

use plans::{deploy, fanned, matrix, sh, small, with};

fn push_of_main() -> TriggerContext {
    TriggerContext {
        event: EventKind::Push,
        branch: "main".to_owned(),
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        ..TriggerContext::default()
    }
}

fn text(plan: Plan) -> String {
    let document = PlanDocument::new(plan);
    explain(&Explained { context: Some(&push_of_main()), ..Explained::new("Ottofile", &document) })
}

#[test]
fn a_small_plan_is_a_pleasure_to_read() {
    let text = text(small());
    assert!(text.lines().count() < 30, "{text}");
    assert_snapshot!(text);
}

#[test]
fn a_delivery_tells_all_that_matters() {
    let document = PlanDocument::new(deploy());
    let rule = |event, branches: &[&str]| TriggerRule {
        event,
        branches: branches.iter().map(|branch| (*branch).to_owned()).collect(),
        tags: vec![],
        paths: vec![],
        cron: String::new(),
    };
    let target = ParameterNote {
        description: "Where it goes.".to_owned(),
        kind: "choice".to_owned(),
        value: "preprod".into(),
        given: true,
        options: vec!["preprod".to_owned(), "production".to_owned()],
    };
    let notes = PlanNotes {
        triggers: vec![
            rule(EventKind::Push, &["main", "release/*"]),
            TriggerRule { cron: "0 3 * * *".to_owned(), ..rule(EventKind::Cron, &[]) },
        ],
        not_triggered: Some("the branch is 'topic'".to_owned()),
        parameters: BTreeMap::from([("target".to_owned(), target)]),
        files: BTreeMap::from([("matrix.json".to_owned(), Digest::of(b"[]"))]),
        ..PlanNotes::default()
    };
    let durations = BTreeMap::from([("Build".to_owned(), 180_000), ("Test".to_owned(), 90_000), ("Deploy/Production".to_owned(), 45_000)]);
    let context = TriggerContext {
        event: EventKind::PullRequest,
        pull_request: Some(PullRequest { number: 7, target: "main".to_owned(), source: "topic".to_owned(), fork: true }),
        ..TriggerContext::default()
    };
    let explained = Explained {
        notes: Some(&notes),
        context: Some(&context),
        durations: Some(&durations),
        ..Explained::new(".otto/deploy.otto", &document)
    };
    assert_snapshot!(explain(&explained));
}

#[test]
fn a_matrix_is_told_in_few_lines_of_order() {
    let document = PlanDocument::new(matrix());
    let left_out = vec![LeftOut { path: "Test (mac, 8)".to_owned(), condition: "it.os != 'mac'".to_owned() }];
    let notes = PlanNotes { left_out, ..PlanNotes::default() };
    assert_snapshot!(explain(&Explained { notes: Some(&notes), ..Explained::new("Ottofile", &document) }));
}

#[test]
fn an_automatic_order_tells_the_reason_of_each_edge() {
    assert_snapshot!(text(fanned()));
}

#[test]
fn a_plan_without_stages_is_explained() {
    assert_snapshot!(text(Plan::new(vec![])));
}

#[test]
fn colours_change_nothing_else() {
    let document = PlanDocument::new(deploy());
    let coloured = explain(&Explained { colour: true, ..Explained::new("Ottofile", &document) });
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    // Blanks at a line's end may stand before the colour's end.
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&plain), trimmed(&explain(&Explained::new("Ottofile", &document))));
}

#[test]
fn nothing_of_a_plan_steers_the_terminal() {
    let evil = "\u{1b}[2J\u{202e}\u{7}";
    let stage = Stage {
        lock: Some(evil.to_owned()),
        environment: BTreeMap::from([(evil.to_owned(), Value::from(evil))]),
        steps: vec![sh(&format!("{evil}\n{evil}"))],
        ..Stage::new(&format!("{evil}/a"))
    };
    let plan = Plan::new(vec![stage]);
    let document = PlanDocument::new(plan);
    let other = PlanDocument::new(small());
    let texts = [explain(&Explained::new(evil, &document)), diff(&document, &other, false), diff(&other, &document, false)];
    for text in texts {
        assert!(!text.contains(|character: char| character != '\n' && character.is_control()) && !text.contains('\u{202e}'), "{text:?}");
    }
}

#[test]
fn the_same_meaning_has_no_difference() {
    let document = PlanDocument::new(deploy());
    assert!(diff(&document, &document, false).starts_with("no difference in meaning\n"));
}

#[test]
fn a_difference_is_told_field_by_field() {
    let first = PlanDocument::new(deploy());
    let mut plan = deploy();
    let find = |plan: &mut Plan, path: &str| plan.stages.iter().position(|stage| stage.path == path).unwrap();
    let test = find(&mut plan, "Test");
    plan.stages[test].timeout_ms = 60_000;
    plan.stages[test].environment.insert("DEBUG".to_owned(), Value::Integer(1));
    plan.stages[test].effect = Effect::Once;
    let production = find(&mut plan, "Deploy/Production");
    plan.stages[production].steps[0].credentials = vec![];
    plan.stages[production].steps[1] = sh("make\nmake ship --all");
    plan.credentials.get_mut("deploy-key").unwrap().hosts.push("example.org".to_owned());
    let docs = find(&mut plan, "Docs");
    plan.stages[docs].path = "Manual".to_owned();
    plan.stages[docs].id = StageId::of("Manual");
    plan.stages.push(with("Announce", &["Build"], vec![sh("./announce")]));
    plan.newer = None;
    assert_snapshot!(diff(&first, &PlanDocument::new(plan), false));
}

#[test]
fn stages_that_change_places_are_told() {
    let stages = || vec![Stage::new("a"), Stage::new("b"), Stage::new("c"), Stage::new("d")];
    let mut turned = stages();
    turned.rotate_left(1);
    let text = diff(&PlanDocument::new(Plan::new(stages())), &PlanDocument::new(Plan::new(turned)), false);
    assert!(text.starts_with("~ a  stands elsewhere in the plan\n1 stage: 0 added, 0 removed, 0 moved, 1 changed\n"), "{text}");
}

#[test]
fn programs_get_one_object() {
    let document = PlanDocument::new(small());
    let notes = PlanNotes::default();
    let json = json(&Explained { notes: Some(&notes), ..Explained::new("Ottofile", &document) }, &[]);
    assert!(json.starts_with(&format!("{{\n  \"digest\": \"{}\",\n  \"plan\": {{", document.digest())), "{json}");
    assert!(json.contains("\"left_out\": []") && json.ends_with("\"warnings\": []\n}\n"), "{json}");
}

#[test]
fn what_cannot_run_on_this_machine_is_told_in_every_form() {
    let mut image = Stage { container: Some(Container { image: Value::from("ruby:2.6") }), ..Stage::new("Image") };
    image.requires.insert("memory".to_owned(), Value::Integer(2 << 30));
    let document = PlanDocument::new(Plan::new(vec![Stage::new("Plain"), image]));
    let lack = Lack { why: "no containers \u{1b}[2Jhere".to_owned(), mend: "install podman".to_owned() };
    let offers = [("arch".to_owned(), Value::from("amd64")), ("memory".to_owned(), Value::Integer(1 << 30))].into();
    let here = Here { offers, lacks: [(StageId::of("Image"), lack)].into() };
    let explained = Explained { here: Some(&here), ..Explained::new("Ottofile", &document) };
    let text = explain(&explained);
    assert!(text.contains("agent       docker_run, memory >= 2G\n"), "{text}");
    let section = "\nOn this machine\n  it offers     arch 'amd64', memory 1G\n  cannot run    1 stage\n    \
                   Image  no containers \\u{1b}[2Jhere\n      install podman\n";
    assert!(text.contains(section), "{text}");
    let told: serde_json::Value = serde_json::from_str(&json(&explained, &[])).unwrap();
    assert_eq!(told["demands"], serde_json::json!({"Image": {"docker_run": true, "memory": 2_147_483_648_u64}}));
    assert_eq!(told["here"]["lacks"]["Image"]["mend"], "install podman");
    for picture in [parser::explain::dot(document.plan(), Some(&here)), parser::explain::svg(document.plan(), Some(&here))] {
        assert!(picture.contains("not on this machine") && picture.contains("install podman"), "{picture}");
    }
    let fits = Here { lacks: [].into(), ..here.clone() };
    let text = explain(&Explained { here: Some(&fits), ..explained });
    assert!(text.contains("  can run       every stage\n"), "{text}");
    assert!(!explain(&Explained::new("Ottofile", &document)).contains("machine"));
}

#[test]
fn what_is_skipped_for_one_reason_is_told_once() {
    let mut plan = matrix();
    for stage in &mut plan.stages[1..6] {
        stage.skipped = Some(Skip { condition: "branch == 'main'".to_owned(), because: "branch is 'topic'".to_owned() });
    }
    let text = text(plan);
    assert!(
        text.contains("\n  Test (linux, 8) … Test (mac, 11) (5 stages)  because branch == 'main' is false: branch is 'topic'\n"),
        "{text}"
    );
}

#[test]
fn a_file_of_the_whole_language_is_explained_from_its_text() {
    let source = include_bytes!("whole.otto");
    let mut fixture = Fixture { context: push_of_main(), ..Fixture::default() };
    fixture.context.branch = "topic".to_owned();
    let (document, notes) = match fixture.plan("Ottofile", source) {
        Planning::Plan { document, notes, .. } => (document, notes),
        Planning::Refused(diagnostics) => {
            panic!("{}", diagnostics.iter().map(|one| render(one, source, false)).collect::<Vec<_>>().join("\n"))
        }
        Planning::Needs(needs) => panic!("{needs:?}"),
    };
    assert_snapshot!(explain(&Explained { notes: Some(&notes), context: Some(&fixture.context), ..Explained::new("Ottofile", &document) }));
    assert_snapshot!("the_picture_of_the_whole_language", parser::explain::svg(document.plan(), None));
}
