//! What becomes of a trigger before anything runs: files that the parser asks for, triggers that do not fit, plans that cannot be run yet.

use model::{
    RunOutcome, StageOutcome, Timestamp,
    diagnostic::{Diagnostic, Severity, Span},
    event::run::{Outputs, Planned},
    plan::{Plan, Stage, Step, Value},
    planning::{LOCK_FILE, PlanReply, Text},
    protocol::agent::Report,
    trigger::{RerunStages, Trigger},
};

use crate::house::{House, ended, ended_run, planned, trigger};

/// Plans nothing once it has `wanted`.
fn asks_for(
    wanted: &'static [&'static str],
    expected: &'static [Option<&'static str>],
) -> impl Fn(&model::planning::PlanRequest) -> PlanReply {
    move |request| {
        let missing: Vec<String> = wanted.iter().filter(|path| !request.files.contains_key(**path)).map(ToString::to_string).collect();
        if let Some(first) = missing.into_iter().next() {
            // One at a time, as a file that names a file does.
            return PlanReply::Needs { files: vec![first] };
        }
        let given: Vec<Option<Text>> = wanted.iter().map(|path| request.files[*path].clone()).collect();
        let expected: Vec<Option<Text>> = expected.iter().map(|text| text.map(|text| Text::Inline(text.to_owned()))).collect();
        assert_eq!(given, expected);
        planned(Plan::new(vec![]), None)
    }
}

fn archive(path: &str, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn the_parser_is_given_the_files_of_the_runs_source() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    let answer = asks_for(&["otto.lock", "a/list.json", "none.json"], &[Some("{}"), Some("[1]"), None]);
    house.play_parser_with(answer).await;
    let source = house.blobs.put(archive("a/list.json", "[1]").into()).await.unwrap();
    let (orchestrator, _supervisor) = house.start().await;
    let mut trigger = trigger("files");
    trigger.source = Some(source);
    trigger.lock = Some(Text::Inline("{}".to_owned()));
    assert_eq!(LOCK_FILE, "otto.lock");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(run.ended.unwrap().0, RunOutcome::Success, "{:?}", run.planned);
}

#[tokio::test]
async fn a_parser_that_always_asks_for_the_same_is_asked_no_more() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser(PlanReply::Needs { files: vec!["x".to_owned()] }).await;
    let (orchestrator, _supervisor) = house.start().await;
    let trigger = trigger("circle");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
    assert_eq!((diagnostics[0].code.as_str(), run.ended.unwrap().0), ("E0900", RunOutcome::Failure));
}

#[tokio::test]
async fn a_source_that_is_no_archive_ends_the_run() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser_with(asks_for(&["otto.lock"], &[])).await;
    let source = house.blobs.put(vec![b'x'; 5000].into()).await.unwrap();
    let (orchestrator, _supervisor) = house.start().await;
    let trigger = Trigger { source: Some(source), ..trigger("garbage") };
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
    assert_eq!(diagnostics[0].code, "E0900");
    assert!(diagnostics[0].message.contains("does not read as an archive"), "{}", diagnostics[0].message);
}

#[tokio::test]
async fn a_trigger_that_the_pipeline_does_not_name_is_a_run_that_is_skipped() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    house.play_parser(planned(Plan::new(vec![Stage::new("A")]), Some("the branch is `x`".to_owned()))).await;
    let (orchestrator, _supervisor) = house.start().await;
    let trigger = trigger("skipped");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    assert_eq!(run.planned, Planned::NotTriggered { reason: "the branch is `x`".to_owned() });
    assert_eq!(run.ended.unwrap().0, RunOutcome::Skipped);
    // What is in the log is read again as it was.
    let (again, _supervisor) = house.start().await;
    assert_eq!(ended(&again, &trigger).await.planned, run.planned);
}

#[tokio::test]
async fn a_plan_with_what_is_not_run_yet_runs_nothing_and_says_why() {
    let stage = Stage { credentials: vec!["deploy-key".to_owned()], ..Stage::new("Deploy") };
    let house = House::new(Plan::new(vec![stage])).await;
    let (orchestrator, _supervisor) = house.start().await;
    let trigger = trigger("credentials");
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
    assert_eq!(diagnostics[0].code, "E0903");
    assert!(diagnostics[0].message.contains("`Deploy`") && diagnostics[0].message.contains("credentials"), "{}", diagnostics[0].message);
}

#[tokio::test]
async fn warnings_stand_in_the_run_and_are_bounded() {
    let warning = |number: usize, help: String| Diagnostic {
        code: "W0401".to_owned(),
        severity: Severity::Warning,
        message: format!("warning {number}"),
        file: "Ottofile".to_owned(),
        line: 1,
        column: 1,
        span: Span::default(),
        label: String::new(),
        help,
    };
    let few: Vec<Diagnostic> = (0..2).map(|number| warning(number, String::new())).collect();
    let many: Vec<Diagnostic> = (0..50).map(|number| warning(number, String::new())).collect();
    let large: Vec<Diagnostic> = (0..10).map(|number| warning(number, "x".repeat(10_000))).collect();
    for (name, warnings, shown, more) in [("few", few, 2, 0), ("many", many, 20, 30), ("large", large, 3, 7)] {
        let house = House::without_parser(eventbus::memory::bus()).await;
        let PlanReply::Planned { digest, plan, not_triggered, .. } = planned(Plan::new(vec![]), None) else { panic!("a plan") };
        house.play_parser(PlanReply::Planned { digest, plan, not_triggered, warnings: warnings.clone() }).await;
        let (orchestrator, _supervisor) = house.start().await;
        let trigger = trigger(name);
        orchestrator.create(&trigger).await.unwrap();
        let run = ended(&orchestrator, &trigger).await;
        let Planned::Plan { warnings: kept, warnings_left_out, .. } = &run.planned else { panic!("{:?}", run.planned) };
        assert_eq!((kept.as_slice(), *warnings_left_out), (&warnings[..shown], more), "{name}");
    }
}

#[tokio::test]
async fn a_rerun_that_fits_into_no_record_is_refused_and_begins_nothing() {
    let names: Vec<String> = (0..6).map(|at| format!("Stage {at}")).collect();
    let stages = names.iter().map(|name| Stage { timeout_ms: 60_000, steps: vec![sh()], ..Stage::new(name) });
    let failing = Stage { timeout_ms: 60_000, steps: vec![sh()], ..Stage::new("Failing") };
    let house = House::new(Plan::new(stages.chain([failing]).collect())).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, _supervisor) = house.start().await;
    let trigger = trigger("large");
    orchestrator.create(&trigger).await.unwrap();
    let mut reported = std::collections::BTreeSet::new();
    while reported.len() < 7 {
        let assignment = inbox.assignment(None).await;
        if !reported.insert(assignment.stage.path.clone()) {
            continue;
        }
        let is_failing = assignment.stage.path == "Failing";
        let outcome = if is_failing { StageOutcome::Failure } else { StageOutcome::Success };
        let text = if is_failing { String::new() } else { "x".repeat(180 * 1024) };
        let variables = [("v".to_owned(), Some(text))].into();
        let outputs = Outputs { variables, ..Outputs::default() };
        let report = Report::Finished { outcome, reason: None, started_at: Some(Timestamp(1)), finished_at: Timestamp(2), outputs };
        inbox.report(&assignment.lease, report).await;
    }
    ended(&orchestrator, &trigger).await;
    let again = orchestrator.rerun(&trigger.run(), RerunStages::Failed, "1", None).await.unwrap();
    let rerun = ended_run(&orchestrator, &again).await;
    let Planned::Refused { diagnostics } = &rerun.planned else { panic!("{:?}", rerun.planned) };
    assert_eq!(diagnostics[0].code, "E0906");
    assert!(diagnostics[0].message.contains("over the limit of 1047552"), "{}", diagnostics[0].message);
    // Without what the others have left, it can.
    let whole = orchestrator.rerun(&trigger.run(), RerunStages::All, "2", None).await.unwrap();
    assert_eq!(inbox.assignment(None).await.lease.attempt.run, whole);
}

fn sh() -> Step {
    Step::new("stdlib", "sh", [("script".to_owned(), Value::from("make"))].into())
}
