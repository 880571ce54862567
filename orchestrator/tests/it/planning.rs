//! What becomes of a trigger before anything runs: files that the parser asks for, triggers that do not fit, plans that cannot be run yet.

use model::{
    RunOutcome,
    event::run::Planned,
    plan::{Plan, Stage},
    planning::{LOCK_FILE, PlanReply, Text},
    trigger::Trigger,
};

use crate::house::{House, ended, planned, trigger};

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
